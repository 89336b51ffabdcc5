"""Arithmetic on populations of cells: normalised expression, principal axes, energy distances.

Counts are dense or CSR (cells, genes), whole or fractional; sparse ones become dense only some cells at a time.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.linalg import eigh
from scipy.linalg.blas import dsyrk

Counts = np.ndarray | sparse.sparray | sparse.spmatrix

N_COMPONENTS = 50
N_NEIGHBORS = 10
N_SUBSAMPLE = 200
_TARGET_SUM = 1e4
_VALUES_PER_BLOCK = 1 << 22


def expression_blocks(counts: Counts, log: bool, genes: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """CP10K over the chosen genes, or its log1p, dense float64 (some cells, genes); empty cells stay 0.

    Args:
        genes: (g,) indices or mask; None is all.
    """
    n_rows = max(1, _VALUES_PER_BLOCK // counts.shape[1])
    for start in range(0, counts.shape[0], n_rows):
        block = counts[start : start + n_rows]
        block = (block if genes is None else block[:, genes]).astype(np.float64)
        scale = _TARGET_SUM / (np.asarray(block.sum(axis=1)).ravel() + 1e-8)
        if sparse.issparse(block):
            block.data *= np.repeat(scale, np.diff(block.indptr))
            if log:
                np.log1p(block.data, out=block.data)
            block = block.toarray()
        else:
            block *= scale[:, None]
            if log:
                np.log1p(block, out=block)
        yield block


def mean_expression(counts: Counts) -> np.ndarray:
    """Mean CP10K over cells (genes,)."""
    total = sum(block.sum(axis=0) for block in expression_blocks(counts, log=False))
    return total / counts.shape[0]


def mean_counts(counts: Counts) -> np.ndarray:
    """Mean over cells (genes,) of the counts as they are; a sum of all in single precision would stop growing."""
    n_rows = max(1, _VALUES_PER_BLOCK // counts.shape[1])
    total = np.zeros(counts.shape[1])
    for start in range(0, counts.shape[0], n_rows):
        total += np.asarray(counts[start : start + n_rows].astype(np.float64).sum(axis=0)).ravel()
    return total / counts.shape[0]


def log_mean(counts: Counts, weights: np.ndarray | None = None) -> np.ndarray:
    """log(1 + mean CP10K) of cells (genes,), or, in each row, by weights (b, cells) that sum to 1 (b, genes)."""
    if weights is None:
        return np.log1p(mean_expression(counts))
    return np.log1p(weights @ np.concatenate(list(expression_blocks(counts, log=False))))


def log_moments(counts: Counts) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (ddof 1) over cells of log1p CP10K, each (genes,)."""
    total, squares, n = 0.0, 0.0, counts.shape[0]
    for block in expression_blocks(counts, log=True):
        total, squares = total + block.sum(axis=0), squares + np.einsum("ij,ij->j", block, block)
    mean = total / n
    return mean, np.maximum(squares - n * mean**2, 0) / (n - 1)


def overdispersion(groups: Iterable[sparse.csr_array]) -> np.ndarray:
    """a (genes,) in the variance m + a m^2 of counts, by moments: m is a cell's total times its group's share of the
    gene.

    Args:
        groups: counts (cells, genes) of cells that are taken to have one mean profile each.
    """
    excess, weight = 0.0, 0.0
    for counts in groups:
        # Squares of counts add up beyond what single precision holds, and `dtype` of a sparse sum does not change that.
        counts = counts.astype(np.float64, copy=False)
        library = np.asarray(counts.sum(axis=1)).ravel()
        total = np.asarray(counts.sum(axis=0)).ravel()
        share = total / max(library.sum(), 1e-12)
        squares = np.asarray(counts.multiply(counts).sum(axis=0)).ravel()
        means = share**2 * (library @ library)
        excess = excess + squares - 2 * share * (counts.T @ library) + means - total
        weight = weight + means
    return np.maximum(excess, 0) / np.maximum(weight, 1e-12)


def counting_noise(expected: np.ndarray, dispersion: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Counts (cells, genes) drawn about expected counts: negative binomial of variance m + a m^2, Poisson where a is
    0.
    """
    expected = np.asarray(expected, dtype=np.float64)
    shape = 1 / np.maximum(dispersion, 1e-12)
    varied = rng.standard_gamma(np.broadcast_to(shape, expected.shape)) / shape
    return rng.poisson(expected * np.where(dispersion > 1e-12, varied, 1)).astype(np.float64)


def log_expression_of(counts: Counts, rows: np.ndarray) -> np.ndarray:
    """log1p CP10K of some cells (len(rows), genes), dense float64."""
    return np.concatenate(list(expression_blocks(counts[rows], log=True)))


def subsample(counts: Counts, rng: np.random.Generator) -> np.ndarray:
    """Indices (n,), ascending, of up to N_SUBSAMPLE cells drawn without replacement."""
    n = counts.shape[0]
    chosen = rng.choice(n, min(n, N_SUBSAMPLE), replace=False)
    return np.sort(chosen)


@dataclass(frozen=True)
class Moments:
    """Number of cells, sum over cells (genes,) and sum of outer products (genes, genes; upper triangle only)."""

    n: int
    total: np.ndarray
    products: np.ndarray

    @classmethod
    def of(cls, counts: Counts, log: bool) -> "Moments":
        """Of CP10K over all genes, or of its log1p."""
        total = np.zeros(counts.shape[1])
        products = np.zeros((counts.shape[1],) * 2, order="F")
        for block in expression_blocks(counts, log):
            total += block.sum(axis=0)
            products = dsyrk(1.0, block.T, beta=1.0, c=products, overwrite_c=True)
        return cls(counts.shape[0], total, products)

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.n + other.n, self.total + other.total, self.products + other.products)


def principal_axes(moments: Moments) -> np.ndarray:
    """Axes (genes, components) of exact principal component analysis, largest variance first, no axis without variance.

    Each axis points to where its largest loading is positive. Projections need no centring here, because only
    distances between projected cells are used.
    """
    n_genes = len(moments.total)
    n_axes = min(N_COMPONENTS, n_genes, moments.n - 1)
    mean = moments.total / moments.n
    covariance = (moments.products - moments.n * np.outer(mean, mean)) / (moments.n - 1)
    variances, axes = eigh(covariance, lower=False, subset_by_index=[n_genes - n_axes, n_genes - 1])
    rounding = 1e-12 * np.trace(moments.products) / moments.n
    axes = axes[:, variances > rounding][:, ::-1]
    largest = axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]
    return axes * np.sign(largest)


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean distances (n, m) between the rows of a (n, d) and of b (m, d), by the matrix product: 5 to 15 times
    faster than pair by pair.

    Rows closer than 1e-6 of the data's extent are taken to be equal, below which the difference of squares is rounding.
    """
    center = b.mean(axis=0)
    a, b = a - center, b - center
    a2, b2 = np.einsum("ij,ij->i", a, a), np.einsum("ij,ij->i", b, b)
    squared = a2[:, None] + b2 - 2 * (a @ b.T)
    squared[squared < 1e-12 * max(a2.max(), b2.max())] = 0
    return np.sqrt(squared)


def local_energy(within_a: np.ndarray, within_b: np.ndarray, between: np.ndarray) -> float:
    """Local energy distance of populations a and b (Cellina, appendix A) from their distances.

    E = m(ab) + m(ba) - m(aa) - m(bb), where m is the mean distance of each cell of the first population to its
    N_NEIGHBORS nearest in the second, itself left out. With few cells fewer are taken, the same number throughout.

    Args:
        within_a: (n, n). within_b: (m, m). between: (n, m).
    """
    k = min(N_NEIGHBORS, len(within_a) - 1, len(within_b) - 1)

    def nearest(to_others: np.ndarray) -> float:
        return np.partition(to_others, k - 1, axis=1)[:, :k].mean()

    def without_self(to_all: np.ndarray) -> np.ndarray:
        return to_all + np.diag(np.full(len(to_all), np.inf))

    within = nearest(without_self(within_a)) + nearest(without_self(within_b))
    return nearest(between) + nearest(between.T) - within
