"""The spectrum of an interaction matrix J, and functions of J, at a cost that grows with its entries alone.

The Gaussian field (`celcomen_gaussian.py`) meets the graph only through averages (1/n) sum_k f(j_k) over the
eigenvalues j_k of the symmetric J, f smooth. J falls apart into the connected parts of the graph. Parts of up to 800
cells (pairs, islands, small slides) give all their eigenvalues; the larger ones together give a Gauss rule from random
signs (Golub and Meurant's quadrature) with the traces of J^0 .. J^4 held exactly, and bounds that are proven.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.fft import dct
from scipy.linalg import eigh_tridiagonal
from scipy.sparse.csgraph import connected_components

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.streams import stream

# Connected parts of up to so many cells are diagonalised: faster than probing, and exact.
_EXACT_UP_TO = 800
# Matrices that are diagonalised at a time hold about this many numbers: 32 MB.
_BATCH_ENTRIES = 2**22
# Nodes kept after merging: Gauss nodes converge like rho^-2m, and 64 reach rounding unless a force is all but critical.
_NODES = 64
# More nodes than twice this are first summed up in as many bins, in which the third moment alone is lost (1e-11).
_BINS = 2**12
_EXACT_MOMENTS = 5
# Vectors of random signs, as many as give so many signs in all within these limits: the error of an average falls with
# the root of that number. And Lanczos steps from each of them, one product with J a step.
_SIGNS, _FEWEST_PROBES, _MOST_PROBES, _STEPS = 200_000, 2, 64, 48
# Weight of an end that is a bound and no eigenvalue, in cells: enough to keep a fit inside, too little to count.
_END_WEIGHT = 0.01
_COLUMNS = 32
# Lanczos runs for the bounds, and the probability that the bounds do not hold.
_BOUND_PROBES, _BOUND_STEPS, _BOUND_FAILURE = 4, 64, 1e-12
_COLLATZ_STEPS = 50
_MOST_TERMS = 2**15


@dataclass(frozen=True)
class Spectrum:
    """Nodes (m,) float64 ascending and weights (m,) float64 > 0 of sum 1: the eigenvalues of J, each of weight 1/n.

    The first and last node enclose all eigenvalues: they are the outermost ones themselves, or bounds of next to no
    weight.
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
        raise InputError(f"graph: its shape is {matrix.shape}; give a square matrix, cells x cells.")
    if not np.isfinite(matrix.data).all():
        raise InputError("graph: it holds weights that are not finite; give finite weights.")
    own = matrix.diagonal()
    if own.any():
        raise InputError(f"graph: cell {np.flatnonzero(own)[0]} is a neighbour of its own; take the diagonal out.")
    half = sparse.csr_array((matrix + matrix.T) / 2)
    half.sum_duplicates()
    return half


def spectrum(symmetric: sparse.csr_array, seed: int = 0) -> Spectrum:
    """Quadrature over the eigenvalues of a symmetric matrix with an empty diagonal.

    Args:
        symmetric: (n, n), from `symmetric_part`.
        seed: of the random signs; read only where a connected part has more than 800 cells.
    """
    n_cells = symmetric.shape[0]
    if symmetric.nnz == 0:
        return Spectrum(np.zeros(1), np.ones(1), n_cells)
    nodes, rest = _split(symmetric)
    weights = np.ones(len(nodes))
    if rest is None:
        ends = nodes.min(), nodes.max()
    else:
        ends = _enclosing(nodes, rest)
        n_probes = min(max(_SIGNS // rest.shape[0], _FEWEST_PROBES), _MOST_PROBES)
        signs = stream(seed, "spectrum_probes").choice([-1.0, 1.0], size=(rest.shape[0], n_probes))
        probed, shares = _gauss_rules(rest, signs)
        shares = _with_exact_moments(probed, shares, _moments(rest))
        nodes = np.concatenate([nodes, probed])
        weights = np.concatenate([weights, shares / shares.sum() * rest.shape[0]])
    return _tidied(nodes, weights, *ends, n_cells, exact=rest is None)


def pooled(spectra: list[Spectrum]) -> Spectrum:
    """The spectrum of several slides side by side: all cells of all slides have the same weight."""
    if len(spectra) == 1:
        return spectra[0]
    nodes = np.concatenate([part.nodes for part in spectra])
    weights = np.concatenate([part.weights * part.n_cells for part in spectra])
    return _tidied(nodes, weights, nodes.min(), nodes.max(), sum(part.n_cells for part in spectra))


def apply_function(
    symmetric: sparse.csr_array, function, block: np.ndarray, ends: tuple[float, float] | None = None
) -> np.ndarray:
    """f_a(J) z_a for the columns z_a of a block, by a Chebyshev series that is cut at rounding.

    Args:
        symmetric: (n, n) from `symmetric_part`.
        function: maps points (p,) to values (p, g), one smooth function per column; it must be finite on the whole
            interval that encloses the spectrum.
        block: (n, g) float64.
        ends: that interval, `bounds(symmetric)`, where it is known already.

    Returns:
        (n, g) float64.

    Raises:
        InputError: a function so steep at the ends that no series of 32,768 terms reaches rounding.
    """
    lowest, highest = ends or bounds(symmetric)
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
        result[:, columns] = _clenshaw(symmetric, coefficients[: terms[columns].max(), columns], part, centre, half)
    return result


def bounds(symmetric: sparse.csr_array) -> tuple[float, float]:
    """An interval that holds all eigenvalues, and little else.

    Connected parts of up to 800 cells give their outermost eigenvalues. For the larger parts, of n cells together:

    1. |j| <= r = max_i (|J| x)_i / x_i for every eigenvalue j and any positive x (Collatz and Wielandt): an eigenvector
       y has |j| |y| <= |J| |y| entry by entry, and with c the least number with |y| <= c x that is touched at i,
       |j| c x_i = |j| |y_i| <= c (|J| x)_i <= c r x_i. Products with |J| bring x to where this is sharp.
    2. So A = r I - J and r I + J have no negative eigenvalue. Let a be the largest of A, u its eigenvector, t the
       largest Ritz value after k Lanczos steps from a start z of norm 1, and e in 0 .. 1. Then t > (1 - e) a unless

           |u'z| cosh((2k - 1) artanh sqrt(e)) <= 1.

       For t is at least the Rayleigh quotient of p(A) z for any p of degree k - 1, and with m = (1 - e) a it exceeds m
       if sum_i c_i^2 p(a_i)^2 (a_i - m) > 0, c the coefficients of z on the eigenvectors. Take the Chebyshev polynomial
       of the fourth kind on 0 .. m, p = sin((k - 1/2) f) / sin(f / 2) at m (1 + cos f) / 2: p^2 (m - x) <= m there, and
       at a it is p^2 (a - m) = m sinh^2((2k - 1) artanh sqrt(e)); the sum of the squares of c is 1.
    3. For z uniform on the sphere |u'z| <= s has a probability of at most s sqrt(2n / pi) (its density is largest at 0,
       and there below sqrt(n / 2 pi)). All of q independent starts are as bad with at most the q-th power. e is chosen
       to make that 5e-13 for each end; the interval ends at r - t / (1 - e), and likewise above, cut to -r .. r.

    Kuczynski and Wozniakowski (1992) prove 2 and 3 with the slightly weaker 1.648 sqrt(n) exp(-(2k - 1) sqrt(e)).
    Rounding is allowed for by 1e-12 of the radius. The starts have a fixed seed, so that bounds are a function of J
    alone.
    """
    if symmetric.nnz == 0:
        return 0.0, 0.0
    return _enclosing(*_split(symmetric))


# --- connected parts --------------------------------------------------------------------------------------------


def _split(symmetric: sparse.csr_array) -> tuple[np.ndarray, sparse.csr_array | None]:
    """All eigenvalues of the connected parts of up to `_EXACT_UP_TO` cells, and the matrix of the others, if any."""
    n_parts, part = connected_components(symmetric, directed=False)
    sizes = np.bincount(part)
    if n_parts == 1 and sizes[0] > _EXACT_UP_TO:
        return np.zeros(0), symmetric
    # Parts by their size, the cells of each side by side: equal parts are then one stack of blocks.
    rank = np.empty(n_parts, dtype=np.int64)
    rank[np.argsort(sizes, kind="stable")] = np.arange(n_parts)
    order = np.argsort(rank[part], kind="stable")
    ordered = sparse.csr_array(symmetric[order][:, order])
    values, start = [], 0
    for size, count in zip(*np.unique(sizes, return_counts=True), strict=True):
        if size > _EXACT_UP_TO:
            break
        stop = start + size * count
        if size == 1:
            values.append(np.zeros(count))
            start = stop
        step = size * max(_BATCH_ENTRIES // size**2, 1)
        for first in range(start, stop, step):
            rows = ordered[first : min(first + step, stop)].tocoo()
            blocks = np.zeros((rows.shape[0] // size, size, size))
            blocks[rows.row // size, rows.row % size, (rows.col - first) % size] = rows.data
            values.append(np.linalg.eigvalsh(blocks).ravel())
        start = stop
    rest = ordered[start:, start:] if start < len(order) else None
    return np.concatenate(values) if values else np.zeros(0), rest


def _enclosing(values: np.ndarray, rest: sparse.csr_array | None) -> tuple[float, float]:
    """The ends of known eigenvalues and of the bounds of the rest; see `bounds`."""
    # The trace is 0, so that no spectrum lies on one side of 0.
    lowest, highest = values.min(initial=0.0), values.max(initial=0.0)
    if rest is None:
        return _widened(lowest, highest)
    size, x, radius = abs(rest), np.ones(rest.shape[0]), np.inf
    for _ in range(_COLLATZ_STEPS):
        image = size @ x
        radius = min(radius, float((image / x).max()))
        # The mean of x and its image: plain powers would swing between the halves of a bipartite graph.
        x = (x + image / radius) / 2
    radius *= 1 + 1e-12
    starts = stream(0, "spectrum_bounds").standard_normal((rest.shape[0], _BOUND_PROBES))
    ritz = [
        eigh_tridiagonal(alpha, beta[:-1], eigvals_only=True)[[0, -1]]
        for alpha, beta in zip(*_lanczos(rest, starts, _BOUND_STEPS), strict=True)
    ]
    bad = (_BOUND_FAILURE / 2) ** (1 / _BOUND_PROBES) / np.sqrt(2 * rest.shape[0] / np.pi)
    missed = np.tanh(np.arccosh(1 / bad) / (2 * _BOUND_STEPS - 1)) ** 2
    low, high = np.min(ritz), np.max(ritz)
    lowest = min(lowest, max(radius - (radius - low) / (1 - missed), -radius))
    highest = max(highest, min((radius + high) / (1 - missed) - radius, radius))
    return _widened(lowest, highest)


def _widened(lowest: float, highest: float) -> tuple[float, float]:
    slack = 1e-12 * max(-lowest, highest)
    return float(lowest - slack), float(highest + slack)


# --- Lanczos ----------------------------------------------------------------------------------------------------


def _gauss_rules(symmetric, starts):
    """Nodes and weights of the Gauss rules of all starts, side by side; the weights sum to 1."""
    nodes, weights = [], []
    for alpha, beta in zip(*_lanczos(symmetric, starts, _STEPS), strict=True):
        values, vectors = eigh_tridiagonal(alpha, beta[:-1])
        nodes.append(values)
        weights.append(vectors[0] ** 2)
    return np.concatenate(nodes), np.concatenate(weights) / starts.shape[1]


def _lanczos(symmetric, starts, n_steps):
    """Three-term recursions of all columns at once: diagonals (p, m) and off-diagonals (p, m), the last one left
    over.
    """
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
    traces = [0.0, (symmetric.data**2).sum(), square.multiply(symmetric).sum(), (square.data**2).sum()]
    return np.array([1.0, *(np.array(traces) / symmetric.shape[0])])


def _with_exact_moments(nodes, weights, moments):
    """Weights changed by a polynomial factor, the smallest change that makes the first moments exact."""
    radius = np.abs(nodes).max()
    powers = (nodes[:, None] / radius) ** np.arange(_EXACT_MOMENTS)
    missing = moments / radius ** np.arange(_EXACT_MOMENTS) - powers.T @ weights
    factor, *_ = np.linalg.lstsq((powers.T * weights) @ powers, missing)
    # Few and very uneven cells could ask for a negative weight; then the exact moments give way to positivity.
    return weights * np.maximum(1 + powers @ factor, 0)


def _tidied(nodes, weights, lowest, highest, n_cells, exact=True) -> Spectrum:
    """Ascending nodes, few of them, with weights of sum 1 (given in cells) and the ends of the spectrum among them."""
    keep = weights > 0
    nodes, weights = nodes[keep], weights[keep] / weights[keep].sum()
    if len(nodes) > 2 * _BINS:
        nodes, weights = _binned(nodes, weights, lowest, highest)
    if not exact or len(nodes) > _EXACT_UP_TO:
        nodes, weights = _compressed(nodes, weights)
    order = np.argsort(nodes, kind="stable")
    nodes, weights = np.clip(nodes[order], lowest, highest), weights[order]
    # An end that is an eigenvalue has its weight; a bound gets next to none: what it is worth stands in other nodes.
    for end in (lowest, highest):
        if np.abs(nodes - end).min() > 1e-9 * max(-lowest, highest):
            place = 0 if end == lowest else len(nodes)
            weights = np.insert(weights, place, _END_WEIGHT / n_cells)
            nodes = np.insert(nodes, place, end)
    weights = weights / weights.sum()
    return Spectrum(nodes, weights, n_cells)


def _binned(nodes, weights, lowest, highest):
    """Two nodes of equal weight for all that fall in a bin, with their mean and variance."""
    width = (highest - lowest) / _BINS
    place = np.minimum(((nodes - lowest) / width).astype(np.int64), _BINS - 1)
    mass = np.bincount(place, weights, _BINS)
    used = mass > 0
    # Counted from the bin's edge, so that equal nodes have no variance but rounding's.
    inside = nodes - (lowest + width * place)
    mean, square = (np.bincount(place, weights * inside**power, _BINS)[used] / mass[used] for power in (1, 2))
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    mean += lowest + width * np.flatnonzero(used)
    return np.concatenate([mean - spread, mean + spread]), np.tile(mass[used] / 2, 2)


def _compressed(nodes, weights):
    """Gauss rule of `_NODES` nodes for a discrete measure: Lanczos on its nodes, fully reorthogonalised."""
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


# --- Chebyshev --------------------------------------------------------------------------------------------------


def _chebyshev_coefficients(function) -> np.ndarray:
    """Coefficients (terms, g) on -1 .. 1, twice as many points until the tail is rounding."""
    n = 64
    while True:
        points = np.cos(np.pi * (np.arange(n) + 0.5) / n)
        coefficients = dct(function(points), axis=0) / n
        coefficients[0] /= 2
        tail = np.abs(coefficients[-n // 8 :]).max(axis=0)
        if (tail <= 1e-13 * np.abs(coefficients).max(axis=0)).all():
            return coefficients
        n *= 2
        if n > _MOST_TERMS:
            raise InputError(
                "field: the forces are at the border of the model, where no series in the graph converges; scale them "
                "down, or fit them with a larger ridge."
            )


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
