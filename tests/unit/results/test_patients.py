"""Intervals and tests over patients keep their level, whatever the folds of a patient have in common."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tissue_counterfactuals.results.patients import (
    FEWEST_PATIENTS,
    estimate,
    holm,
    patients_of_slides,
)
from tissue_counterfactuals.results.tables import BEST, COLUMNS, gains

NULLS = {
    "normal": lambda rng, n: rng.normal(size=n),
    "uniform": lambda rng, n: rng.uniform(-1, 1, size=n),
    "heavy": lambda rng, n: rng.standard_t(3, size=n),
    "skewed": lambda rng, n: rng.exponential(size=n) - 1,
}


@pytest.mark.parametrize("n", [FEWEST_PATIENTS, 5, 8])
@pytest.mark.parametrize("null", NULLS)
def test_intervals_hold_the_mean_as_often_as_they_say(n, null):
    rng, n_tests = np.random.default_rng(n), 300
    found = [estimate(NULLS[null](rng, n)) for _ in range(n_tests)]
    rejected = np.array([e.p_value <= 0.05 for e in found])
    held = np.array([e.low <= 0 <= e.high for e in found])
    # The p value and the interval say the same.
    assert (rejected == ~held).mean() > 0.97
    # A skewed mean of so few is held 93 % of the time; the others are at their level.
    level = 0.08 if null == "skewed" else 0.05
    assert rejected.sum() <= stats.binom.ppf(0.999, n_tests, level)
    one_sided = sum(e.p_greater <= 0.05 for e in found)
    assert one_sided <= stats.binom.ppf(0.999, n_tests, level)
    if null == "normal":
        assert rejected.sum() >= stats.binom.ppf(0.001, n_tests, 0.05)


def test_a_difference_is_found_and_too_few_patients_say_nothing():
    assert estimate(np.array([0.9, 1.0, 1.1, 1.0, 1.2])).p_value < 0.01
    assert estimate(np.array([0.9, 1.0, 1.1, 1.0, 1.2])).low > 0.8
    for values in ([1.0, 2.0, 3.0], [0.5] * 6, []):
        assert np.isnan(estimate(np.array(values))).all()


def test_holm_by_hand():
    adjusted = holm([0.01, np.nan, 0.04, 0.03])
    assert adjusted == pytest.approx([0.03, np.nan, 0.06, 0.06], nan_ok=True)
    assert holm([0.6, 0.9]).tolist() == [1, 1]


def null_scores(rng, target, n_patients=5, n_types=5):
    """Methods that are equally good: what they score differs by patient and by fold, and nothing else."""
    rows, names = [], ("cellina", "ridge", "celcomen")
    for patient in range(n_patients):
        own = rng.normal(0, 0.1, len(names))
        for cell_type in range(n_types):
            for name, level in zip(names, own + rng.normal(0, 0.05, len(names)), strict=True):
                rows.append((target, f"s{patient}", f"t{cell_type}", name, 0.8 + level))
    table = pd.DataFrame(rows, columns=["target", "slide", "cell_type", "method", "value"])
    common = {"dataset": "d", "kind": "real", "protocol": "corrected", "seed": 0}
    common |= {"variant": "published", "metric": "pearson", "status": "ok", "reason": ""}
    return table.assign(**common).reindex(columns=COLUMNS)


def test_no_method_beats_equals_more_often_than_it_may():
    rng, n_tests = np.random.default_rng(3), 50
    scores = pd.concat(null_scores(rng, f"null {i}") for i in range(n_tests))
    found = gains(scores)
    best = found["reference"] == BEST
    allowed = stats.binom.ppf(0.999, n_tests, 0.05)
    for _, own in found.groupby("method"):
        others = own[~best[own.index] & own["p_adjusted"].notna()]
        smallest = others.groupby("target")["p_adjusted"].min()
        for p_values in (own.loc[best[own.index], "p_value"], smallest):
            assert len(p_values) == n_tests
            assert (p_values <= 0.05).sum() <= allowed
    # What would be said if the folds of a patient were taken for independent.
    keys = ["target", "slide", "cell_type"]
    wide = scores.pivot_table(index=keys, columns="method", values="value")
    folds = (wide["cellina"] - wide["ridge"]).groupby("target")
    rejected = sum(stats.wilcoxon(values).pvalue <= 0.05 for _, values in folds)
    assert rejected > 2 * allowed


def test_slides_have_the_patient_that_the_data_set_names_under_their_name_in_tables():
    dataset = {"patients": {"P": ["section 1", "section 2"], "Q": ["other"]}}
    expected = {"section_1": "P", "section_2": "P", "other": "Q"}
    assert patients_of_slides(dataset) == expected
    # These have slides of other names, for there is one that is called so.
    dataset = {
        "samples": ["Pooled", "pooled", "sample_pooled", "b"],
        "patients": {"P": ["Pooled", "b"], "Q": ["pooled"]},
    }
    assert patients_of_slides(dataset) == {"sample_Pooled": "P", "b": "P", "sample_sample_pooled": "Q"}
