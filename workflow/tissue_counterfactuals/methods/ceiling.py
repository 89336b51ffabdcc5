"""The ceiling that noise leaves: one random half of the target cells as prediction of the other half."""

import numpy as np

from tissue_counterfactuals.methods.prediction import Prediction
from tissue_counterfactuals.streams import stream


def predict(task, folder, target) -> dict[str, Prediction]:
    """Observed counts of one half, to be scored against the other half alone."""
    cells = stream(task.seed, "ceiling_halves").permutation(task.target_cells(target))
    ours, theirs = np.sort(cells[: len(cells) // 2]), np.sort(cells[len(cells) // 2 :])
    values = task.slide.X[ours].toarray()
    return {"-": Prediction(values, ours, target_cells=theirs, keeps_noise=True)}
