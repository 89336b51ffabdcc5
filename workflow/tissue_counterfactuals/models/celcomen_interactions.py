"""What an inference of Celcomen returns: two matrices of forces, how they were reached, and how far to trust them."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Interactions:
    """Forces between genes, fitted to slides.

    Attributes:
        inter: (g, g) float64, symmetric: forces between genes of interacting cells.
        intra: (g, g) float64, symmetric: forces between genes of one cell.
        history: one dict per epoch (or iteration), with at least `epoch` and `loss`.
        diagnostics: see `diagnose`.
        inter_error, intra_error: (g, g) float64 standard errors, or None where the estimator has none.
        mean: (g,) float64, the expression that the forces act about: the mean of all cells, in the unit of the fit,
            where cells were centred; 0 where they were not. None for forces that no fit made.
    """

    inter: np.ndarray
    intra: np.ndarray
    history: list[dict]
    diagnostics: dict = field(default_factory=dict)
    inter_error: np.ndarray | None = None
    intra_error: np.ndarray | None = None
    mean: np.ndarray | None = None


def diagnose(
    inter: np.ndarray,
    intra: np.ndarray,
    mean: np.ndarray,
    start: tuple[np.ndarray, np.ndarray] | None,
    history: list[dict],
    bounds: tuple[float, float] | None,
) -> dict[str, float | bool | None]:
    """Signs that forces say little about the tissue; pairs of different genes only.

    Args:
        inter, intra: (g, g) fitted forces.
        mean: (g,) mean expression of the cells they were fitted to.
        start: the matrices that the fit started from, None where it has no start.
        history: of the fit.
        bounds: the smallest and largest force allowed, None without bounds.

    Returns:
        For `inter` and `intra` each: `_at_bound`, share of the pairs at a bound; `_constant`, whether all pairs have
        the same force; `_start_correlation` and `_mean_correlation`, Pearson with the start and with -m m', the forces
        that mean expression alone explains (None where either side is constant). And `loss_drift`: the mean change of
        the loss per epoch over the last tenth of the epochs; a fit that has reached a minimum has none.
    """
    upper = np.triu_indices(len(mean), 1)
    by_mean = -np.outer(mean, mean)[upper]
    found = {}
    for place, (name, forces) in enumerate((("inter", inter), ("intra", intra))):
        pairs = forces[upper]
        found[f"{name}_at_bound"] = 0.0
        if bounds is not None:
            low, high = bounds
            found[f"{name}_at_bound"] = float(((pairs == low) | (pairs == high)).mean())
        found[f"{name}_constant"] = bool(np.ptp(pairs) == 0)
        found[f"{name}_start_correlation"] = None if start is None else _correlation(pairs, start[place][upper])
        found[f"{name}_mean_correlation"] = _correlation(pairs, by_mean)
    found["loss_drift"] = _drift([epoch["loss"] for epoch in history])
    return found


def _correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def _drift(losses: list[float]) -> float | None:
    if len(losses) < 2:
        return None
    steps = max(len(losses) // 10, 1)
    return float((losses[-1] - losses[-1 - steps]) / steps)
