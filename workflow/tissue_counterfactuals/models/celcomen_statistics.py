"""All that Celcomen's inference takes from a slide: who interacts, how cells are scaled, and two matrices of moments.

The likelihood knows the cells X (cells x genes) only through X'X, X'JX and the mean expression, so these are summed
once, in blocks of cells, and training never sees a cell again.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from tissue_counterfactuals.errors import InputError

# A block of cells fills about this many numbers: 32 MB a matrix, which two cores multiply at full speed. How
# many changes the result by rounding alone.
_BLOCK_ENTRIES = 2**22


@dataclass(frozen=True)
class SlideStatistics:
    """Moments of one slide; all float64.

    Attributes:
        n_cells: S.
        mean: (g,) mean expression.
        intra: (g, g) X'X, the sum over cells of s_i s_i' (C' of equation 12).
        inter: (g, g) X'JX, the sum over ordered pairs of J_ij s_i s_j' (C of equation 11); zeros for dissociated cells.
        received: (g,) X'J1, expression weighted by what a cell receives.
        sent: (g,) X'J'1, expression weighted by what a cell sends.
        degree: mean over cells of the row sums of J: the number of neighbours, as J weighs them. 0 for dissociated
            cells.
    """

    n_cells: int
    mean: np.ndarray
    intra: np.ndarray
    inter: np.ndarray
    received: np.ndarray
    sent: np.ndarray
    degree: float

    @property
    def n_genes(self) -> int:
        """g."""
        return len(self.mean)

    @property
    def dissociated(self) -> bool:
        """Whether no cell interacts, so that the slide says nothing about forces between cells."""
        return self.degree == 0

    def centred(self) -> "SlideStatistics":
        """The moments about the mean: those of the slide with the mean taken from each cell."""
        mean = self.mean
        return replace(
            self,
            mean=np.zeros_like(mean),
            intra=self.intra - self.n_cells * np.outer(mean, mean),
            inter=self.inter
            - np.outer(self.received, mean)
            - np.outer(mean, self.sent)
            + self.n_cells * self.degree * np.outer(mean, mean),
            received=self.received - self.n_cells * self.degree * mean,
            sent=self.sent - self.n_cells * self.degree * mean,
        )


def statistics(
    expression: np.ndarray | sparse.csr_array,
    weights: sparse.csr_array | None = None,
    name: str = "slide",
) -> SlideStatistics:
    """Moments of one slide, summed in float64 over blocks of cells.

    Args:
        expression: (n, g) cells, dense or sparse, as scaled by `scale_cells`.
        weights: (n, n) J of `interaction_weights`; None for dissociated cells, which have no neighbours.
        name: what messages call the slide.

    Raises:
        InputError: values that are not finite, fewer than 2 cells or genes, weights of another shape, negative or not
            finite weights, a cell that is its own neighbour, or no interaction at all.
    """
    expression = checked_expression(expression, name)
    n_cells, n_genes = expression.shape
    if weights is not None:
        weights = _checked_weights(weights, n_cells, name)
    block = max(_BLOCK_ENTRIES // n_genes, 1)
    is_sparse = sparse.issparse(expression)
    total = np.zeros(n_genes)
    intra, inter = np.zeros((2, n_genes, n_genes))
    for start in range(0, n_cells, block):
        rows = slice(start, start + block)
        cells = expression[rows].toarray() if is_sparse else expression[rows]
        cells = np.asarray(cells, dtype=np.float64)
        total += cells.sum(axis=0)
        intra += cells.T @ cells
        if weights is not None:
            around = weights[rows] @ expression
            inter += cells.T @ (around.toarray() if is_sparse else around)
    received, sent, degree = np.zeros(n_genes), np.zeros(n_genes), 0.0
    if weights is not None:
        row_sums, column_sums = weights.sum(axis=1), weights.sum(axis=0)
        received, sent = expression.T @ row_sums, expression.T @ column_sums
        degree = float(row_sums.mean())
    return SlideStatistics(n_cells, total / n_cells, intra, inter, received, sent, degree)


def interaction_weights(adjacency: sparse.csr_array, kind: str, name: str = "slide") -> sparse.csr_array:
    """J of equation 5: row i weighs the cells from which cell i receives.

    Args:
        adjacency: (n, n) graph A, row i holding the neighbours of cell i; binary or weighted, directed or not.
        kind: `symmetric`: D^-1/2 (A or A') D^-1/2, neighbours in either direction, D the degrees of that relation;
            `adjacency`: A or A' itself, the paper's J; `row`: the mean of a cell's own neighbours; `gcn`: as run by the
            authors' graph convolution: cell j receives from each cell i that lists it, with 1 / sqrt(d_i d_j), d the
            number of cells that list a cell. A cell that nobody lists sends nothing.
        name: what messages call the slide.

    Returns:
        (n, n) float64 CSR.

    Raises:
        InputError: a graph that is not square, negative or not finite weights, or a self-loop.
    """
    adjacency = _checked_weights(adjacency, None, name)
    if kind == "gcn":
        scale = sparse.diags_array(_power(adjacency.sum(axis=0), -0.5))
        return sparse.csr_array((scale @ adjacency @ scale).T)
    if kind == "row":
        return sparse.csr_array(sparse.diags_array(_power(adjacency.sum(axis=1), -1.0)) @ adjacency)
    either = sparse.csr_array(adjacency.maximum(adjacency.T))
    if kind == "adjacency":
        return either
    scale = sparse.diags_array(_power(either.sum(axis=1), -0.5))
    return sparse.csr_array(scale @ either @ scale)


def scale_cells(expression: np.ndarray | sparse.csr_array, kind: str) -> np.ndarray | sparse.csr_array:
    """Cells divided by their norm (`l2`), by their squared norm (`squared_l2`, as run in inference), or not (`none`).

    Args:
        expression: (n, g), dense or sparse.

    Returns:
        (n, g) float64 in the same form, sparse as CSR; a cell of zeros stays one.

    Raises:
        InputError: unknown kind.
    """
    if kind not in ("none", "l2", "squared_l2"):
        raise InputError(f"scale is {kind!r}; allowed are l2, squared_l2 and none.")
    if sparse.issparse(expression):
        expression = sparse.csr_array(expression).astype(np.float64)
        squares = expression.power(2).sum(axis=1)
    else:
        expression = np.array(expression, dtype=np.float64)
        squares = np.einsum("ij,ij->i", expression, expression)
    if kind == "none":
        return expression
    factors = _power(squares, -0.5 if kind == "l2" else -1.0)
    if sparse.issparse(expression):
        return sparse.csr_array(sparse.diags_array(factors) @ expression)
    return expression * factors[:, None]


def _power(values: np.ndarray, exponent: float) -> np.ndarray:
    """values ** exponent, and 0 for 0: what a cell without neighbours or counts takes part with."""
    result = np.zeros(len(values))
    np.power(values, exponent, out=result, where=values > 0)
    return result


def checked_expression(expression, name: str) -> np.ndarray | sparse.csr_array:
    """Expression (n, g) as an array or CSR float64; refused where `statistics` says."""
    if sparse.issparse(expression):
        expression = sparse.csr_array(expression).astype(np.float64, copy=False)
    else:
        expression = np.asarray(expression)
    if expression.ndim != 2 or min(expression.shape) < 2:
        raise InputError(f"{name}: expression has shape {expression.shape}: give cells x genes, at least 2 of each.")
    values = expression.data if sparse.issparse(expression) else expression
    finite = np.isfinite(values)
    if not finite.all():
        place = np.unravel_index(np.argmin(finite), values.shape)
        cell = (
            np.searchsorted(expression.indptr, place[0], side="right") - 1 if sparse.issparse(expression) else place[0]
        )
        raise InputError(
            f"{name}: expression of cell number {cell} (counted from 0) holds {values[place]}: remove such cells or "
            "mend their values."
        )
    return expression


def _checked_weights(weights, n_cells: int | None, name: str) -> sparse.csr_array:
    if not sparse.issparse(weights):
        raise InputError(f"{name}: the graph is a {type(weights).__name__}: give a sparse matrix of cells x cells.")
    weights = sparse.csr_array(weights).astype(np.float64)
    weights.eliminate_zeros()
    rows, columns = weights.shape
    if rows != columns or n_cells not in (None, rows):
        cells = "as many" if n_cells is None else n_cells
        raise InputError(
            f"{name}: the graph has shape {weights.shape} for {cells} cells: build it from the same cells."
        )
    if not np.isfinite(weights.data).all() or (weights.data < 0).any():
        raise InputError(f"{name}: the graph holds weights that are negative or not finite: give weights from 0 up.")
    if weights.nnz == 0:
        raise InputError(f"{name}: the graph has no edge: give dissociated cells as `dissociated`, or widen the graph.")
    own = weights.diagonal()
    if own.any():
        raise InputError(
            f"{name}: cell number {int(np.argmax(own != 0))} (counted from 0) is its own neighbour: remove self-loops "
            "from the graph."
        )
    return weights
