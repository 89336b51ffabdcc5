"""A plain model: log expression linear in what neighbours express, with cell types as random effects.

Every type t and gene g has a Poisson rate regression with overdispersion,

    x_vg ~ library_v * exp(a_tg + b_tg . d_v),     d_v = (h_v, domain_v)

where h_v are the first principal components of the mean log expression of the cell's neighbours and domain_v says in which
target domain it stands. The slopes of the types scatter around a common slope, b_tg ~ N(m_g, T), m_g ~ N(0, S); T and S are
diagonal, shared by all genes and learnt. A type that was held out of a domain so gets what its own cells say about
other neighbourhoods, and for the rest what other types do, with a variance that says how far types agree.

All that is kept of the cells are sums: a gradient and an information matrix per type and gene.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.linalg import eigh

LARGEST_CHANGE = 3.0
N_CELLS_OF_AXES = 20_000
_VALUES_PER_BLOCK = 1 << 22
_FLOOR = 1e-4


@dataclass(frozen=True)
class Axes:
    """Principal components of received expression: h = (phi - mean) @ loadings, of unit variance.

    Attributes:
        mean: (g,). loadings: (g, k).
    """

    mean: np.ndarray
    loadings: np.ndarray

    @classmethod
    def of(cls, received: np.ndarray, n_components: int) -> "Axes":
        """From received expression (n, g); fewer components where there is less variance."""
        received = received.astype(np.float64)
        mean = received.mean(axis=0)
        centred = received - mean
        covariance = centred.T @ centred / max(len(received) - 1, 1)
        n_genes = len(mean)
        k = min(n_components, n_genes, len(received) - 1)
        variances, vectors = eigh(covariance, subset_by_index=[n_genes - k, n_genes - 1])
        kept = variances > 1e-9 * max(np.trace(covariance), 1e-300)
        variances, vectors = variances[kept][::-1], vectors[:, kept][:, ::-1]
        largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])]
        return cls(mean, vectors * np.sign(largest) / np.sqrt(variances))

    def project(self, graph: sparse.csr_array, log_expression: sparse.csr_array) -> np.ndarray:
        """h (m, k) of cells with neighbours given by rows of `graph` (m, n); without any, what an average cell receives."""
        total = np.asarray(graph.sum(axis=1)).ravel()
        received = graph @ (log_expression @ self.loadings) / np.maximum(total, 1e-12)[:, None]
        return np.where(total[:, None] > 0, received - self.mean @ self.loadings, 0.0)


@dataclass(frozen=True)
class Evidence:
    """What some cells say about their slopes, as a Gaussian likelihood in natural form; genes first.

    Attributes:
        linear: (g, p) information @ slope. information: (g, p, p).
        level: (g,) fitted log rate at the centre. centre: (p,) mean design of the cells.
        dispersion: (g,) variance over mean.
        n_cells: how many cells.
    """

    linear: np.ndarray
    information: np.ndarray
    level: np.ndarray
    centre: np.ndarray
    dispersion: np.ndarray
    n_cells: int


def regress(
    counts: sparse.csr_array,
    library: np.ndarray,
    design: np.ndarray,
    n_steps: int = 5,
    ridge: float = 1.0,
) -> Evidence:
    """Poisson regressions of all genes on one design, by Newton steps on sums over blocks of cells.

    Args:
        counts: (n, g). library: (n,) total counts. design: (n, p).
        ridge: keeps the steps stable; taken out of the evidence again.
    """
    counts, (n, g), p = sparse.csr_array(counts), counts.shape, design.shape[1]
    centre = design.mean(axis=0)
    z = np.column_stack([np.ones(n), design - centre])
    pairs = np.triu_indices(p + 1)
    total = np.asarray(counts.sum(axis=0)).ravel()
    observed = (counts.T @ z).T
    coefficients = np.zeros((p + 1, g))
    coefficients[0] = np.log((total + 0.5) / library.sum())
    penalty = np.diag([0.0] + [ridge] * p)
    for _ in range(n_steps):
        expected, information = _sums(z, library, coefficients, pairs)
        gradient = observed - expected - penalty @ coefficients
        step = np.linalg.solve(information + penalty + 1e-6 * np.eye(p + 1), gradient.T[..., None])
        # No component moves by more than 1 in a step: far steps of a Poisson fit do not come back.
        step = step[..., 0].T
        coefficients += step / np.maximum(1, np.abs(step).max(axis=0))
    expected, information = _sums(z, library, coefficients, pairs)
    dispersion = _dispersion(counts, z, library, coefficients, total, expected[0], p)
    information /= dispersion[:, None, None]
    # The level is fitted beside the slopes: what is left for them is the Schur complement.
    cross = information[:, 0, 1:]
    slopes = information[:, 1:, 1:] - cross[:, :, None] * cross[:, None, :] / np.maximum(information[:, :1, :1], 1e-12)  # fmt: skip
    score = (observed - expected)[1:].T / dispersion[:, None]
    fitted = coefficients[1:].T
    linear = np.einsum("gpq,gq->gp", slopes, fitted) + score
    return Evidence(linear, slopes, coefficients[0], centre, dispersion, n)


def _blocks(n: int, g: int) -> Iterator[slice]:
    rows = max(1, _VALUES_PER_BLOCK // g)
    return (slice(start, min(start + rows, n)) for start in range(0, n, rows))


def _sums(z, library, coefficients, pairs) -> tuple[np.ndarray, np.ndarray]:
    """Z' mu (p + 1, g) and Z' diag(mu) Z (g, p + 1, p + 1)."""
    p1, g = coefficients.shape
    expected, products = np.zeros((p1, g)), np.zeros((len(pairs[0]), g))
    for rows in _blocks(len(z), g):
        part = z[rows]
        rate = np.exp(np.clip(part @ coefficients, -30, 10)) * library[rows, None]
        expected += part.T @ rate
        products += (part[:, pairs[0]] * part[:, pairs[1]]).T @ rate
    information = np.empty((g, p1, p1))
    information[:, pairs[0], pairs[1]] = products.T
    information[:, pairs[1], pairs[0]] = products.T
    return expected, information


def _dispersion(counts, z, library, coefficients, total, expected, p) -> np.ndarray:
    """Pearson's chi-square per degree of freedom (g,), at least 1: counts scatter no less than Poisson's."""
    g = counts.shape[1]
    squares = np.zeros(g)
    for rows in _blocks(len(z), g):
        part = counts[rows].tocoo()
        rate = np.exp(np.clip(z[rows] @ coefficients, -30, 10)) * library[rows, None]
        squares += np.bincount(
            part.col, part.data.astype(float) ** 2 / rate[part.row, part.col], minlength=g
        )
    chi_square = squares - 2 * total + expected
    return np.maximum(chi_square / max(len(z) - p - 1, 1), 1.0)


@dataclass(frozen=True)
class Prior:
    """Slopes of a type that has not been seen: mean (g, p) and covariance (g, p, p)."""

    mean: np.ndarray
    covariance: np.ndarray

    def update(self, evidence: Evidence | None) -> "Prior":
        """With what the type's own cells say."""
        if evidence is None:
            return self
        precision = np.linalg.inv(self.covariance)
        covariance = np.linalg.inv(precision + evidence.information)
        linear = np.einsum("gpq,gq->gp", precision, self.mean) + evidence.linear
        return Prior(np.einsum("gpq,gq->gp", covariance, linear), covariance)


@dataclass(frozen=True)
class Spread:
    """How far slopes reach: variance of the common slope and between types, (p,) each, shared by all genes."""

    common: np.ndarray
    between: np.ndarray


def learn_spread(evidence: list[Evidence], n_steps: int = 40) -> Spread:
    """Both variances by expectation maximisation over types and genes."""
    p = evidence[0].linear.shape[1]
    common, between = np.full(p, 0.1), np.full(p, 0.05)
    for _ in range(n_steps):
        mean, covariance, parts = _common_slope(evidence, Spread(common, between))
        common = np.maximum((mean**2 + covariance.diagonal(axis1=1, axis2=2)).mean(axis=0), _FLOOR)
        moments = [_deviation(part, mean, covariance) for part in parts]
        between = np.maximum(np.mean(moments, axis=(0, 1)), _FLOOR)
    return Spread(common, between)


def _common_slope(evidence, spread):
    """Posterior of the common slope, mean (g, p) and covariance (g, p, p), and each type's share in it."""
    g, p = evidence[0].linear.shape
    inverse = np.diag(1 / spread.between)
    precision, linear = np.tile(np.diag(1 / spread.common), (g, 1, 1)), np.zeros((g, p))
    parts = []
    for own in evidence:
        # Posterior of a type's deviation from a common slope m: covariance c, mean c (linear - information m).
        c = np.linalg.inv(own.information + inverse)
        kept = np.einsum("pq,gqr->gpr", inverse, c)
        precision += np.einsum("gpq,gqr->gpr", kept, own.information)
        linear += np.einsum("gpq,gq->gp", kept, own.linear)
        parts.append((own, c))
    precision = (precision + precision.transpose(0, 2, 1)) / 2
    covariance = np.linalg.inv(precision)
    return np.einsum("gpq,gq->gp", covariance, linear), covariance, parts


def _deviation(part, mean, covariance) -> np.ndarray:
    """Expected squared deviation of a type's slopes from the common ones (g, p)."""
    own, c = part
    gain = np.einsum("gpq,gqr->gpr", c, own.information)
    deviation = np.einsum("gpq,gq->gp", c, own.linear) - np.einsum("gpq,gq->gp", gain, mean)
    spread = c + np.einsum("gpq,gqr,gsr->gps", gain, covariance, gain)
    return deviation**2 + spread.diagonal(axis1=1, axis2=2)


def predictive_prior(evidence: list[Evidence], spread: Spread) -> Prior:
    """Slopes that a further type may have, before any of its cells is seen."""
    mean, covariance, _ = _common_slope(evidence, spread)
    return Prior(mean, covariance + np.diag(spread.between))


def change(prior: Prior, move: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log change of expression and its variance, (m, g) each, for moves of the design (m, p)."""
    mean = np.clip(move @ prior.mean.T, -LARGEST_CHANGE, LARGEST_CHANGE)
    g, p = prior.mean.shape
    pairs = (move[:, :, None] * move[:, None, :]).reshape(len(move), p * p)
    return mean, pairs @ prior.covariance.reshape(g, p * p).T
