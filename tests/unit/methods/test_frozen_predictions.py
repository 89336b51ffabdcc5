"""Predictions of Cellina, its ablated form and Cellina-GAT as they were: what nobody meant to change has not changed.

Expected counts of the first focal cell, genes 0 to 7, made by this file at the commit that brought them: 6 epochs on
300 cells x 8 genes; `as_run` without the published hyperparameters, whose 100 epochs would magnify rounding. Another
number of threads or machine changes them by 1e-6. A change of arithmetic, of a default or of a draw moves them: whoever
means to runs `PYTHONPATH=workflow:tests/unit python tests/unit/methods/test_frozen_predictions.py` and says why.
"""

import tempfile

import numpy as np
import pytest

from slides import small_slide
from tasks import Question
from tissue_counterfactuals.protocols.cellina import SWITCHES

METHODS = ("cellina", "cellina_ablated", "cellina_gat")
SETTINGS = {"epochs": 6, "learning_rate": 0.01, "kl_warmup_epochs": 6}
# fmt: off
FROZEN = {
    ("cellina", "corrected", "published"): [3.153452, 3.191843, 3.401340, 1.199308, 4.053108, 2.113010, 2.348861,
    1.539078],
    ("cellina", "corrected", "no_intervention"): [3.155011, 3.191610, 3.402626, 1.200532, 4.050361, 2.112382, 2.347619,
    1.539860],
    ("cellina", "as_run", "published"): [3.266768, 3.621586, 3.374514, 1.343919, 3.649095, 1.998823, 2.229264,
    1.516029],
    ("cellina", "as_run", "no_intervention"): [3.269719, 3.626871, 3.374025, 1.341316, 3.646664, 1.997052, 2.227620,
    1.516734],
    ("cellina_ablated", "corrected", "published"): [3.150628, 3.397646, 3.496683, 1.177157, 3.902417, 2.021034,
    2.360187, 1.494249],
    ("cellina_ablated", "corrected", "no_intervention"): [3.149376, 3.393399, 3.491996, 1.183798, 3.904049, 2.026289,
    2.356154, 1.494939],
    ("cellina_ablated", "as_run", "published"): [3.407455, 3.696215, 3.354263, 1.250576, 3.554976, 2.039426, 2.142649,
    1.554438],
    ("cellina_ablated", "as_run", "no_intervention"): [3.419422, 3.698378, 3.356606, 1.246745, 3.544718, 2.036916,
    2.137249, 1.559966],
    ("cellina_gat", "corrected", "published"): [2.918681, 3.258065, 2.673482, 2.369292, 2.672402, 2.296205, 2.338224,
    2.473649],
    ("cellina_gat", "corrected", "no_intervention"): [2.918646, 3.258246, 2.673422, 2.369336, 2.672505, 2.296147,
    2.338227, 2.473473],
    ("cellina_gat", "as_run", "published"): [2.883089, 3.080111, 2.704857, 2.498977, 2.589708, 2.377859, 2.303186,
    2.562212],
    ("cellina_gat", "as_run", "no_intervention"): [2.879157, 3.052406, 2.715794, 2.508915, 2.587397, 2.382300, 2.298231,
    2.575799],
}
# fmt: on


def predictions(folder, method, protocol):
    slide = small_slide(n_cells=300, n_genes=8)
    switches = {s.name: getattr(s, protocol) for s in SWITCHES if s.name != "hyperparameters"}
    question = Question(folder, slide, switches=switches, cellina=SETTINGS)
    question.settings["cellina_gat"] = question.settings["cellina_gat"] | SETTINGS
    return question.predict(method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("protocol", ["corrected", "as_run"])
def test_predictions_are_as_they_were(tmp_path, method, protocol):
    made = predictions(tmp_path, method, protocol)
    for variant in ("published", "no_intervention"):
        expected = FROZEN[method, protocol, variant]
        np.testing.assert_allclose(made[method, "right", variant][0], expected, rtol=1e-4)


if __name__ == "__main__":
    for method in METHODS:
        for protocol in ("corrected", "as_run"):
            with tempfile.TemporaryDirectory() as folder:
                for (_, _, variant), values in predictions(folder, method, protocol).items():
                    numbers = ", ".join(f"{x:.6f}" for x in values[0])
                    print(f'    ("{method}", "{protocol}", "{variant}"): [{numbers}],')
