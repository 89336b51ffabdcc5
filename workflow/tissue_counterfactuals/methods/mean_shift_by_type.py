"""Control: the mean shift without its confounding: type by type, on normalised expression, then averaged.

For every other cell type with enough training cells in both domains, the log change of its mean normalised
expression from control to target; the held-out type gets the mean over types.
"""

import numpy as np

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.methods.mean_shift import shift
from tissue_counterfactuals.methods.prediction import Prediction, at_library
from tissue_counterfactuals.metrics.populations import mean_expression
from tissue_counterfactuals.slide import normalize_counts

MIN_CELLS = 10


def mean_profiles(task, target) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mean counts per 10,000, each (g,), in the target and in the control domain, of every other type that can say."""
    slide, train = task.slide, task.split.train
    cell_type = slide.obs["cell_type"].astype(str).to_numpy()
    domain = slide.obs["domain"].astype(str).to_numpy()
    profiles = []
    for other in sorted(set(cell_type) - {task.fold.cell_type}):
        groups = [np.flatnonzero(train & (cell_type == other) & (domain == d)) for d in (target, task.fold.control)]
        if min(map(len, groups)) >= MIN_CELLS:
            profiles.append(tuple(mean_expression(slide.X[g]) for g in groups))
    return profiles


def predict(task, folder, target) -> dict[str, Prediction]:
    """(x + 1) 2^delta - 1 on counts per 10,000, delta = mean over other types of log2((p_target+1)/(p_control+1)).

    Raises:
        InputError: no other type has training cells enough in both domains.
    """
    slide, profiles = task.slide, mean_profiles(task, target)
    if not profiles:
        raise InputError(
            f"mean_shift_by_type: no other type has {MIN_CELLS} training cells in both {task.fold.control!r} and "
            f"{target!r}: leave this method out of `methods` or choose larger domains."
        )
    expression = normalize_counts(slide.X[task.focal]).toarray()
    delta = np.mean([np.log2((there + 1) / (here + 1)) for there, here in profiles], axis=0)
    values = at_library(shift(expression, delta), slide, task.focal)
    return {"-": Prediction(values, task.focal, keeps_noise=True)}
