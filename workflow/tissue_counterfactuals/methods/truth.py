"""The simulation's exact expectation for the same focal cells and the same donors, or altered neighbours, of the
models.

Not a ceiling: it shows what the question itself is worth. Where a donor rule asks for a neighbourhood that the
target cells do not have, the truth scores badly as well.
"""

from tissue_counterfactuals.methods.prediction import Prediction
from tissue_counterfactuals.simulate import true_altered, true_counterfactual, true_expression


def predict(task, folder, target) -> dict[str, Prediction | str]:
    """One variant per perturbation, and the twin without intervention."""

    dispersion = task.slide.var["simulation_overdispersion"].to_numpy()

    def moved(perturbation):
        values = true_counterfactual(task.slide, perturbation.focal, perturbation.donors)
        return Prediction(values, perturbation.focal, dispersion=dispersion)

    def altered(node):
        around = task.masked_graph[task.focal]
        values = true_altered(task.slide, task.focal, around, node.shift, node.cells)
        return Prediction(values, task.focal, dispersion=dispersion)

    values = true_expression(task.slide, task.focal)
    own = Prediction(values, task.focal, dispersion=dispersion)
    made = task.counterfactuals(target, moved) | task.altered(target, altered)
    return made | {"no_intervention": own}
