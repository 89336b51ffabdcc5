"""Spatial neighbour graphs with Gaussian weights, and what a cell receives through them.

The graph of Cellina (equation 1): W = exp(-d^2 / (2 sigma^2)) between a cell and its nearest cells, without
self-loops; weights up to the cutoff are dropped. Each row holds the cell's OWN k nearest, so the graph is directed,
as run in the authors' code (the paper's "outside the k nearest of either cell" would make it symmetric).

Neighbours are searched in a k-d tree whose leaves hold neighbouring cells side by side in memory; cells are
served in the order of the leaves, so that one cell finds in the cache what the cell before it has read.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from anndata import AnnData
from numba import config as numba_config
from numba import njit
from scipy import sparse
from scipy.spatial import KDTree

from tissue_counterfactuals.errors import InputError

_LEAF_SIZE = 16
_ROWS_PER_BLOCK = 2048
# No tissue section packs its cells more tightly (one per 3 x 3 micrometres), so coordinates that do are in another
# unit.
_SMALLEST_CELL_UM2 = 10.0


def gaussian_graph(
    coords_um: np.ndarray,
    bandwidth_um: float = 100.0,
    max_neighbors: int = 200,
    cutoff: float = 0.1,
    excluded: np.ndarray | None = None,
    n_threads: int | None = None,
) -> sparse.csr_array:
    """Gaussian-weighted graph of each cell's nearest neighbours.

    Among cells at exactly the same distance the one that comes first in `coords_um` is nearer. Cells at the same
    position are neighbours of weight 1. Memory is that of the result plus about 100 bytes a cell.

    Args:
        coords_um: (n, 2) positions in micrometres.
        bandwidth_um: sigma of the kernel.
        max_neighbors: k, the most neighbours that a cell has.
        cutoff: weights up to this value are dropped: no neighbour is farther than sigma * sqrt(2 ln(1 / cutoff)).
        excluded: (n,) mask of cells that take no part: empty rows and columns, and no use of a neighbour's slot.
            Held-out cells are kept from the model in this way. With fewer than two cells left the graph is empty.
        n_threads: default is $OMP_NUM_THREADS or all cores; the result does not depend on it.

    Returns:
        (n, n) float32, row v holding the weights of the neighbours of v, column indices sorted.

    Raises:
        InputError: coordinates that are not (n, 2) and finite, fewer than two cells, a parameter out of range,
            or coordinates that are evidently not in micrometres.
    """
    coords = checked_coordinates(coords_um)
    _check_parameters(bandwidth_um, max_neighbors, cutoff)
    n = len(coords)
    kept = np.arange(n) if excluded is None else np.flatnonzero(~_checked_mask(excluded, n))
    k = max(min(max_neighbors, len(kept) - 1), 1)
    radius2 = 2 * bandwidth_um**2 * np.log(1 / cutoff) if cutoff > 0 else np.inf
    _refuse_crowd(coords[kept], bandwidth_um, max_neighbors)

    order, boxes, depth = _build_tree(coords[kept], _LEAF_SIZE)
    cells = kept[order]
    points = coords[cells]
    n_neighbors = np.zeros(n, dtype=np.int64)
    _run_in_blocks(_count_neighbors, len(kept), n_threads, points, cells, boxes, depth, radius2, k, n_neighbors)
    n_edges = int(n_neighbors.sum())
    if n_edges == 0 and len(kept) >= 2:
        _refuse_void(coords[kept], np.sqrt(radius2))

    index_type = np.int32 if max(n_edges, n) < 2**31 else np.int64
    indptr = np.concatenate([[0], np.cumsum(n_neighbors)]).astype(index_type)
    indices = np.empty(n_edges, dtype=index_type)
    weights = np.empty(n_edges, dtype=np.float32)
    _run_in_blocks(
        _fill_neighbors, len(kept), n_threads, points, cells, boxes, depth, radius2, k,
        -0.5 / bandwidth_um**2, indptr, indices, weights,
    )  # fmt: skip
    graph = sparse.csr_array((weights, indices, indptr), shape=(n, n))
    graph.has_canonical_format = True
    return graph


def slide_graph(
    slide: AnnData,
    excluded: np.ndarray | None = None,
    bandwidth_um: float = 100.0,
    max_neighbors: int = 200,
    cutoff: float = 0.1,
) -> sparse.csr_array:
    """One graph per value of `slide.obs["sample"]`, with no edge between samples.

    Args and result (n, n) as in `gaussian_graph`; rows and columns follow the cells of the slide.

    Raises:
        InputError: as `gaussian_graph`, naming the sample.
    """
    coords = checked_coordinates(slide.obsm["spatial"])
    n = slide.n_obs
    excluded = np.zeros(n, bool) if excluded is None else _checked_mask(excluded, n)
    return join_samples(
        slide.obs["sample"],
        lambda members: gaussian_graph(coords[members], bandwidth_um, max_neighbors, cutoff, excluded[members]),
    )


def join_samples(samples: pd.Series, builder: Callable[[np.ndarray], sparse.csr_array]) -> sparse.csr_array:
    """The graphs of several samples as one.

    Args:
        samples: (n,) sample of each cell.
        builder: makes the graph of one sample from the places of its cells, in ascending order.

    Returns:
        (n, n), rows and columns following `samples`.

    Raises:
        InputError: as the builder, naming the sample.
    """
    n = len(samples)
    rows, parts = [], []
    for sample, members in samples.groupby(samples, observed=True, sort=False).indices.items():
        try:
            part = builder(members)
        except InputError as error:
            raise InputError(f"sample {sample!r}: {error}") from None
        # `members` ascends, so sorted columns stay sorted under the slide's numbering.
        part = sparse.csr_array(
            (part.data, members.astype(part.indices.dtype)[part.indices], part.indptr), shape=(len(members), n)
        )
        rows.append(members)
        parts.append(part)
    if len(parts) == 1:
        return parts[0]
    graph = sparse.vstack(parts, format="csr")
    del parts
    rows = np.concatenate(rows)
    if (rows[1:] < rows[:-1]).any():
        graph = graph[np.argsort(rows)]
    return graph


def neighborhood_features(
    graph: sparse.csr_array, log_expression: sparse.csr_array, n_threads: int | None = None
) -> np.ndarray:
    """Weighted mean of the neighbours' expression: phi(v) = sum_u W_vu x_u / sum_u W_vu (Cellina, section 3).

    Sums are taken in float64, row by row, so the result does not depend on the number of threads.

    Args:
        graph: (m, n) weights; m may be smaller than n, e.g. for focal cells only.
        log_expression: (n, n_genes) log-normalised expression, sparse or dense.
        n_threads: default is $OMP_NUM_THREADS or all cores.

    Returns:
        (m, n_genes) float32, dense; zeros where a row has no weight.

    Raises:
        InputError: graph and expression are not of the same cells.
    """
    graph, expression = sparse.csr_array(graph), sparse.csr_array(log_expression)
    if graph.shape[1] != expression.shape[0]:
        raise InputError(
            f"neighbourhood features: the graph has {graph.shape[1]} columns and the expression {expression.shape[0]} "
            "rows: build both from the same cells."
        )
    features = np.zeros((graph.shape[0], expression.shape[1]), dtype=np.float32)
    _run_in_blocks(
        _average_neighbors, graph.shape[0], n_threads, graph.indptr, graph.indices, graph.data,
        expression.indptr, expression.indices, expression.data, features,
    )  # fmt: skip
    return features


def _run_in_blocks(kernel: Callable, n_rows: int, n_threads: int | None, *args) -> None:
    """Call `kernel(start, stop, *args)` over blocks of rows in threads; kernels release the interpreter's lock."""
    if n_threads is None:
        # NUMBA_NUM_THREADS is the number of cores this process may use.
        n_threads = int(os.environ.get("OMP_NUM_THREADS") or numba_config.NUMBA_NUM_THREADS)
    starts = range(0, n_rows, _ROWS_PER_BLOCK)
    with ThreadPoolExecutor(n_threads) as pool:
        done = [pool.submit(kernel, start, min(start + _ROWS_PER_BLOCK, n_rows), *args) for start in starts]
    for block in done:
        block.result()


def checked_coordinates(coords: np.ndarray) -> np.ndarray:
    """(n, 2) float64 positions of at least two cells.

    Raises:
        InputError: another shape, fewer cells, or a position that is not finite.
    """
    coords = np.ascontiguousarray(coords, dtype=np.float64)
    if coords.ndim != 2 or coords.shape[1] != 2:
        raise InputError(f"coordinates: shape is {coords.shape} and (cells, 2) is needed: give x and y only.")
    if len(coords) < 2:
        raise InputError(
            f"coordinates: a graph needs at least 2 cells and there are {len(coords)}: remove this sample."
        )
    # Beyond this the square of a distance is infinite.
    finite = (np.abs(coords) < 1e150).all(axis=1)
    if not finite.all():
        cell = int(np.argmin(finite))
        raise InputError(
            f"coordinates: cell number {cell} (counted from 0) is at {coords[cell].tolist()}: remove cells without a "
            "finite position."
        )
    return coords


def _checked_mask(excluded: np.ndarray, n: int) -> np.ndarray:
    excluded = np.asarray(excluded)
    if excluded.dtype != bool or excluded.shape != (n,):
        raise InputError(
            f"excluded: {excluded.dtype} of shape {excluded.shape}, and a boolean mask of shape ({n},) is needed."
        )
    return excluded


def _check_parameters(bandwidth_um: float, max_neighbors: int, cutoff: float) -> None:
    if not 0 < bandwidth_um < np.inf:
        raise InputError(f"graph.bandwidth_um is {bandwidth_um}: give a length above 0.")
    if max_neighbors < 1:
        raise InputError(f"graph.max_neighbors is {max_neighbors}: give a whole number from 1 up.")
    if not 0 <= cutoff < 1:
        raise InputError(f"graph.cutoff is {cutoff}: give a weight from 0 to below 1.")


def _refuse_crowd(coords: np.ndarray, bandwidth_um: float, max_neighbors: int) -> None:
    """Raise if a whole slide lies within one bandwidth, as it does in millimetres."""
    if len(coords) <= 2 * max_neighbors:
        return
    width, height = np.ptp(coords, axis=0)
    crowded = width * height < _SMALLEST_CELL_UM2 * len(coords)
    if crowded and np.hypot(width, height) <= bandwidth_um:
        raise InputError(
            f"coordinates: all {len(coords)} cells lie within {width:.4g} x {height:.4g}, less than one bandwidth "
            f"({bandwidth_um:g} um), so they are not in micrometres but perhaps in millimetres: set unit_um, the "
            "micrometres in one coordinate unit (1000 for millimetres)."
        )


def _refuse_void(coords: np.ndarray, radius_um: float) -> None:
    nearest = KDTree(coords).query(coords, k=2)[0][:, 1].min()
    raise InputError(
        f"coordinates: no two of {len(coords)} cells lie within {radius_um:.4g} um of each other (the nearest two are "
        f"{nearest:.4g} apart), so they are not in micrometres but perhaps in pixels or nanometres: set unit_um, the "
        "micrometres in one coordinate unit, or widen graph.bandwidth_um."
    )


# The tree is balanced and needs no pointers: node 0 is the root, node i has the children 2 i + 1 and 2 i + 2, and
# the j-th node of level l holds the points from j n / 2^l to (j + 1) n / 2^l in the order of the tree. `boxes` holds
# each node's lowest x, highest x, lowest y and highest y.


@njit(cache=True)
def _build_tree(coords, leaf_size):
    n = len(coords)
    depth = 0
    while n >> depth > leaf_size:
        depth += 1
    order = np.arange(n)
    boxes = np.empty((2 ** (depth + 1) - 1, 4))
    for level in range(depth + 1):
        for j in range(1 << level):
            start, stop = (j * n) >> level, ((j + 1) * n) >> level
            part = order[start:stop]
            x, y = coords[part, 0], coords[part, 1]
            box = boxes[(1 << level) - 1 + j]
            if start == stop:
                box[:] = np.inf
                continue
            box[0], box[1], box[2], box[3] = x.min(), x.max(), y.min(), y.max()
            if level < depth:
                along = x if box[1] - box[0] >= box[3] - box[2] else y
                # Stable, so that points at one place stay in the order of their numbers.
                order[start:stop] = part[np.argsort(along, kind="mergesort")]
    return order, boxes, depth


@njit(cache=True, inline="always")
def _distance2_to_box(box, x, y):
    # Rounds as the distance to any point of the box does, so pruning by it never loses a tie.
    dx = max(box[0] - x, x - box[1], 0.0)
    dy = max(box[2] - y, y - box[3], 0.0)
    return dx * dx + dy * dy


@njit(cache=True, nogil=True)
def _count_neighbors(first, last, points, cells, boxes, depth, radius2, k, n_neighbors):
    """Number of neighbours of points[first:last], at most k, written under the cells' own numbers."""
    n = len(points)
    nodes = np.empty(2 * depth + 2, np.int64)
    levels = np.empty(2 * depth + 2, np.int64)
    for i in range(first, last):
        x, y = points[i]
        found = -1  # the cell finds itself
        nodes[0], levels[0], height = 0, 0, 1
        while height and found < k:
            height -= 1
            node, level = nodes[height], levels[height]
            box = boxes[node]
            if not _distance2_to_box(box, x, y) < radius2:
                continue
            j = node + 1 - (1 << level)
            start, stop = (j * n) >> level, ((j + 1) * n) >> level
            dx, dy = max(x - box[0], box[1] - x), max(y - box[2], box[3] - y)
            if dx * dx + dy * dy < radius2:
                found += stop - start
            elif level < depth:
                for child in range(2):
                    nodes[height], levels[height] = 2 * node + 1 + child, level + 1
                    height += 1
            else:
                for p in range(start, stop):
                    dx, dy = points[p, 0] - x, points[p, 1] - y
                    found += dx * dx + dy * dy < radius2
        n_neighbors[cells[i]] = min(found, k)


@njit(cache=True, nogil=True)
def _fill_neighbors(first, last, points, cells, boxes, depth, radius2, k, scale, indptr, indices, weights):
    """Write columns and weights of the rows of points[first:last]; `scale` is -1 / (2 sigma^2)."""
    n = len(points)
    nodes = np.empty(2 * depth + 2, np.int64)
    levels = np.empty(2 * depth + 2, np.int64)
    from_box = np.empty(2 * depth + 2)
    # Candidates gather here; when the room is full the k nearest stay and the last of them sets the distance to beat.
    distance2 = np.empty(2 * k)
    ids = np.empty(2 * k, np.int64)
    order = np.empty((3, k), np.int64)
    within = np.nextafter(radius2, 0.0)
    reach = np.inf
    for i in range(first, last):
        x, y = points[i]
        if i > first:
            # The k nearest of the cell before, and that cell, lie no farther than its reach plus the step from it.
            step = np.hypot(x - points[i - 1, 0], y - points[i - 1, 1])
            reach = (reach + step) * (1 + 1e-12)
        found, beat = 0, min(within, reach * reach)
        nodes[0], levels[0], from_box[0], height = 0, 0, 0.0, 1
        while height:
            height -= 1
            node, level = nodes[height], levels[height]
            if from_box[height] > beat:
                continue
            j = node + 1 - (1 << level)
            start, stop = (j * n) >> level, ((j + 1) * n) >> level
            box = boxes[node]
            if box[0] == box[1] and box[2] == box[3]:
                # All at one place, in the order of their numbers: only the first of them can be among the k nearest.
                stop = min(stop, start + k + 1)
            elif level < depth:
                left = _distance2_to_box(boxes[2 * node + 1], x, y)
                right = _distance2_to_box(boxes[2 * node + 2], x, y)
                near = 2 * node + 1 if left <= right else 2 * node + 2
                nodes[height], from_box[height] = 4 * node + 3 - near, max(left, right)
                nodes[height + 1], from_box[height + 1] = near, min(left, right)
                levels[height] = levels[height + 1] = level + 1
                height += 2
                continue
            for p in range(start, stop):
                dx, dy = points[p, 0] - x, points[p, 1] - y
                d2 = dx * dx + dy * dy
                distance2[found], ids[found] = d2, cells[p]
                found += (d2 <= beat) & (p != i)
                if found == 2 * k:
                    _put_nearest_first(distance2, ids, found, k)
                    found, beat = k, distance2[k - 1]
        if found > k:
            _put_nearest_first(distance2, ids, found, k)
            found = k
        reach = np.sqrt(distance2[:k].max()) if found == k else np.inf
        _order_by_id(ids, found, len(indptr), order)
        row = indptr[cells[i]]
        for at in range(found):
            indices[row + at] = ids[order[0, at]]
            weights[row + at] = np.exp(scale * distance2[order[0, at]])


@njit(cache=True)
def _order_by_id(ids, n, largest, order):
    """Write into order[0, :n] the places of ids[:n] in ascending order: a radix sort, three times a comparison sort."""
    bits = 1
    while largest >> (2 * bits):
        bits += 1
    mask = (1 << bits) - 1
    for at in range(n):
        order[1, at] = at
    for shift, source, sink in ((0, 1, 2), (bits, 2, 0)):
        starts = np.zeros(mask + 2, np.int64)
        for at in range(n):
            starts[((ids[at] >> shift) & mask) + 1] += 1
        for digit in range(mask):
            starts[digit + 1] += starts[digit]
        for at in range(n):
            place = order[source, at]
            digit = (ids[place] >> shift) & mask
            order[sink, starts[digit]] = place
            starts[digit] += 1


@njit(cache=True)
def _put_nearest_first(distance2, ids, n, k):
    """Reorder the first n pairs so that the k smallest come first, the largest of them at k - 1 (quickselect)."""
    low, high = 0, n - 1
    while low < high:
        middle = (low + high) // 2
        pivot, pivot_id = distance2[middle], ids[middle]
        i, j = low, high
        while i <= j:
            while distance2[i] < pivot or (distance2[i] == pivot and ids[i] < pivot_id):
                i += 1
            while distance2[j] > pivot or (distance2[j] == pivot and ids[j] > pivot_id):
                j -= 1
            if i <= j:
                distance2[i], distance2[j] = distance2[j], distance2[i]
                ids[i], ids[j] = ids[j], ids[i]
                i += 1
                j -= 1
        if k - 1 <= j:
            high = j
        elif k - 1 >= i:
            low = i
        else:
            return


@njit(cache=True, nogil=True)
def _average_neighbors(first, last, indptr, indices, weights, x_indptr, x_indices, x_data, out):
    n_genes = out.shape[1]
    total = np.empty(n_genes)
    for row in range(first, last):
        degree = 0.0
        total[:] = 0.0
        for e in range(indptr[row], indptr[row + 1]):
            weight = np.float64(weights[e])
            degree += weight
            cell = indices[e]
            for position in range(x_indptr[cell], x_indptr[cell + 1]):
                total[x_indices[position]] += weight * x_data[position]
        if degree > 0:
            for gene in range(n_genes):
                out[row, gene] = total[gene] / degree
