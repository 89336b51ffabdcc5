"""What matched donors gain against exchanged subdomains: calibrated where labels say nothing, found where they do."""

import numpy as np
import pytest

from tissue_counterfactuals.experiments.shuffled_subdomains import gains, rank_p, shuffles
from tissue_counterfactuals.metrics import METRICS, Comparison, Reference

N, M, GENES = 60, 12, 25
MODULES = [1, 2]


def a_case(rng, effect, n_shuffles=19):
    """Two types in two subdomains; the second subdomain moves genes by `effect`, in cells and in what is predicted
    there.
    """
    cell_type, labels = rng.choice(["A", "B"], N), rng.choice(MODULES, N)
    own = np.flatnonzero(cell_type == "A")
    moves = np.exp(np.where(np.arange(GENES) % 2, 1, -1) * effect)
    base = rng.lognormal(3, 0.5, GENES)
    observed = base * np.where(labels[own] == 2, moves[:, None], 1).T
    observed = observed * rng.lognormal(0, 0.3, observed.shape)
    donors = rng.choice(N, (M, 3))
    predicted = base * np.where(labels[donors][..., None] == 2, moves, 1)
    predicted = predicted * rng.lognormal(0, 0.3, (M, 1, 1)) * rng.lognormal(0, 0.1, predicted.shape)
    before = base * rng.lognormal(0, 0.5, GENES)
    return gains(
        *(shuffles(labels, cell_type, n_shuffles, str(rng.integers(10**9))), MODULES, own),
        *(observed, donors, predicted),
        lambda mean: np.log1p(mean) - np.log1p(before),
        *(15, 4),
    )


def test_where_subdomains_say_nothing_a_small_p_value_is_rare():
    rng, n = np.random.default_rng(0), 150
    found = np.array([rank_p(a_case(rng, 0.0)) for _ in range(n)])
    for level in (0.05, 0.2, 0.5):
        assert abs((found <= level).mean() - level) < 4 * np.sqrt(level * (1 - level) / n)


def test_where_they_do_it_is_as_small_as_can_be():
    rng = np.random.default_rng(1)
    found = sorted(rank_p(a_case(rng, 1.0)) for _ in range(10))
    assert found[7] == 0.05


def test_labels_stay_within_types_and_are_those_of_the_slide():
    rng = np.random.default_rng(2)
    cell_type, labels = rng.choice(["A", "B"], N), rng.choice([0, 1, 2], N)
    rows = shuffles(labels, cell_type, 5, "s")
    np.testing.assert_array_equal(rows[0], labels)
    for row in rows[1:]:
        assert (row != labels).any()
        for name in "AB":
            own = cell_type == name
            assert sorted(row[own]) == sorted(labels[own])
    np.testing.assert_array_equal(rows, shuffles(labels, cell_type, 5, "s"))
    assert (rows[1:] != shuffles(labels, cell_type, 5, "t")[1:]).any()


def test_the_gain_is_that_of_the_scores():
    """Whatever the module of a focal cell's other donor, as if all its donors were matched, by the metric's own code.

    Draws of two donors in all four combinations of modules, where what is predicted is a sum of cell and donor.
    """
    rng = np.random.default_rng(3)
    labels = np.repeat([[1, 2]], 20, axis=0).ravel()[None]
    both = np.array([[0, 0], [0, 1], [1, 0], [1, 1]] * 5)
    donors = both + 2 * np.arange(20)[:, None]
    control, observed, base = (rng.poisson(5, (n, GENES)) + 1.0 for n in (20, 40, 20))
    scaled = [1e4 * x / x.sum(axis=-1, keepdims=True) for x in (control, observed, base)]
    effect = rng.normal(0, 20, (2, GENES))
    there = scaled[2][:, None] + effect - effect.mean(axis=1, keepdims=True)
    predicted = there[np.arange(20)[:, None], both]
    assert predicted.min() > 0
    before = scaled[0].mean(axis=0)
    (found,) = gains(
        *(labels, MODULES, np.arange(40), scaled[1], donors, predicted),
        lambda mean: np.log1p(mean) - np.log1p(before),
        *(15, 4),
    )
    spearman = METRICS["spearman"].function
    expected = []
    for module in (0, 1):
        reference = Reference(control, observed[module::2], n_deg=15)
        matched, everywhere = there[:, module], there.reshape(-1, GENES)
        expected.append(spearman(Comparison(reference, matched)) - spearman(Comparison(reference, everywhere)))
    assert found == pytest.approx(np.mean(expected), abs=1e-9)


def test_a_module_without_cells_enough_of_the_type_is_left_out():
    rng = np.random.default_rng(4)
    labels = np.array([[1] * 30 + [2] * 3])
    case = (np.arange(33), rng.random((33, GENES)), rng.choice(33, (9, 2)), rng.random((9, 2, GENES)))
    one, both = (gains(labels, modules, *case, np.log1p, 9, 4) for modules in ([1], [1, 2]))
    np.testing.assert_array_equal(one, both)
    assert np.isnan(gains(labels, [2], *case, np.log1p, 9, 4)).all()
    assert np.isnan(rank_p(np.array([np.nan, 1.0])))
