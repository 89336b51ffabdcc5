"""Whom a batch of cells hears through several graph layers, as one table of neighbours; and batches of neighbours.

A layer turns what a cell's neighbours hold into what the cell holds, so after three layers a cell depends on cells
three steps away. Cells are numbered anew: the batch first, then its neighbours, then theirs; a layer computes the first
`n_receiving` of them only.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from scipy import sparse


@dataclass(frozen=True)
class ReceptiveField:
    """The cells that b cells depend on.

    Attributes:
        cells: (u,) indices of the cells whose inputs are read; the first b are the batch.
        table: (t, k) int32, positions in `cells` of the neighbours of the first t of them; -1: no neighbour.
        n_receiving: number of cells that each layer computes, its first ones; b at least.
    """

    cells: np.ndarray
    table: torch.Tensor
    n_receiving: tuple[int, ...]


def hops(graph: sparse.csr_array, batch: np.ndarray, n_layers: int) -> ReceptiveField:
    """Everything that the batch depends on, as if the layers were computed for the whole slide.

    Args:
        graph: (n, n), row v holding whom v hears; weights are not read.
        batch: (b,) distinct cells.
    """
    cells, ends, table = _hops(graph.indptr, graph.indices, batch, n_layers)
    return ReceptiveField(cells, torch.from_numpy(table), tuple(int(x) for x in ends[-2::-1]))


def induced(graph: sparse.csr_array, batch: np.ndarray, n_layers: int) -> ReceptiveField:
    """The batch and its neighbours with the edges among all of them, in every layer: what the authors' loader gave.

    What a cell hears in the second and third layer so depends on who else is in the batch. Args as in `hops`: `graph`
    (n, n), `batch` (b,) indices.
    """
    cells, ends, table = _hops(graph.indptr, graph.indices, batch, 1)
    table = _induced(graph.indptr, graph.indices, cells)
    return ReceptiveField(cells, torch.from_numpy(table), (len(cells),) * n_layers)


FIELDS = {"hops": hops, "induced": induced}


@njit(cache=True)
def _hops(indptr, indices, batch, n_layers):
    """The cells, the numbers of them known after each hop (b, ..), and the table of all but the last hop's."""
    place = np.full(len(indptr) - 1, -1, np.int32)
    cells = np.empty(len(indptr) - 1, np.int64)
    ends = np.empty(n_layers + 1, np.int64)
    n, widest = 0, 1
    for cell in batch:
        place[cell], cells[n] = n, cell
        n += 1
    ends[0], first = n, 0
    for hop in range(n_layers):
        last = n
        for at in range(first, last):
            cell = cells[at]
            widest = max(widest, indptr[cell + 1] - indptr[cell])
            for e in range(indptr[cell], indptr[cell + 1]):
                if place[indices[e]] < 0:
                    place[indices[e]], cells[n] = n, indices[e]
                    n += 1
        ends[hop + 1], first = n, last
    table = np.full((ends[n_layers - 1], widest), -1, np.int32)
    for at in range(len(table)):
        start = indptr[cells[at]]
        for e in range(start, indptr[cells[at] + 1]):
            table[at, e - start] = place[indices[e]]
    return cells[:n].copy(), ends, table


@njit(cache=True)
def _induced(indptr, indices, cells):
    place = np.full(len(indptr) - 1, -1, np.int32)
    place[cells] = np.arange(len(cells))
    widest = 1
    for cell in cells:
        widest = max(widest, np.sum(place[indices[indptr[cell] : indptr[cell + 1]]] >= 0))
    table = np.full((len(cells), widest), -1, np.int32)
    for at, cell in enumerate(cells):
        n = 0
        for e in range(indptr[cell], indptr[cell + 1]):
            if place[indices[e]] >= 0:
                table[at, n] = place[indices[e]]
                n += 1
    return table


def in_patches(rng: np.random.Generator, coords: np.ndarray, sample: np.ndarray, size: int) -> np.ndarray:
    """An order of n cells in which neighbours follow one another: patches of at most `size` cells in random order.

    Patches are made by halving each sample again and again, along two perpendicular directions in turn that are drawn
    anew each time. Batches cut from this order share most of what their cells hear, and cost a fraction of random ones.

    Args:
        coords: (n, 2). sample: (n,) codes. size: 1 gives a random order.
    """
    if size == 1:
        return rng.permutation(len(coords))
    angle = rng.uniform(0, np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    along = coords @ turn
    patch, axis = np.unique(sample, return_inverse=True)[1], 0
    while (sizes := np.bincount(patch)).max() > size:
        order = np.lexsort((along[:, axis], patch))
        rank = np.empty(len(coords), np.int64)
        rank[order] = np.arange(len(coords)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        far = (2 * rank >= sizes[patch]) & (sizes[patch] > size)
        patch, axis = np.unique(2 * patch + far, return_inverse=True)[1], 1 - axis
    return np.argsort(rng.permutation(len(sizes))[patch], kind="stable")
