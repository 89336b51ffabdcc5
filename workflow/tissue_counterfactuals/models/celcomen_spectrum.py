"""The spectrum of an interaction matrix J, and functions of J, at a cost that grows with its entries alone.

The Gaussian field (`celcomen_gaussian.py`) meets the graph only through averages (1/n) sum_k f(j_k) over the
eigenvalues j_k of the symmetric J, f smooth. A few dozen Gauss nodes give them: exact eigenvalues for small graphs,
Lanczos from random signs for large ones (Golub and Meurant's quadrature), the traces of J^0 .. J^4 held exactly.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.fft import dct
from scipy.linalg import eigh_tridiagonal

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.streams import stream

# Up to here all eigenvalues are taken: faster than probing, and exact.
_EXACT_UP_TO = 800
# Nodes kept after merging: Gauss nodes converge like rho^-2m, and 64 reach rounding unless a force is all but critical.
_NODES = 64
_EXACT_MOMENTS = 5
# Weight of an end of the spectrum, in cells: enough to keep a fit inside, too little to count.
_END_WEIGHT = 0.01
_COLUMNS = 32


@dataclass(frozen=True)
class Spectrum:
    """Nodes (m,) float64 ascending and weights (m,) float64 > 0 of sum 1: the eigenvalues of J, each of weight 1/n.

    The first and last node enclose all eigenvalues.
    """

    nodes: np.ndarray
    weights: np.ndarray
    n_cells: int


def symmetric_part(weights: sparse.sparray) -> sparse.csr_array:
    """(J + J') / 2 as CSR float64: all of J that the energy sees, because forces are symmetric.

    Raises:
        InputError: J is not square, or holds a diagonal (a cell is no neighbour of its own) or non-finite entries.
    """
    matrix = sparse.csr_array(weights, dtype=np.float64)
    if matrix.shape[0] != matrix.shape[1]:
        raise InputError(
            f"graph: its shape is {matrix.shape}; give a square matrix, cells x cells."
        )
    if not np.isfinite(matrix.data).all():
        raise InputError("graph: it holds weights that are not finite; give finite weights.")
    own = matrix.diagonal()
    if own.any():
        raise InputError(
            f"graph: cell {np.flatnonzero(own)[0]} is a neighbour of its own; take the diagonal out."
        )
    half = sparse.csr_array((matrix + matrix.T) / 2)
    half.sum_duplicates()
    return half


def spectrum(
    symmetric: sparse.csr_array, seed: int = 0, n_probes: int | None = None, n_steps: int = 48
) -> Spectrum:
    """Quadrature over the eigenvalues of a symmetric matrix with an empty diagonal.

    Args:
        symmetric: (n, n), from `symmetric_part`.
        seed: of the random signs; not used up to 800 cells, where all eigenvalues are computed.
        n_probes: vectors of random signs; by default as many as give 200,000 signs in all, from 2 to 16: the error of
            an average falls with the root of that number.
        n_steps: Lanczos steps from each of them, one product with J a step.
    """
    n_cells = symmetric.shape[0]
    if symmetric.nnz == 0:
        return Spectrum(np.zeros(1), np.ones(1), n_cells)
    if n_cells <= _EXACT_UP_TO:
        nodes = np.linalg.eigvalsh(symmetric.toarray())
        return Spectrum(nodes, np.full(n_cells, 1 / n_cells), n_cells)
    if n_probes is None:
        n_probes = min(max(200_000 // n_cells, 2), 16)
    nodes, weights, _, _ = _probe(symmetric, seed, n_probes, n_steps)
    weights = _with_exact_moments(nodes, weights, _moments(symmetric))
    return _enclosed(*_compressed(nodes, weights), *bounds(symmetric), n_cells)


def pooled(spectra: list[Spectrum]) -> Spectrum:
    """The spectrum of several slides side by side: all cells of all slides have the same weight."""
    if len(spectra) == 1:
        return spectra[0]
    total = sum(part.n_cells for part in spectra)
    nodes = np.concatenate([part.nodes for part in spectra])
    weights = np.concatenate([part.weights * part.n_cells / total for part in spectra])
    order = np.argsort(nodes, kind="stable")
    if len(nodes) <= _EXACT_UP_TO:
        return Spectrum(nodes[order], weights[order], total)
    return _enclosed(*_compressed(nodes, weights), nodes.min(), nodes.max(), total)


def apply_function(symmetric: sparse.csr_array, function, block: np.ndarray) -> np.ndarray:
    """f_a(J) z_a for the columns z_a of a block, by a Chebyshev series that is cut at rounding.

    Args:
        symmetric: (n, n) from `symmetric_part`.
        function: maps points (p,) to values (p, g), one smooth function per column; it must be finite on the whole
            interval that encloses the spectrum (`bounds`).
        block: (n, g) float64.

    Returns:
        (n, g) float64.
    """
    lowest, highest = bounds(symmetric)
    centre, half = (highest + lowest) / 2, max((highest - lowest) / 2, 1e-12)
    coefficients = _chebyshev_coefficients(lambda x: function(centre + half * x))
    size = np.abs(coefficients)
    terms = (size > 1e-14 * size.max(axis=0)).cumsum(axis=0).argmax(axis=0) + 1
    result = np.empty_like(block)
    # Columns that need as many terms stand together, so that no column pays for another.
    order = np.argsort(terms, kind="stable")
    for start in range(0, len(order), _COLUMNS):
        columns = order[start : start + _COLUMNS]
        part = np.ascontiguousarray(block[:, columns])
        result[:, columns] = _clenshaw(
            symmetric, coefficients[: terms[columns].max(), columns], part, centre, half
        )
    return result


def bounds(symmetric: sparse.csr_array) -> tuple[float, float]:
    """An interval that holds all eigenvalues.

    Exact for small graphs. Else the outermost Ritz values of Lanczos plus their residuals, cut to -r .. r with
    r = max_i (|J| x)_i / x_i for positive x (Collatz and Wielandt): no eigenvalue is larger, and it is sharp where x is
    the leading eigenvector, which a few products with |J| bring x near.
    """
    if symmetric.nnz == 0:
        return 0.0, 0.0
    if symmetric.shape[0] <= _EXACT_UP_TO:
        values = np.linalg.eigvalsh(symmetric.toarray())
        return float(values[0]), float(values[-1])
    size = abs(symmetric)
    connected = size.sum(axis=1) > 0
    x = np.ones(symmetric.shape[0])
    radius = np.inf
    for _ in range(50):
        image = size @ x
        radius = min(radius, float((image[connected] / x[connected]).max()))
        # The mean of x and its image: plain powers would swing between the halves of a bipartite graph.
        x = (x + image / radius) / 2
    *_, lowest, highest = _probe(symmetric, seed=0, n_probes=1, n_steps=48)
    return max(-radius, lowest), min(radius, highest)


# --- Lanczos ----------------------------------------------------------------------------------------------------


def _probe(symmetric, seed, n_probes, n_steps):
    """Nodes and weights of all probes' Gauss rules, and an interval around the spectrum."""
    n_cells = symmetric.shape[0]
    signs = stream(seed, "spectrum_probes").choice([-1.0, 1.0], size=(n_cells, n_probes))
    diagonal, off = _lanczos(symmetric, signs, n_steps)
    nodes, weights, lowest, highest = [], [], np.inf, -np.inf
    for alpha, beta in zip(diagonal, off, strict=True):
        values, vectors = eigh_tridiagonal(alpha, beta[:-1])
        nodes.append(values)
        weights.append(vectors[0] ** 2)
        residual = np.abs(beta[-1] * vectors[-1])
        lowest = min(lowest, values[0] - residual[0])
        highest = max(highest, values[-1] + residual[-1])
    return np.concatenate(nodes), np.concatenate(weights) / n_probes, lowest, highest


def _lanczos(symmetric, starts, n_steps):
    """Three-term recursions of all columns at once: diagonals (p, m) and off-diagonals (p, m), the last one left over."""
    diagonal, off = np.zeros((2, starts.shape[1], n_steps))
    previous = np.zeros_like(starts)
    vectors = starts / np.sqrt((starts**2).sum(axis=0))
    scale = np.sqrt((symmetric.data**2).sum() / symmetric.shape[0])
    for step in range(n_steps):
        image = symmetric @ vectors
        diagonal[:, step] = (image * vectors).sum(axis=0)
        image -= diagonal[:, step] * vectors
        if step:
            image -= off[:, step - 1] * previous
        norm = np.sqrt((image**2).sum(axis=0))
        # A probe that has met all its eigenvectors stops: what is left of its rule gets no weight.
        ended = norm <= 1e-10 * scale
        off[:, step] = np.where(ended, 0, norm)
        previous, vectors = vectors, image / np.where(ended, np.inf, norm)
    return diagonal, off


def _moments(symmetric: sparse.csr_array) -> np.ndarray:
    """(1/n) tr J^k for k = 0 .. 4, from the entries of J and J^2."""
    square = symmetric @ symmetric
    traces = [
        0.0,
        (symmetric.data**2).sum(),
        square.multiply(symmetric).sum(),
        (square.data**2).sum(),
    ]
    return np.array([1.0, *(np.array(traces) / symmetric.shape[0])])


def _with_exact_moments(nodes, weights, moments):
    """Weights changed by a polynomial factor, the smallest change that makes the first moments exact."""
    radius = np.abs(nodes).max()
    powers = (nodes[:, None] / radius) ** np.arange(_EXACT_MOMENTS)
    missing = moments / radius ** np.arange(_EXACT_MOMENTS) - powers.T @ weights
    factor, *_ = np.linalg.lstsq((powers.T * weights) @ powers, missing)
    # Few and very uneven cells could ask for a negative weight; then the exact moments give way to positivity.
    return weights * np.maximum(1 + powers @ factor, 0)


def _compressed(nodes, weights):
    """Gauss rule of `_NODES` nodes for a discrete measure: Lanczos on its nodes, fully reorthogonalised."""
    keep = weights > 0
    nodes, weights = nodes[keep], weights[keep] / weights[keep].sum()
    basis = np.zeros((_NODES + 1, len(nodes)))
    basis[0] = np.sqrt(weights)
    diagonal, off = np.zeros((2, _NODES))
    used = _NODES
    for step in range(_NODES):
        image = nodes * basis[step]
        diagonal[step] = image @ basis[step]
        for _ in range(2):
            image -= basis[: step + 1].T @ (basis[: step + 1] @ image)
        off[step] = np.linalg.norm(image)
        if off[step] <= 1e-12 * np.abs(nodes).max():
            used = step + 1
            break
        basis[step + 1] = image / off[step]
    values, vectors = eigh_tridiagonal(diagonal[:used], off[: used - 1])
    return values, vectors[0] ** 2


def _enclosed(nodes, weights, lowest, highest, n_cells) -> Spectrum:
    """Add the ends of the spectrum, with next to no weight: what they are worth stands in the other nodes already."""
    inside = (nodes > lowest) & (nodes < highest) & (weights > 0)
    bulk = weights[inside] / weights[inside].sum() * (1 - 2 * _END_WEIGHT / n_cells)
    return Spectrum(
        np.concatenate([[lowest], nodes[inside], [highest]]),
        np.concatenate([[_END_WEIGHT / n_cells], bulk, [_END_WEIGHT / n_cells]]),
        n_cells,
    )


# --- Chebyshev --------------------------------------------------------------------------------------------------


def _chebyshev_coefficients(function) -> np.ndarray:
    """Coefficients (terms, g) on -1 .. 1, twice as many points until the tail is rounding."""
    n = 64
    while True:
        points = np.cos(np.pi * (np.arange(n) + 0.5) / n)
        coefficients = dct(function(points), axis=0) / n
        coefficients[0] /= 2
        tail = np.abs(coefficients[-n // 8 :]).max(axis=0)
        if (tail <= 1e-13 * np.abs(coefficients).max(axis=0)).all() or n >= 4096:
            return coefficients
        n *= 2


def _clenshaw(symmetric, coefficients, block, centre, half):
    ahead, next_ahead = np.zeros_like(block), np.zeros_like(block)
    for row in coefficients[:0:-1]:
        image = symmetric @ ahead
        image -= centre * ahead
        image *= 2 / half
        image -= next_ahead
        image += row * block
        ahead, next_ahead = image, ahead
    image = symmetric @ ahead
    image -= centre * ahead
    return image / half - next_ahead + coefficients[0] * block
