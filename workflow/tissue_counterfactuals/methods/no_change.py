"""Control: nothing happens; the control cells as they were observed."""

from tissue_counterfactuals.methods.prediction import Prediction


def predict(task, folder, target) -> dict[str, Prediction]:
    """The observed counts of the focal cells."""
    return {"-": Prediction(task.slide.X[task.focal].toarray(), task.focal, keeps_noise=True)}
