"""Do subdomains matter? What donors of a subdomain gain over those of the whole domain, against exchanged subdomains.

The null: given its type, a cell's subdomain says nothing. So the subdomains of cells of one type are exchanged among
them, which leaves each subdomain its number of cells of each type, and the gain is computed again. Donors are drawn
from the whole domain whatever their subdomain; those that lie in one are its matched donors. Labels are then all that
differs between the gain and its null, no further prediction is needed, and the rank of the gain among the exchanged
ones is its p value.
"""

from collections.abc import Callable

import numpy as np

from tissue_counterfactuals.experiments.force_statistics import spearman
from tissue_counterfactuals.streams import stream


def shuffles(labels: np.ndarray, cell_type: np.ndarray, n: int, slide: str) -> np.ndarray:
    """(1 + n, cells) labels as they are, then exchanged within types; `labels` and `cell_type` are (cells,).

    They are the same for every seed of a slide: models of several seeds see the same cells, so that gains must be
    averaged over seeds shuffle by shuffle.
    """
    rng = stream(0, "shuffled_subdomains", slide)
    rows = np.repeat(labels[None], 1 + n, axis=0)
    for row in rows[1:]:
        for name in np.unique(cell_type):
            own = np.flatnonzero(cell_type == name)
            row[own] = labels[rng.permutation(own)]
    return rows


def gains(
    labels: np.ndarray,
    modules: list[int],
    own: np.ndarray,
    observed: np.ndarray,
    donors: np.ndarray,
    predicted: np.ndarray,
    change: Callable[[np.ndarray], np.ndarray],
    n_deg: int,
    min_cells: int,
) -> np.ndarray:
    """Gain (r,) in Spearman correlation of matched over all donors, mean over modules; NaN where none has cells enough.

    Args:
        labels: (r, n) module of each cell of the domain, a row per labelling.
        own: (o,) which of the n cells are those of the type. observed: (o, g) their CP10K.
        donors: (m, j) which of the n cells each focal cell got as donor, drawn from all; j is at least 2.
        predicted: (m, j, g) CP10K of the focal cells there.
        change: from mean CP10K (g,) to the log-fold change against the focal cells as they are.
        n_deg: genes with the largest observed change that correlations are taken over.
        min_cells: that a module needs of the type.
    """
    overall = predicted.mean(axis=(0, 1))
    # Against the mean of the same focal cell's other donors: which focal cells have a donor in the module must not
    # matter, and a donor that counts in its own mean would seem nearer to it, the more so the fewer there are.
    others = (predicted.sum(axis=1, keepdims=True) - predicted) / (predicted.shape[1] - 1)
    apart = (predicted - others).reshape(-1, predicted.shape[-1])
    everywhere, found = change(overall), []
    for module in modules:
        seen, matched = labels[:, own] == module, labels[:, donors.ravel()] == module
        if seen[0].sum() < min_cells:
            continue
        truths = _shares(seen) @ observed
        moved = np.maximum(overall + _shares(matched) @ apart, 0)
        row = []
        for truth, mean in zip(truths, moved, strict=True):
            observed_change = change(truth)
            top = np.argsort(-np.abs(observed_change), kind="stable")[:n_deg]
            row.append(
                spearman(observed_change[top], change(mean)[top]) - spearman(observed_change[top], everywhere[top])
            )
        found.append(row)
    return np.mean(found, axis=0) if found else np.full(len(labels), np.nan)


def rank_p(gains: np.ndarray) -> float:
    """p value of the first gain of (1 + n,), that of the real labels, among all: one-sided, exact where labels are
    exchangeable; NaN where a gain is.
    """
    return float(np.mean(gains >= gains[0])) if np.isfinite(gains).all() else np.nan


def _shares(chosen: np.ndarray) -> np.ndarray:
    return chosen / np.maximum(chosen.sum(axis=1, keepdims=True), 1)
