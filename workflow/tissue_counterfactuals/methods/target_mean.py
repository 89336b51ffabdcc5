"""Control that sees the answer: every focal cell gets the mean normalised profile of the target cells.

Perfect on averages and useless as a population: it shows which metrics notice.
"""

import numpy as np

from tissue_counterfactuals.methods.prediction import Prediction, at_library
from tissue_counterfactuals.metrics.populations import mean_expression


def predict(task, folder, target) -> dict[str, Prediction]:
    """The target cells' mean profile at each focal cell's library."""
    profile = mean_expression(task.slide.X[task.target_cells(target)])
    values = at_library(np.broadcast_to(profile, (len(task.focal), profile.size)), task.slide, task.focal)
    return {"-": Prediction(values, task.focal)}
