"""Do subdomains matter? What donors of a subdomain gain over those of the whole domain, against shifted subdomains.

The null: given its type, a cell's subdomain says nothing. Subdomains are patches, and so is what cells express; labels
that single cells exchanged would lose their patches, and a gain by chance would look rare (p <= 0.05 in a third of
patchy nulls). So the map of subdomains is shifted as a whole, and the gain is computed again. Donors are drawn from the
whole domain whatever their subdomain; those that lie in one are its matched donors. Labels are then all that differs
between the gain and its null, no further prediction is needed, and the rank of the gain among those of shifted maps is
its p value.
"""

from collections.abc import Callable

import numpy as np
from scipy import sparse
from scipy.spatial import KDTree

from tissue_counterfactuals.experiments.force_statistics import spearman
from tissue_counterfactuals.streams import stream


def shuffles(
    labels: np.ndarray, cell_type: np.ndarray, place: np.ndarray, section: np.ndarray, n: int, slide: str
) -> np.ndarray:
    """(1 + n, cells) labels as they are, then shifted.

    In each section all labels move by the same random vector, what leaves its bounding box comes in on the other side,
    and a cell takes the label that then lies nearest among those of its type. Vectors are the same for every seed of a
    slide: models of several seeds see the same cells, so that gains must be averaged over seeds shuffle by shuffle.

    Args:
        labels, cell_type, section: (cells,). place: (cells, 2).
    """
    rows = np.repeat(labels[None], 1 + n, axis=0)
    for name in np.unique(section):
        here = section == name
        # A hair more than the cells span: both edges are not one place, and one cell has a box too.
        box = np.ptp(place[here], axis=0) * 1.001 + 0.001
        shifts = stream(0, "shuffled_subdomains", slide, name).random((n, 2)) * box
        for own_type in np.unique(cell_type[here]):
            own = np.flatnonzero(here & (cell_type == own_type))
            at = place[own] - place[here].min(axis=0)
            tree = KDTree(at, boxsize=box)
            for row, shift in zip(rows[1:], shifts, strict=True):
                row[own] = labels[own[tree.query((at + shift) % box)[1]]]
    return rows


def gains(
    labels: np.ndarray,
    modules: list[int],
    own: np.ndarray,
    observed: np.ndarray | sparse.csr_array,
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
        min_cells: that a module needs of the type; where a shift leaves it fewer, that row does without it.
    """
    overall = predicted.mean(axis=(0, 1))
    # Against the mean of the same focal cell's other donors: which focal cells have a donor in the module must not
    # matter, and a donor that counts in its own mean would seem nearer to it, the more so the fewer there are.
    others = (predicted.sum(axis=1, keepdims=True) - predicted) / (predicted.shape[1] - 1)
    apart = (predicted - others).reshape(-1, predicted.shape[-1])
    everywhere, found = change(overall), []
    for module in modules:
        seen, matched = labels[:, own] == module, labels[:, donors.ravel()] == module
        enough = seen.sum(axis=1) >= min_cells
        if not enough[0]:
            continue
        truths = (observed.T @ _shares(seen).T).T
        moved = np.maximum(overall + _shares(matched) @ apart, 0)
        row = []
        for truth, mean in zip(truths, moved, strict=True):
            observed_change = change(truth)
            top = np.argsort(-np.abs(observed_change), kind="stable")[:n_deg]
            row.append(
                spearman(observed_change[top], change(mean)[top]) - spearman(observed_change[top], everywhere[top])
            )
        found.append(np.where(enough, row, np.nan))
    known = np.isfinite(found).sum(axis=0)
    return np.divide(np.nansum(found, axis=0), known, out=np.full(len(labels), np.nan), where=known > 0)


def rank_p(gains: np.ndarray) -> float:
    """p value of the first gain of (1 + n,), that of the real labels, among all: one-sided; NaN where a gain is."""
    return float(np.mean(gains >= gains[0])) if np.isfinite(gains).all() else np.nan


def _shares(chosen: np.ndarray) -> np.ndarray:
    return chosen / np.maximum(chosen.sum(axis=1, keepdims=True), 1)
