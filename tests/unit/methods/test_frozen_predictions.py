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
        3.299840,
        3.861509,
        2.638013,
        1.332456,
        2.435097,
        2.689336,
        2.570637,
        2.173112,
    ],
    ("cellina", "corrected", "no_intervention"): [
        3.296337,
        3.863503,
        2.637847,
        1.332701,
        2.433802,
        2.689032,
        2.571886,
        2.174891,
    ],
    ("cellina", "as_run", "published"): [
        3.678073,
        3.040881,
        2.375098,
        1.552250,
        2.048108,
        3.295259,
        2.668366,
        2.341964,
    ],
    ("cellina", "as_run", "no_intervention"): [
        3.659008,
        3.046620,
        2.387491,
        1.558572,
        2.049697,
        3.289750,
        2.664540,
        2.344321,
    ],
    ("cellina_ablated", "corrected", "published"): [
        3.328659,
        3.925263,
        2.725398,
        1.322299,
        2.449311,
        2.626987,
        2.521567,
        2.100514,
    ],
    ("cellina_ablated", "corrected", "no_intervention"): [
        3.320781,
        3.926736,
        2.723376,
        1.327811,
        2.439017,
        2.632757,
        2.520484,
        2.109038,
    ],
    ("cellina_ablated", "as_run", "published"): [
        3.634863,
        3.103210,
        2.451303,
        1.513487,
        2.130209,
        3.221587,
        2.646439,
        2.298900,
    ],
    ("cellina_ablated", "as_run", "no_intervention"): [
        3.617466,
        3.109411,
        2.461539,
        1.518731,
        2.130322,
        3.217035,
        2.643453,
        2.302043,
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
