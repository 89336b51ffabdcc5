"""Nearest-neighbour transfer: a cell becomes the mean of the training cells of the target domain that are most like it.

Similarity is the cosine of log-normalised expression. No cell of the held-out type trains in the target domain, so it
is other types that lend their profile. The twin takes its neighbours among the training cells of the control domain.
"""

import numpy as np

from tissue_counterfactuals.methods.prediction import Prediction, at_library
from tissue_counterfactuals.slide import log_normalize, normalize_counts
from tissue_counterfactuals.streams import stream

# Focal cells that are compared at once.
_BLOCK = 256


def predict(task, folder, target: str) -> dict[str, Prediction | str]:
    """The mean profile of the nearest cells, at the cell's own library, and the twin."""
    slide, focal = task.slide, task.focal
    unit = log_normalize(slide.X)
    length = np.sqrt(np.asarray(unit.multiply(unit).sum(axis=1)).ravel())
    unit.data /= np.repeat(np.maximum(length, 1e-12), np.diff(unit.indptr))

    def transferred(domain):
        candidates = np.flatnonzero(task.split.train & (slide.obs["domain"] == domain).to_numpy())
        most = task.settings["max_candidates"]
        if len(candidates) > most:
            draw = stream(task.seed, "candidates of nearest_neighbor", domain)
            candidates = np.sort(draw.choice(candidates, most, replace=False))
        n = task.settings["n_neighbors"]
        # A cell of the control domain is no neighbour of itself.
        if len(candidates) <= n:
            return (
                f"{domain!r} has {len(candidates)} training cells, and {n} nearest are asked for: lower "
                "nearest_neighbor.n_neighbors"
            )
        profiles, others = normalize_counts(slide.X[candidates]), unit[candidates].T.tocsc()
        values = np.empty((len(focal), slide.n_vars), np.float32)
        for start in range(0, len(focal), _BLOCK):
            cells = focal[start : start + _BLOCK]
            similarity = (unit[cells] @ others).toarray()
            similarity[cells[:, None] == candidates] = -1
            nearest = np.argpartition(-similarity, n - 1, axis=1)[:, :n]
            for row, chosen in enumerate(nearest, start):
                values[row] = np.asarray(profiles[np.sort(chosen)].mean(axis=0)).ravel()
        return Prediction(at_library(values, slide, focal), focal)

    return {"-": transferred(target), "no_intervention": transferred(task.fold.control)}
