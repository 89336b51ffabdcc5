"""Intervals from seeds and from other types: they hold where what they assume holds, and do not where it does not."""

import numpy as np
import pytest

from slides import small_slide
from tissue_counterfactuals.metrics import Comparison, Interval, Reference, ensembles
from tissue_counterfactuals.metrics.ensembles import CONFORMAL, ENSEMBLE, Told, coverages

N_GENES = 150


def folds_of(rng, n_types=6, hard=1.0, shared=0.4, between=0.2, n_seeds=3):
    """Types that scatter alike; the last one's errors are `hard` times as large. All types have noise of their own."""
    folds = []
    for number in range(n_types):
        scale = hard if number == n_types - 1 else 1.0
        # Some types are worse than others, by chance: genes of one type are off together.
        scale *= rng.lognormal(0, 0.3)
        centre = rng.normal(0, 1, N_GENES)
        noise = rng.uniform(0.001, 0.02, N_GENES)
        predicted = centre + scale * between * rng.normal(size=(n_seeds, N_GENES))
        truth = centre + scale * shared * rng.normal(size=N_GENES)
        observed = truth + rng.normal(0, np.sqrt(noise))
        level = np.arange(N_GENES) % 3
        level[:5] = -1
        folds.append(Told("s", f"type_{number}", predicted, observed, noise, level))
    return folds


def mean_coverage(kind, n=30, **options):
    """Over draws, of all folds and of the last one."""
    every, last = [], []
    for seed in range(n):
        table = coverages(folds_of(np.random.default_rng(seed), **options))
        table = table[table["interval"] == kind]
        every.append(table["coverage"].mean())
        last.append(table["coverage"].iloc[-1])
    return np.mean(every), np.mean(last)


def test_errors_of_other_types_give_intervals_that_hold_where_types_are_exchangeable():
    every, last = mean_coverage(CONFORMAL)
    assert 0.88 < every < 0.94
    assert 0.86 < last < 0.95


def test_what_counting_noise_explains_is_no_error_of_the_method():
    folds = folds_of(np.random.default_rng(0), shared=0, between=0)
    table = coverages(folds)
    assert (table.loc[table["interval"] == CONFORMAL, "interval_width"] < 0.2).all()
    assert 0.86 < table.loc[table["interval"] == CONFORMAL, "coverage"].mean() < 0.96
    # Errors of this size without noise to explain them are the method's.
    errors = [Told(f.slide, f.cell_type, f.predicted, f.observed, 0 * f.noise, f.level) for f in folds]
    table = coverages(errors)
    assert (table.loc[table["interval"] == CONFORMAL, "interval_width"] > 0.3).all()


def test_a_type_that_is_harder_than_all_others_is_not_covered():
    assert mean_coverage(CONFORMAL, hard=3)[1] < 0.6


def test_seeds_give_intervals_that_hold_where_the_truth_is_as_far_off_as_they_are_from_each_other():
    assert 0.88 < mean_coverage(ENSEMBLE, shared=0.2)[0] < 0.94
    # What all seeds get wrong alike they cannot know.
    assert mean_coverage(ENSEMBLE, shared=1)[0] < 0.6


def test_levels_are_calibrated_each_by_its_own_genes():
    rng = np.random.default_rng(0)
    folds = folds_of(rng, n_types=8)
    for told in folds:
        told.predicted[:, told.level == 2] += 3 * rng.normal(size=(told.level == 2).sum())
    table = coverages(folds)
    table = table[table["interval"] == CONFORMAL]
    for name in ensembles.LEVELS:
        assert 0.84 < table[name].mean() < 0.96
    half = ensembles.by_types(folds[0], folds)
    assert half[folds[0].level == 2].min() > 3 * half[folds[0].level == 0].max()
    assert (half[folds[0].level == -1] == 0).all()


def test_too_few_seeds_or_types_give_none():
    rng = np.random.default_rng(0)
    few = folds_of(rng, n_types=ensembles.FEWEST_TYPES, n_seeds=ensembles.FEWEST_SEEDS - 1)
    assert coverages(few).empty
    # A type's other slides are no other types.
    again = [Told("other", f.cell_type, f.predicted, f.observed, f.noise, f.level) for f in few]
    assert coverages(few + again).empty
    enough = coverages(folds_of(rng, n_types=ensembles.FEWEST_TYPES + 1, n_seeds=1))
    assert set(enough["interval"]) == {CONFORMAL}
    assert set(enough["n_types"]) == {ensembles.FEWEST_TYPES}


def test_coverage_is_that_of_the_metric_of_the_same_name():
    slide = small_slide(n_cells=300)
    here, there = (slide.X[(slide.obs["domain"] == d).to_numpy()] for d in ("left", "right"))
    reference = Reference(here, there)
    told = Told.of("s", "A", reference, [reference.control_mean, 1.3 * reference.target_mean])
    half = np.full(slide.n_vars, 0.1)
    point = np.expm1(told.predicted.mean(axis=0) + np.log1p(reference.control_mean))
    limits = (np.expm1(np.log1p(point) + side * half) for side in (-1, 1))
    interval = Interval(*limits, np.zeros(slide.n_vars, dtype=bool))
    comparison = Comparison(reference, np.tile(point, (2, 1)), interval=interval)
    # A prediction that sums to another total is not rescaled here.
    comparison.__dict__["mean"] = point
    found = ensembles.coverage(told, half)
    assert found["coverage"] == pytest.approx(comparison.coverage())
    for number, name in enumerate(ensembles.LEVELS):
        assert found[name] == pytest.approx(comparison.coverage(number))
    assert 0 < found["coverage"] < 1
    assert found["interval_width"] == pytest.approx(0.2)
