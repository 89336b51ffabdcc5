"""Run by the Python of scperteval's environment: its metrics and calibrators on given arrays, npz to npz.

    python run_scperteval.py GIVEN.npz FOUND.npz

Given: observed, predicted (changes, genes), statistic (genes), top (indices), populations x and y, and pairs of
positive and negative scores with the perfect one, for either direction.
"""

import sys
from types import SimpleNamespace

import numpy as np
from scperteval.calibrators import CALIBRATORS
from scperteval.protocols import metrics

given = dict(np.load(sys.argv[1]))
context = SimpleNamespace(
    de=lambda *_: SimpleNamespace(statistic=given["statistic"]),
    current_pert="",
    cfg=SimpleNamespace(truth=""),
)
pair = given["observed"], given["predicted"]
top = [x[given["top"]] for x in pair]
found = {
    "pearson": metrics.pearson(*top, context),
    "wmse": metrics.weighted_mse(*pair, context),
    "weighted_r2": metrics.weighted_r2(*pair, context),
    "energy": metrics.energy_distance(given["x"], given["y"], context),
}
for better, perfect in (("higher", 1.0), ("lower", 0.0)):
    protocol = SimpleNamespace(better=better, perfect=perfect)
    for name in ("drf", "bds"):
        found[f"{name}_{better}"] = [
            CALIBRATORS[name].per_pert({"positive": positive, "negative": negative}, protocol)
            for positive, negative in given[better]
        ]
np.savez(sys.argv[2], **found)
