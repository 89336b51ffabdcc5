"""Interventions in a tissue as data: knock-out and over-expression. No model is involved.

Each says what is done to which cells; `intervene` applies any number of them in turn. Cells are named by their row,
genes by their column.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from tissue_counterfactuals.errors import InputError


@dataclass(frozen=True)
class OverExpress:
    """Set genes of some cells to a level, in the unit of the expression, and hold them there."""

    cells: Sequence[int]
    genes: Sequence[int]
    level: float

    def apply(self, expression: np.ndarray, clamp: np.ndarray) -> None:
        """Change expression (n, g), and mark what is held in clamp (n, g), in place.

        Raises:
            InputError: a cell or gene that is not there, or a level that is not a finite number from 0 up.
        """
        what = type(self).__name__
        if not (np.isfinite(self.level) and self.level >= 0):
            raise InputError(f"{what}: level is {self.level}; give a finite number from 0 up.")
        entries = np.ix_(
            _checked(self.cells, len(expression), f"{what}: the tissue has no cell"),
            _checked(self.genes, expression.shape[1], f"{what}: there is no gene"),
        )
        expression[entries] = self.level
        clamp[entries] = True


@dataclass(frozen=True)
class KnockOut(OverExpress):
    """Take genes out of some cells: expression 0, held there."""

    level: float = field(default=0.0, init=False)


def intervene(
    expression: np.ndarray | sparse.csr_array, interventions: Sequence[OverExpress] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Apply interventions in turn.

    Args:
        expression: (n, g), dense or sparse; it is not changed.
    Returns:
        Expression (n, g), dense, and bool (n, g): the entries that an intervention has set and a model shall hold.
    """
    cells = expression.toarray() if sparse.issparse(expression) else np.array(expression)
    if not np.issubdtype(cells.dtype, np.floating):
        cells = cells.astype(np.float64)
    clamp = np.zeros(cells.shape, dtype=bool)
    for intervention in interventions:
        intervention.apply(cells, clamp)
    return cells, clamp


def _checked(indices: Sequence[int], n: int, missing: str) -> np.ndarray:
    indices = np.atleast_1d(np.asarray(indices, dtype=np.int64))
    wrong = (indices < 0) | (indices >= n)
    if wrong.any():
        raise InputError(f"{missing} number {indices[wrong][0]}; it has {n}, counted from 0.")
    return indices
