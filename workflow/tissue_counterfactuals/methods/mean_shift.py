"""Baseline of the Cellina paper: one log change per gene, all cell types mixed, from un-normalised counts.

As run in the authors' code: composition and depth of the domains go into the change as well.
"""

import numpy as np

from tissue_counterfactuals.methods.prediction import Prediction, at_library
from tissue_counterfactuals.metrics.populations import mean_counts


def predict(task, folder, target) -> dict[str, Prediction]:
    """(x + 1) 2^delta - 1, clipped at 0; delta = log2 of mean counts in the target against all other domains."""
    slide, train = task.slide, task.split.train
    in_target = (slide.obs["domain"] == target).to_numpy()
    mean_target = mean_counts(slide.X[train & in_target])
    mean_rest = mean_counts(slide.X[train & ~in_target])
    delta = np.log2((mean_target + 1e-8) / (mean_rest + 1e-8))
    shifted = shift(slide.X[task.focal].toarray(), delta)
    values = at_library(shifted, slide, task.focal)
    return {"-": Prediction(values, task.focal, keeps_noise=True)}


def shift(expression: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """Apply a log2 change per gene (g,) to expression (m, g) with pseudocount 1, clipped at 0."""
    return np.clip((expression + 1.0) * 2.0**delta - 1.0, 0, None)
