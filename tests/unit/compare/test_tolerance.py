"""Tolerances hold what they say: two runs that differ by chance alone are apart by more in one of twenty."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from tissue_counterfactuals.compare.tolerance import of_folds, of_replicates, rounding

N = 300


def share_within(rng, n_folds, n_seeds, n_published):
    """Share of pairs of runs within the tolerance; the published one has all folds and one seed, ours some of them."""
    within = 0
    for _ in range(N):
        folds = rng.normal(0.7, 0.2, n_published)
        published = np.mean(folds + rng.normal(0, 0.05, n_published))
        ours = folds[:n_folds, None] + rng.normal(0, 0.05, (n_folds, n_seeds))
        values = pd.DataFrame({"fold": np.repeat(range(n_folds), n_seeds), "value": ours.ravel()})
        within += abs(ours.mean() - published) <= of_folds(values, n_published).value
    return within / N


@pytest.mark.parametrize(("n_folds", "n_seeds", "n_published"), [(10, 3, 10), (6, 2, 6), (8, 3, 30)])
def test_nineteen_of_twenty_honest_runs_are_within(n_folds, n_seeds, n_published):
    share = share_within(np.random.default_rng(1), n_folds, n_seeds, n_published)
    # Four standard errors of a share of .95.
    assert abs(share - 0.95) < 4 * np.sqrt(0.95 * 0.05 / N)


def test_with_one_seed_the_tolerance_is_too_wide_and_not_too_narrow():
    assert share_within(np.random.default_rng(2), 10, 1, 10) > 0.95


def test_a_run_that_is_another_is_found():
    values = pd.DataFrame({"fold": [0, 0, 1, 1, 2, 2], "value": [0.7, 0.71, 0.8, 0.79, 0.75, 0.74]})
    assert of_folds(values, 3).value < 0.03
    assert "2 seeds in 3 folds" in of_folds(values, 3).origin


def test_without_spread_there_is_no_tolerance():
    found = of_folds(pd.DataFrame({"fold": [0], "value": [0.5]}), 1)
    assert np.isnan(found.value)
    assert found.origin == "one fold and one seed have no spread"
    # Seeds of the one fold say how far the model is from itself, and not how far folds are from each other.
    found = of_folds(pd.DataFrame({"fold": [0, 0, 0], "value": [0.5, 0.51, 0.52]}), 30)
    assert np.isnan(found.value)
    assert found.origin == "one of several folds says nothing of the others"
    assert np.isnan(of_replicates(np.array([1.0]), "1 seed").value)


def test_tolerance_of_replicates_is_that_of_two_runs():
    rng = np.random.default_rng(3)
    within = 0
    for _ in range(N):
        draws = rng.normal(0, 1, 20)
        within += abs(rng.normal() - rng.normal()) <= of_replicates(draws, "20 resamples").value
    assert abs(within / N - 0.95) < 4 * np.sqrt(0.95 * 0.05 / N)


@pytest.mark.parametrize(("printed", "half"), [("0.82", 0.005), ("11", 0.5), ("3.7e-9", 0.05e-9)])
def test_rounding_is_half_the_last_digit(printed, half):
    assert rounding(printed) == pytest.approx(half)


def test_each_fold_counts_with_the_variance_of_its_own_number_of_seeds():
    values = pd.DataFrame({"fold": ["a", "a", "b"], "value": [0.1, 0.3, 0.5]})
    # Within folds .02 with one degree of freedom; theirs is a mean of two folds with one seed each.
    variance = 0.02 * (1 / 2 + (1 / 2 + 1) / 4)
    assert of_folds(values, 2).value == pytest.approx(t.ppf(0.975, 1) * np.sqrt(variance))
