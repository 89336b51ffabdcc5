"""90 % intervals for methods that give none, from what a run has anyway: its seeds, and its folds.

- `ensemble`: seeds of one fold scatter about their mean; where another seed's answer would lie (Student's t). It knows
  nothing of what all seeds get wrong alike.
- `conformal`: split conformal prediction over held-out types: what the method was off by in folds of other types, in
  genes of the same level, is what it is taken to be off by here. It holds where types are exchangeable; where one type
  is harder than the others, nothing in the others says so. Types, not genes, are what is exchangeable, so that few of
  them say little, and the quantile is a little more than 90 % (as in `models.hierarchical.calibrate`).

Both are intervals of the change without counting noise, which is added where they are compared with what was observed.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from crepes import ConformalRegressor
from scipy.special import stdtrit

from tissue_counterfactuals.models.hierarchical import COVERAGE, FEWEST_TYPES, QUANTILE

ENSEMBLE, CONFORMAL = "ensemble", "conformal"
LEVELS = ("coverage_low", "coverage_middle", "coverage_high")
FEWEST_SEEDS = 3


@dataclass(frozen=True)
class Told:
    """What a method said of one fold, and what was observed, as changes of log1p of mean CP10K.

    Attributes:
        slide, cell_type: the fold.
        predicted: (seeds, g). observed: (g,). noise: (g,) variance of `observed` from counting.
        level: (g,) thirds of the genes by mean expression, 0 is low; -1 for genes that neither group shows.
    """

    slide: str
    cell_type: str
    predicted: np.ndarray
    observed: np.ndarray
    noise: np.ndarray
    level: np.ndarray

    @classmethod
    def of(cls, slide: str, cell_type: str, reference, profiles: list[np.ndarray]) -> "Told":
        """From a `Reference` and the mean CP10K (g,) that each seed predicts."""
        here, there = reference.control_mean, reference.target_mean
        base, shown = np.log1p(here), np.flatnonzero(np.maximum(here, there))
        level = np.full(len(here), -1)
        parts = np.array_split(shown[np.argsort((here + there)[shown], kind="stable")], 3)
        for number, genes in enumerate(parts):
            level[genes] = number
        changes = np.log1p(np.array(profiles)) - base
        return cls(slide, cell_type, changes, np.log1p(there) - base, reference.noise, level)

    @property
    def error(self) -> np.ndarray:
        """Observed minus mean predicted change (g,)."""
        return self.observed - self.predicted.mean(axis=0)


def by_seeds(told: Told) -> np.ndarray | None:
    """Half lengths (g,) from the scatter of seeds; None from fewer than `FEWEST_SEEDS`."""
    n = len(told.predicted)
    if n < FEWEST_SEEDS:
        return None
    spread = told.predicted.std(axis=0, ddof=1) * np.sqrt(1 + 1 / n)
    return stdtrit(n - 1, (1 + COVERAGE) / 2) * spread


def by_types(told: Told, others: list[Told]) -> np.ndarray | None:
    """Half lengths (g,) from the errors of folds of other types; None from fewer than `FEWEST_TYPES`.

    A gene is inside where error^2 / q^2 - noise <= half^2 / q^2 (q: `QUANTILE`): the left side is its score, and the
    right side the quantile of the scores of the genes of its level.
    """
    others = [other for other in others if other.cell_type != told.cell_type]
    n_types = len({other.cell_type for other in others})
    if n_types < FEWEST_TYPES:
        return None
    scores = np.concatenate([o.error**2 / QUANTILE**2 - o.noise for o in others])
    level = np.concatenate([o.level for o in others])
    scores, level = scores[level >= 0], level[level >= 0]
    # The package takes absolute residuals: scores are counted from the smallest.
    lowest = scores.min()
    fitted = ConformalRegressor().fit(residuals=scores - lowest, bins=level)
    asked = np.unique(level)
    confidence = COVERAGE + (1 - COVERAGE) / (n_types + 1)
    limits = fitted.predict_int(np.zeros(len(asked)), bins=asked, confidence=confidence)[:, 1]
    half = np.zeros(len(told.level))
    for number, limit in zip(asked, limits, strict=True):
        half[told.level == number] = QUANTILE * np.sqrt(max(limit + lowest, 0))
    return half


def coverage(told: Told, half: np.ndarray) -> dict[str, float]:
    """Share of the genes that are shown whose observed change lies within `half` (g,), widened by counting noise."""
    inside = np.abs(told.error) <= np.sqrt(half**2 + QUANTILE**2 * told.noise)
    found = {"coverage": inside[told.level >= 0].mean()}
    found |= {name: inside[told.level == number].mean() for number, name in enumerate(LEVELS)}
    return found | {"interval_width": np.median(2 * half[told.level >= 0])}


def coverages(folds: list[Told]) -> pd.DataFrame:
    """Of one method: a row per fold and kind of interval that there is, with what `coverage` says and from how much.

    Returns:
        interval (`ensemble` or `conformal`), slide, cell_type, coverage, coverage_low, coverage_middle, coverage_high,
        interval_width, n_seeds, n_types (other types that the errors are from).
    """
    rows = []
    for told in folds:
        halves = {ENSEMBLE: by_seeds(told), CONFORMAL: by_types(told, folds)}
        n_types = len({other.cell_type for other in folds} - {told.cell_type})
        for name, half in halves.items():
            if half is not None:
                row = {"interval": name, "slide": told.slide, "cell_type": told.cell_type}
                row |= coverage(told, half) | {"n_seeds": len(told.predicted)}
                rows.append(row | {"n_types": n_types if name == CONFORMAL else 0})
    return pd.DataFrame(rows)
