"""The simulation's exact expectation for the same focal cells and the same donors that models are given.

Not a ceiling: it shows what the question itself is worth. Where a donor rule asks for a neighbourhood that the
target cells do not have, the truth scores badly as well.
"""

from tissue_counterfactuals.methods.prediction import Prediction
from tissue_counterfactuals.simulate import true_counterfactual, true_expression


def predict(task, folder, target) -> dict[str, Prediction | str]:
    """One variant per donor rule, and the twin without intervention."""

    dispersion = task.slide.var["simulation_overdispersion"].to_numpy()

    def moved(perturbation):
        values = true_counterfactual(task.slide, perturbation.focal, perturbation.donors)
        return Prediction(values, perturbation.focal, dispersion=dispersion)

    values = true_expression(task.slide, task.focal)
    own = Prediction(values, task.focal, dispersion=dispersion)
    return task.counterfactuals(target, moved) | {"no_intervention": own}
