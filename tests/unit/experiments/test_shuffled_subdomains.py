"""What matched donors gain against shifted subdomains: calibrated where labels say nothing, found where they do."""

import numpy as np
import pytest
from scipy import sparse, stats

from tissue_counterfactuals.experiments.shuffled_subdomains import gains, rank_p, shuffles
from tissue_counterfactuals.metrics import METRICS, Comparison, Reference

GENES = 25
MODULES = [1, 2]


def smooth(rng, place, n, length=0.15):
    """Random fields (cells, n) in patches of about a length; the tissue is 1 wide."""
    waves, phases = rng.normal(0, 1 / length, (2, 60)), rng.uniform(0, 2 * np.pi, 60)
    return np.cos(place @ waves + phases) @ rng.normal(0, 1 / np.sqrt(30), (60, n))


def a_case(rng, effect, n_shuffles=19):
    """Two types in two sections, where labels, expression and what is predicted each lie in patches; the second
    subdomain moves genes by `effect`, in cells and in what is predicted there.
    """
    n, n_genes = 600, 60
    place, section = rng.random((n, 2)), np.repeat(["one", "two"], n // 2)
    apart = place + 50.0 * (section == "two")[:, None]
    cell_type = rng.choice(["A", "B"], n)
    labels = 1 + smooth(rng, apart, 2).argmax(axis=1)
    own = np.flatnonzero(cell_type == "A")
    moves = np.where(labels[:, None] == 2, np.where(np.arange(n_genes) % 2, 1, -1) * effect, 0)
    base = rng.lognormal(3, 1, n_genes)
    observed = rng.poisson(base * np.exp(0.3 + 0.3 * smooth(rng, apart, n_genes) + moves))[own].astype(float)
    donors = rng.integers(0, n, (60, 4))
    predicted = base * np.exp(0.1 * smooth(rng, apart, n_genes) + moves)[donors]
    before = base * rng.lognormal(0, 0.5, n_genes)
    return gains(
        shuffles(labels, cell_type, place, section, n_shuffles, str(rng.integers(10**9))),
        *(MODULES, own, sparse.csr_array(observed), donors, predicted),
        lambda mean: np.log1p(mean) - np.log1p(before),
        *(30, 20),
    )


def test_where_subdomains_say_nothing_a_small_p_value_is_rare():
    """Of patches that have nothing to do with each other; exchanged cell by cell, labels gave it to one in seven."""
    rng, n = np.random.default_rng(0), 150
    found = np.array([rank_p(a_case(rng, 0.0)) for _ in range(n)])
    for level in (0.05, 0.2, 0.5):
        assert stats.binom.ppf(0.001, n, level) <= (found <= level).sum() <= stats.binom.ppf(0.999, n, level)


def test_where_they_do_it_is_as_small_as_can_be():
    rng = np.random.default_rng(1)
    found = sorted(rank_p(a_case(rng, 1.0)) for _ in range(10))
    assert found[7] == 0.05


def test_the_map_of_each_section_moves_as_a_whole_and_is_that_of_the_slide():
    """On a lattice of two types: most neighbours of one label have one label afterwards, in either section alone."""
    place = np.stack(np.meshgrid(np.arange(20.0), np.arange(20.0)), axis=-1).reshape(-1, 2)
    place, section = np.vstack([place, place + 7]), np.repeat([*"ab"], 400)
    cell_type = np.where((place.sum(axis=1) % 2).astype(bool), "A", "B")
    labels = np.where(section == "a", np.where(place[:, 0] < 10, 1, 2), 3)
    rows = shuffles(labels, cell_type, place, section, 5, "s")
    np.testing.assert_array_equal(rows[0], labels)
    for row in rows[1:]:
        assert (row[400:] == 3).all()
        grid = row[:400].reshape(20, 20)
        # Two edges across, wherever they are, but for cells that lie between two of their type.
        assert 1.5 < (grid != np.roll(grid, 1, axis=1)).sum(axis=1).mean() < 4.5
        assert abs((grid == 1).mean() - 0.5) < 0.1
    assert len(np.unique(rows, axis=0)) == 6
    np.testing.assert_array_equal(rows, shuffles(labels, cell_type, place, section, 5, "s"))
    assert (rows[1:] != shuffles(labels, cell_type, place, section, 5, "t")[1:]).any()
    # What one section does, another does not see; a section of one cell stays.
    alone = np.append(np.flatnonzero(section == "a"), 800 - 1)
    few = shuffles(labels[alone], *(x[alone] for x in (cell_type, place, section)), 5, "s")
    np.testing.assert_array_equal(few, rows[:, alone])


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
    # A shift that leaves a module too few goes by the others.
    shifted = np.vstack([labels, labels[:, ::-1]])
    shifted[1, :27] = 2
    np.testing.assert_array_equal(gains(shifted, [1], *case, np.log1p, 9, 4)[0], one[0])
    assert np.isfinite(gains(shifted, [1, 2], *case, np.log1p, 9, 6)).tolist() == [True, True]
    assert np.isnan(gains(labels, [2], *case, np.log1p, 9, 4)).all()
    assert np.isnan(rank_p(np.array([np.nan, 1.0])))
