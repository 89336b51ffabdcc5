"""Metrics and the dynamic range fraction against the package `scperteval`, where its definitions are ours.

They are for Pearson over given genes, WMSE and weighted R2 (the same weights, given the t statistic), the dynamic range
fraction and who wins. Its energy distance leaves a cell's distance to itself out, ours counts it as the authors' code
of Cellina does; the two agree once that is undone. It has no local energy distance, no precision and no reference per
type.
"""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from absent import peer
from tissue_counterfactuals.metrics import Comparison, Reference, calibration
from tissue_counterfactuals.metrics.populations import distances, log_expression_of

HERE = Path(__file__).resolve().parent
PAIRS = {
    "higher": [(0.9, 0.1), (0.1, 0.4), (0.2, np.nan), (1.0, -3.0)],
    "lower": [(0.1, 2.0), (3.0, 2.0), (5.0, 2.0), (0.1, -0.2)],
}


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A comparison and what the package says of its arrays."""
    python = peer("scperteval")
    rng = np.random.default_rng(0)
    rate = rng.lognormal(0, 1, 60)
    effect = np.exp(np.where(np.arange(60) % 3 == 0, rng.normal(0, 1, 60), 0))
    control, target, predicted = (
        rng.poisson(rate * e * rng.gamma(4, 0.25, (n, 1))) for n, e in ((70, 1), (80, effect), (70, effect**0.7))
    )
    comparison = Comparison(Reference(control, target, n_deg=20), predicted)
    logs = [log_expression_of(x, np.arange(len(x))) for x in (control, target, predicted)]
    folder = tmp_path_factory.mktemp("scperteval")
    np.savez(
        folder / "given.npz",
        observed=comparison.reference.observed,
        predicted=comparison.change,
        statistic=stats.ttest_ind(logs[1], logs[0], equal_var=False).statistic,
        top=comparison.reference.differential,
        x=logs[1],
        y=logs[2],
        **PAIRS,
    )
    command = [python, HERE / "run_scperteval.py", folder / "given.npz", folder / "found.npz"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    return comparison, logs[1:], dict(np.load(folder / "found.npz"))


def test_scores_are_those_of_the_package(compared):
    comparison, (target, predicted), found = compared
    scores = comparison.scores(unbiased=False) | comparison.scores(unbiased=True)
    for name in ("pearson", "wmse", "weighted_r2"):
        assert scores[name] == pytest.approx(found[name], rel=1e-9), name
    # A mean over all pairs, the zeros of the diagonals included, is (n - 1) / n of one without.
    within = [distances(x, x).mean() / len(x) for x in (target, predicted)]
    unbiased = [len(x) / (len(x) - 1) * w for x, w in zip((target, predicted), within, strict=True)]
    expected = scores["e_distance_global"] - sum(unbiased)
    assert found["energy"] == pytest.approx(expected, rel=1e-6)


def test_the_dynamic_range_is_that_of_the_package(compared):
    *_, found = compared
    for sign, (better, pairs) in zip((1, -1), PAIRS.items(), strict=True):
        best = 1.0 if better == "higher" else 0.0
        ours = [calibration.dynamic_range(sign * p, sign * n, sign * best) for p, n in pairs]
        np.testing.assert_allclose(ours, found[f"drf_{better}"], rtol=1e-9)
        assert [sign * p > sign * n for p, n in pairs] == list(found[f"bds_{better}"] == 1)
