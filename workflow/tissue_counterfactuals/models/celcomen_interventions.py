"""Interventions in a tissue as data: knock-out, over-expression, new cells, cells taken away. No model is involved.

Each says what is done to which cells; `intervene` applies any number of them in turn. Cells are always named by their
row in the tissue as it was before the first of them, genes by their column.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from scipy import sparse

from tissue_counterfactuals.errors import InputError


@dataclass(frozen=True)
class Tissue:
    """A tissue between interventions.

    Attributes:
        expression: (n, g) dense, in any unit.
        graph: (n, n) CSR adjacency.
        clamp: (n, g) bool, entries that an intervention has set and a model shall hold.
        origin: (n,) int64, row in the tissue before any intervention; -1 for inserted cells.
    """

    expression: np.ndarray
    graph: sparse.csr_array
    clamp: np.ndarray
    origin: np.ndarray

    def rows(self, cells: Sequence[int], what: str) -> np.ndarray:
        """Present rows of cells named by their first rows.

        Raises:
            InputError: a cell that is not there, or not any more.
        """
        cells = np.atleast_1d(np.asarray(cells, dtype=np.int64))
        place = np.full(max(self.origin.max(initial=-1), cells.max(initial=-1)) + 1, -1)
        ours = self.origin >= 0
        place[self.origin[ours]] = np.flatnonzero(ours)
        wrong = (cells < 0) | (place[cells] < 0)
        if wrong.any():
            raise InputError(
                f"{what}: the tissue has no cell number {cells[wrong][0]}; cells are counted from 0 and can be taken "
                "away only once."
            )
        return place[cells]


class Intervention(Protocol):
    """Anything that turns a tissue into another."""

    def apply(self, tissue: Tissue) -> Tissue: ...


@dataclass(frozen=True)
class OverExpress:
    """Set genes of some cells to a level, in the unit of the expression, and hold them there."""

    cells: Sequence[int]
    genes: Sequence[int]
    level: float

    def apply(self, tissue: Tissue) -> Tissue:
        """Raises: InputError: a cell or gene that is not there, or a level that is not a finite number from 0 up."""
        what = type(self).__name__
        if not (np.isfinite(self.level) and self.level >= 0):
            raise InputError(f"{what}: level is {self.level}; give a finite number from 0 up.")
        entries = np.ix_(tissue.rows(self.cells, what), _genes(tissue, self.genes, what))
        expression, clamp = tissue.expression.copy(), tissue.clamp.copy()
        expression[entries] = self.level
        clamp[entries] = True
        return replace(tissue, expression=expression, clamp=clamp)


@dataclass(frozen=True)
class KnockOut(OverExpress):
    """Take genes out of some cells: expression 0, held there."""

    level: float = field(default=0.0, init=False)


@dataclass(frozen=True)
class InsertCells:
    """Put new cells into a tissue.

    Attributes:
        expression: (k, g), in the unit of the tissue's expression.
        neighbors: for each new cell the rows of the cells around it; the relation goes both ways, with weight 1.
        hold: whether the new cells stay as they are (True) or settle with the tissue.
    """

    expression: np.ndarray
    neighbors: Sequence[Sequence[int]]
    hold: bool = True

    def apply(self, tissue: Tissue) -> Tissue:
        """Raises: InputError: other genes than the tissue's, not one list of neighbours a cell, or one that is not there."""
        new = np.atleast_2d(np.asarray(self.expression, dtype=tissue.expression.dtype))
        if new.shape[1] != tissue.expression.shape[1] or not np.isfinite(new).all():
            raise InputError(
                f"InsertCells: expression has shape {new.shape}; give finite values, one column for each of the "
                f"tissue's {tissue.expression.shape[1]} genes."
            )
        if len(self.neighbors) != len(new):
            raise InputError(
                f"InsertCells: there are {len(new)} cells and {len(self.neighbors)} lists of neighbors; give one each."
            )
        around = [np.unique(tissue.rows(cells, "InsertCells")) for cells in self.neighbors]
        ends = np.cumsum([0, *map(len, around)])
        edges = sparse.csr_array(
            (np.ones(ends[-1], tissue.graph.dtype), np.concatenate(around), ends),
            shape=(len(new), len(tissue.origin)),
        )
        graph = sparse.block_array([[tissue.graph, edges.T], [edges, None]], format="csr")
        return Tissue(
            np.concatenate([tissue.expression, new]),
            sparse.csr_array(graph),
            np.concatenate([tissue.clamp, np.full(new.shape, self.hold)]),
            np.concatenate([tissue.origin, np.full(len(new), -1)]),
        )


@dataclass(frozen=True)
class DeleteCells:
    """Take cells out of a tissue, with all their edges."""

    cells: Sequence[int]

    def apply(self, tissue: Tissue) -> Tissue:
        """Raises: InputError: a cell that is not there, or no cell left."""
        keep = np.ones(len(tissue.origin), dtype=bool)
        keep[tissue.rows(self.cells, "DeleteCells")] = False
        if not keep.any():
            raise InputError("DeleteCells: no cell would be left; name fewer.")
        return Tissue(
            tissue.expression[keep],
            sparse.csr_array(tissue.graph[keep][:, keep]),
            tissue.clamp[keep],
            tissue.origin[keep],
        )


def intervene(
    expression: np.ndarray | sparse.csr_array,
    graph: sparse.csr_array,
    interventions: Sequence[Intervention] = (),
) -> Tissue:
    """Apply interventions in turn.

    Args:
        expression: (n, g), dense or sparse; it is not changed.
        graph: (n, n) adjacency.
    """
    cells = expression.toarray() if sparse.issparse(expression) else np.array(expression)
    if not np.issubdtype(cells.dtype, np.floating):
        cells = cells.astype(np.float64)
    tissue = Tissue(
        cells, sparse.csr_array(graph), np.zeros(cells.shape, dtype=bool), np.arange(len(cells))
    )
    for intervention in interventions:
        tissue = intervention.apply(tissue)
    return tissue


def _genes(tissue: Tissue, genes: Sequence[int], what: str) -> np.ndarray:
    genes = np.atleast_1d(np.asarray(genes, dtype=np.int64))
    wrong = (genes < 0) | (genes >= tissue.expression.shape[1])
    if wrong.any():
        raise InputError(
            f"{what}: there is no gene number {genes[wrong][0]}; the tissue has {tissue.expression.shape[1]}, counted "
            "from 0."
        )
    return genes
