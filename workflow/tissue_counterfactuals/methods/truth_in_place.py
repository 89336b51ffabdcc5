"""The simulation's exact expectation of the target cells in their real neighbourhoods: counts without noise."""

from tissue_counterfactuals.methods.prediction import Prediction
from tissue_counterfactuals.simulate import true_expression


def predict(task, folder, target) -> dict[str, Prediction]:
    """Expected counts of the target cells themselves."""
    cells = task.target_cells(target)
    dispersion = task.slide.var["simulation_overdispersion"].to_numpy()
    return {"-": Prediction(true_expression(task.slide, cells), cells, dispersion=dispersion)}
