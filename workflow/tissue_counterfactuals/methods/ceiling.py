"""The ceiling that noise leaves: one random half of the target cells as prediction of the other half."""

import numpy as np

from tissue_counterfactuals.methods import Prediction


def predict(task, folder, target) -> dict[str, Prediction]:
    """Observed counts of one half, to be scored against the other half alone."""
    cells = np.random.default_rng([task.seed, 2]).permutation(task.target_cells(target))
    ours, theirs = np.sort(cells[: len(cells) // 2]), np.sort(cells[len(cells) // 2 :])
    return {"-": Prediction(task.slide.X[ours].toarray(), ours, target_cells=theirs)}
