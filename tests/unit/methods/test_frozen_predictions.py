"""Predictions of Cellina as they were: what nobody meant to change has not changed.

Expected counts of the first focal cell, genes 0 to 7, made by this file at the commit that brought it in: 6 epochs on
300 cells x 8 genes. Another thread count or machine changes them by 1e-6. A change of arithmetic, of a default or of
a draw moves them: whoever means to does `python tests/unit/methods/test_frozen_predictions.py` and says why.
"""

import tempfile

import numpy as np
import pytest

from slides import small_slide
from tasks import Question

SETTINGS = {"epochs": 6, "learning_rate": 0.01, "kl_warmup_epochs": 6}
FROZEN = {
    ("cellina", "corrected", "published"): [
        3.153452,
        3.191843,
        3.401340,
        1.199308,
        4.053108,
        2.113010,
        2.348861,
        1.539078,
    ],
    ("cellina", "corrected", "no_intervention"): [
        3.155011,
        3.191610,
        3.402626,
        1.200532,
        4.050361,
        2.112382,
        2.347619,
        1.539860,
    ],
    ("cellina", "as_run", "published"): [
        3.081561,
        3.462546,
        3.094674,
        1.664613,
        3.586453,
        2.180624,
        2.150995,
        1.778535,
    ],
    ("cellina", "as_run", "no_intervention"): [
        3.082150,
        3.475308,
        3.091466,
        1.661732,
        3.581077,
        2.178537,
        2.151782,
        1.777946,
    ],
    ("cellina_ablated", "corrected", "published"): [
        3.150628,
        3.397646,
        3.496683,
        1.177157,
        3.902417,
        2.021034,
        2.360187,
        1.494249,
    ],
    ("cellina_ablated", "corrected", "no_intervention"): [
        3.149376,
        3.393399,
        3.491996,
        1.183798,
        3.904049,
        2.026289,
        2.356154,
        1.494939,
    ],
    ("cellina_ablated", "as_run", "published"): [
        3.077149,
        3.402035,
        3.143146,
        1.654446,
        3.626234,
        2.180646,
        2.177344,
        1.739000,
    ],
    ("cellina_ablated", "as_run", "no_intervention"): [
        3.076065,
        3.413497,
        3.135639,
        1.649418,
        3.627883,
        2.181890,
        2.177996,
        1.737613,
    ],
}


def predictions(folder, method, protocol):
    slide = small_slide(n_cells=300, n_genes=8)
    return Question(folder, slide, protocol=protocol, cellina=SETTINGS).predict(method)


@pytest.mark.parametrize("method", ["cellina", "cellina_ablated"])
@pytest.mark.parametrize("protocol", ["corrected", "as_run"])
def test_predictions_are_as_they_were(tmp_path, method, protocol):
    made = predictions(tmp_path, method, protocol)
    for variant in ("published", "no_intervention"):
        expected = FROZEN[method, protocol, variant]
        np.testing.assert_allclose(made[method, "right", variant][0], expected, rtol=1e-4)


if __name__ == "__main__":
    for method in ("cellina", "cellina_ablated"):
        for protocol in ("corrected", "as_run"):
            with tempfile.TemporaryDirectory() as folder:
                for (_, _, variant), values in predictions(folder, method, protocol).items():
                    numbers = ", ".join(f"{x:.6f}" for x in values[0])
                    print(f'    ("{method}", "{protocol}", "{variant}"): [{numbers}],')
