"""Effects of guides and lesions: each control does what it says, and keeps its level where nothing happens."""

from dataclasses import replace

import numpy as np
import pytest
from anndata import concat
from scipy import sparse, stats

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.experiments import intervention_statistics as statistics
from tissue_counterfactuals.experiments import screen_question
from tissue_counterfactuals.experiments.screen_question import read_screen
from tissue_counterfactuals.simulate.screen import simulate_screen

SMALL = {"n_cells": 2500, "n_targets": 3, "clones_per_target": 10, "n_genes": 24}


def screens(n, first=0, **knobs):
    return (read_screen(simulate_screen(**SMALL | knobs, seed=first + i)) for i in range(n))


def arena(values, labels, unit=None, tile=None, size=None):
    """Each member beside one unit, its own unless told."""
    m = len(values)
    unit = np.arange(m) if unit is None else np.asarray(unit)
    n_units = len(labels)
    tile = np.zeros((m, 2), int) if tile is None else np.asarray(tile)
    first = [int(np.flatnonzero(unit == u)[0]) for u in range(n_units)]
    return statistics.Arena(
        np.arange(m), np.asarray(values, float), np.arange(m) / m, tile, unit, np.arange(m + 1), np.ones(m, int),
        np.asarray(labels), tile[first], np.ones(n_units, int) if size is None else np.asarray(size), ("A", "B"),
    )  # fmt: skip


# --- the effect ---------------------------------------------------------------------------------------------------


def test_a_member_counts_only_where_all_units_around_it_bear_one_label():
    place = np.array(
        [
            [0, 0],
            [10, 0],
            [500, 0],
            [510, 0],
            [520, 0],
            [1000, 0],
            [5, 5],
            [515, 5],
            [1000, 10],
            [2000, 0.0],
        ]
    )
    code = np.array([1, 1, 1, 0, 2, 0])
    counts = sparse.csr_matrix(np.ones((10, 3)))
    found = statistics.build_arena(place, np.arange(6), code, np.arange(6, 10), counts, ("A", "B"), 30.0, None)
    assert found.members.tolist() == [6, 7, 8]  # the last recipient is near nothing
    assert found.exposure()[0].tolist() == [1, statistics.NONE, 0]
    # The two carriers of A that stand together are one clone.
    assert sorted(found.unit_size) == [1, 1, 1, 1, 2]
    assert found.only(0, 1).exposure()[0].tolist() == [1, 0]
    assert found.only(0, 1).members.tolist() == [6, 8]
    # Of that clone both stand around the first recipient; of one that is longer than the radius some do not.
    assert found.carriers.tolist() == [2, 1, 1, 1, 1]
    assert found.only(0, 1).carriers.tolist() == [2, 1]
    place[1] = [50, 0]
    found = statistics.build_arena(place, np.arange(6), code, np.arange(6, 10), counts, ("A", "B"), 30.0, None)
    assert found.unit_size[0] == 2
    assert found.carriers[0] == 1


def test_expression_is_a_share_of_the_counts_of_its_own_cell():
    place = np.array([[0.0, 0], [5, 0], [0, 5]])
    counts = sparse.csr_matrix(np.array([[1.0, 1], [1, 3], [30, 10]]))
    found = statistics.build_arena(place, np.arange(1), np.array([1]), np.arange(1, 3), counts, ("A",), 30.0, None)
    np.testing.assert_allclose(found.values, [[2500, 7500], [7500, 2500]])
    np.testing.assert_allclose(found.depth, np.log1p([4, 40]))


def test_members_are_matched_in_their_tile_and_by_depth():
    values = np.exp(np.array([[3.0], [5.0], [2.0], [9.0]] * 3)) - 1
    tile = np.repeat([[0, 0], [1, 0], [9, 9]], 4, axis=0)
    found = arena(values, [1, 0, 0, 0] * 3, tile=tile)
    # Depths rise along the rows: the nearest control of the first row of a tile is the second.
    change = statistics.effects(found, found.exposure(), 1)
    assert change.n[0] == 3
    assert change.change[0, 0] == pytest.approx(3.0 - 5.0)
    # Without controls of its own, a tile borrows from the nearest one and not from the one of nearest depth.
    labels = np.array([1, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0])
    lone = arena(np.arange(12.0)[:, None], labels, tile=tile)
    draws = lone.exposure()
    draws[0, 0] = statistics.NONE
    found = statistics.effects(lone, draws, 1)
    expected = np.log1p(np.arange(4.0, 8).mean()) - np.log1p(3)
    assert found.change[0, 0] == pytest.approx(expected)


def test_no_member_is_its_own_candidate_and_none_of_equal_depth_is_passed_over():
    n = 60
    found = replace(arena(np.ones((n, 1)), [0] * n), depth=np.repeat(np.arange(n // 3), 3))
    for member, others in enumerate(found.candidates):
        assert {*range(member // 3 * 3, member // 3 * 3 + 3)} - {member} == {*others[:2]}
        assert member not in others
    alike = replace(found, depth=np.ones(n)).candidates
    assert not (alike == np.arange(n)[:, None]).any()
    assert [len({*others}) for others in alike] == [24] * n


def test_every_member_is_matched_however_many_of_its_target_stand_about_it():
    """One tile, all of the target deeper than any control: the deepest control serves for all of them."""
    n = 60
    depths = np.concatenate([np.linspace(4, 5, n), np.linspace(5.1, 6, n)])
    found = replace(arena(np.arange(2.0 * n)[:, None], [0] * n + [1] * n), depth=depths)
    exposure = np.vstack([found.exposure(), np.tile([1, 0], n)])
    draw, member, match = statistics.matches(found, exposure, 1)
    assert np.bincount(draw).tolist() == [n, n]
    assert (match[draw == 0] == n - 1).all()
    assert (np.abs(match - member)[draw == 1] == 1).all()
    assert statistics.effects(found, exposure, 1).n.tolist() == [n, n]
    # Many of one depth, and so of one place in the order of matching.
    alike = replace(found, depth=np.ones(2 * n))
    assert (statistics.effects(alike, exposure, 1).n == n).all()
    # Where all are of the target nobody has a match.
    assert statistics.effects(found, np.ones((1, 2 * n), int), 1).n.tolist() == [0]


def test_a_change_is_measured_in_the_standard_errors_of_both_sides():
    values = np.random.default_rng(0).gamma(3, 2, (12, 5))
    found = arena(values, [1, 0] * 6, tile=np.repeat(np.arange(6), 2)[:, None] * [50, 0])
    found = statistics.effects(found, found.exposure(), 1)
    sides = values.reshape(6, 2, 5)
    means = sides.mean(axis=0)
    # The error of log1p of a mean, to first order.
    errors = sides.var(axis=0) / 6 / (1 + means) ** 2
    z = -np.diff(np.log1p(means), axis=0)[0] / np.sqrt(errors.sum(axis=0))
    np.testing.assert_allclose(found.z[0], z)
    assert found.size[0] == pytest.approx((z**2).mean())


def test_clonality_is_one_where_labels_fell_at_random_and_large_for_clones():
    rng = np.random.default_rng(0)
    place, stratum = rng.uniform(0, 1000, (4000, 2)), rng.integers(0, 2, 4000)
    # One label is rare and fills one stratum more than the other, which is no clone.
    code = (rng.random(4000) < np.where(stratum == 1, 0.3, 0.05)).astype(int)
    assert statistics.clonality(place, code, stratum, 20, 2) == pytest.approx(1, abs=0.1)
    assert statistics.clonality(place, code, 0 * stratum, 20, 2)[1] == pytest.approx(1, abs=0.1)
    patches = (place[:, 0] // 100 % 5 == 0).astype(int)
    assert statistics.clonality(place, patches, 0 * stratum, 20, 2)[1] == pytest.approx(5, rel=0.1)
    # Three cells in each stratum, two of them in reach: by chance these are the two of the label in one of three cases.
    place = np.array([[0.0, 0], [1, 0], [50, 0], [0, 0], [1, 0], [50, 0]])
    found = statistics.clonality(place, np.array([1, 1, 0, 1, 0, 1]), np.repeat([0, 1], 3), 5, 3)
    assert found[1] == pytest.approx(1 / (2 / 3))
    assert np.isnan(found[0])
    # A label that no cell bears is a label.
    assert np.isnan(found[2])


def test_labels_change_places_within_strata_only():
    tile = np.repeat([[0, 0], [5, 0]], 6, axis=0)
    found = arena(np.ones((12, 2)), [1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0], tile=tile)
    stratum = statistics.strata(found)
    labels = statistics.permuted_labels(found, stratum, 200, np.random.default_rng(0))
    assert (labels[:, :6].sum(axis=1) == 2).all()
    assert (labels[:, 6:].sum(axis=1) == 1).all()
    assert (labels.mean(axis=0)[6:] > 0).all()
    assert statistics.arrangements(found, stratum, 1) == 15 * 6


def test_a_stratum_of_one_label_joins_the_nearest():
    tile = np.array([[0, 0], [0, 0], [1, 0], [2, 0], [9, 0], [9, 0]])
    found = arena(np.ones((6, 2)), [0, 0, 1, 0, 1, 0], tile=tile)
    stratum = statistics.strata(found)
    assert stratum[2] in (stratum[0], stratum[3])
    assert len(set(stratum[4:])) == 1
    assert stratum[4] != stratum[2]
    # Of another size class only where there is nothing else.
    sized = replace(found, unit_size=np.array([1, 1, 5, 1, 1, 1]))
    assert statistics.strata(sized)[2] in statistics.strata(sized)[[0, 1, 3, 4, 5]]


def test_the_ceiling_is_the_best_that_a_prediction_can_reach():
    """Genes with true changes of spread 1 and errors of spread 1 per half: reliability 2/3 of the whole."""
    rng = np.random.default_rng(0)
    n, g = 400, 300
    truth = rng.normal(0, 0.1, g)
    kind = np.tile([1, 0], n // 2)
    # The mean of 100 members a half and of their matches has a spread of 0.1.
    noise = np.exp(rng.normal(0, np.sqrt(0.5), (n, g)) + np.outer(kind, truth) + 4)
    tile = np.repeat(np.arange(n // 4), 4)
    found = arena(noise, kind, tile=np.column_stack([tile, tile * 0]))
    own = halved(found, rng)
    reached = np.corrcoef(statistics.effects(found, found.exposure(), 1).change[0], truth)[0, 1]
    assert own["ceiling"] == pytest.approx(reached, abs=0.06)
    none = arena(np.exp(rng.normal(0, 0.7, (n, g)) + 4), kind, tile=found.tile)
    assert halved(none, rng)["ceiling"] < 0.35
    # On the ten most changed genes of one half; what nothing changed in agrees by chance alone.
    assert own["split_half_top"] > own["split_half"] + 0.1
    assert abs(halved(none, rng)["split_half_top"]) < 0.2


def halved(found, rng):
    return statistics.ceiling(statistics.half_effects(found, found.exposure(), 1, 50, rng))


def test_genes_chosen_in_one_half_are_scored_on_the_other():
    """Noise that a prediction has copied from one half counts where genes are chosen there, and not on the other."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, 400, 60))
    copied = np.array([statistics.by_halves(first, noise[:, i : i + 1]) for i, first in enumerate(noise[0])])
    same = [screen_question.score_top_genes(a, a)["pearson"] for a in noise[0]]
    assert np.mean(same) == pytest.approx(1)
    # Of the two ways one is the noise itself and the other knows nothing.
    assert copied.mean() == pytest.approx(0.5, abs=0.05)
    truth = rng.normal(size=60)
    halves = truth + 0.5 * noise
    top = np.argsort(-np.abs(halves[0]), axis=1)[:, :10]
    expected = np.mean([np.corrcoef(truth[t], b[t])[0, 1] for t, b in zip(top, halves[1], strict=True)])
    assert statistics.by_halves(truth, halves) == pytest.approx(expected, abs=0.03)
    assert statistics.by_halves(np.zeros(60), halves) == 0
    halves[:, 3] = np.nan
    assert np.isfinite(statistics.by_halves(truth, halves))
    assert np.isnan(statistics.by_halves(truth, halves * np.nan))


def poisson_arena(n, kind, means, seed):
    """Cells that are units of their own, with Poisson counts of given means and about 10,000 counts in all."""
    rng = np.random.default_rng(seed)
    found = arena(rng.poisson(means), kind, tile=rng.integers(0, 12, (n, 2)))
    return replace(found, depth=np.log1p(1e4) + rng.normal(0, 1e-5, n))


def test_a_spiked_change_is_found_with_the_power_that_is_said():
    """30 cells of Poisson counts of mean 20 against 30: the error of a change is 1.96 + .84 of sqrt(2 / 600) at 80
    %.
    """
    n, g, n_own = 600, 60, 30
    kind = (np.arange(n) % 20 == 0).astype(int)
    found = poisson_arena(n, kind, np.full((n, g), 20.0), 0)
    spiked = statistics.spiked(found, 1, 200, 0)
    # Thinning makes the counts of the matches fewer, and one may serve two cells.
    expected = 2.80 * np.sqrt(2 / (n_own * 20))
    assert np.median(spiked) == pytest.approx(expected, rel=0.15)
    # A real change of that size, in counts that were not thinned: found in four genes of five.
    limit = 1.96 / 2.80 * expected
    hits = []
    for seed in range(1, 9):
        means = np.where(kind[:, None] == 1, 20 * np.exp(np.median(spiked)), 20.0) * np.ones(g)
        own = poisson_arena(n, kind, means, seed)
        hits.append(np.abs(statistics.effects(own, own.exposure(), 1).change[0]) > limit)
    assert np.mean(hits) == pytest.approx(0.8, abs=0.06)
    # Four times the cells, half the change; a gene without counts is never found.
    more = statistics.spiked(replace(found, labels=(np.arange(n) % 5 == 0).astype(int)), 1, 200, 0)
    assert np.median(more) == pytest.approx(np.median(spiked) / 2, rel=0.2)
    rare = found.values * (np.arange(g) > 0)
    assert np.isinf(statistics.spiked(replace(found, values=rare), 1, 50, 0)[0])
    assert np.isnan(statistics.spiked(replace(found, labels=(np.arange(n) % 2).astype(int)), 1, 9, 0)).all()


def test_variance_components_are_those_that_made_the_scores():
    rng = np.random.default_rng(0)
    found = [
        statistics.variance_components(
            0.3 + 0.2 * rng.normal(size=(9, 1)) + 0.1 * rng.normal(size=(1, 5)) + 0.05 * rng.normal(size=(9, 5))
        )
        for _ in range(300)
    ]  # fmt: skip
    mean = {name: np.mean([one[name] for one in found]) for name in found[0]}
    assert mean == pytest.approx({"gene": 0.04, "seed": 0.01, "interplay": 0.0025}, rel=0.15)
    alone = statistics.variance_components(np.array([[0.1], [0.3]]))
    assert alone["gene"] == pytest.approx(0.02)
    assert np.isnan([alone["seed"], alone["interplay"]]).all()


def test_an_interval_over_tiles_holds_what_other_tissue_gives():
    """Noise as large as the effects, of which tiles drawn again count twice as much: their middle 95 % hold it in half.

    At this noise (correlation .69) the jackknife is a little wide: 97 % of 80.
    """
    rng, g, n = np.random.default_rng(0), 40, 120
    kind, truth = np.tile([1, 0], n // 2), rng.normal(0, 0.1, g)
    tile = np.repeat(np.arange(n // 4), 4)[:, None] * [1, 0]
    found, error = [], []
    for _ in range(40):
        values = np.exp(rng.normal(0, 0.4, (n, g)) + np.outer(kind, truth) + 4)
        own = arena(values, kind, tile=tile)
        found.append(statistics.row_correlations(statistics.effects(own, own.exposure(), 1).change, truth[None])[0])
        less = statistics.without_each_tile(own, [1])
        assert less.shape == (n // 4, 1, g)
        error.append(np.sqrt(statistics.jackknife_variance(statistics.row_correlations(less[:, 0], truth[None]))))
    missed = np.abs(np.array(found) - np.mean(found)) > 1.96 * np.array(error)
    assert missed.mean() <= 0.15
    assert np.mean(error) < 2 * np.std(found)
    # What stands in one tile has no error that could be told.
    lone = statistics.without_each_tile(arena(values[:10], [1, 0] * 5), [1])
    assert np.isnan(lone).all()
    assert np.isnan(statistics.jackknife_variance(lone)).all()


def test_the_dose_is_told_on_as_many_members_each():
    """A change of .1 for each carrier around, in counts so large that there is no noise to speak of."""
    dose = np.tile([1, 2, 3, 4], 40)
    kind = (np.arange(160) // 4 % 2).astype(int)
    means = 1e6 * np.exp(0.1 * dose * kind)[:, None] * np.ones(5)
    found = replace(poisson_arena(160, kind, means, 0), carriers=dose)
    made = statistics.by_dose(found, 1, 0)
    assert made["n_dose"] == 20
    assert [made[f"change_{d}"] for d in (1, 2)] == pytest.approx([0.1, 0.2], abs=0.01)
    assert 0.3 < made["change_3"] < 0.4
    few = statistics.by_dose(replace(found, carriers=np.where(dose == 1, 2, dose)), 1, 0)
    assert np.isnan(few["change_1"])


def test_genes_that_spill_would_show_in_are_those_of_tumour_cells():
    """K12: at six times the counts of recipients, and not at four. K11: carriers' neighbours may be siblings."""
    counts = np.array([[6, 4, 1]] * 3 + [[1, 1, 1]] * 3)
    place = np.array([[0, 0], [10, 0], [500, 0], [20, 0], [90, 0], [900, 0]], float)
    screen = screen_question.Screen(
        place, np.zeros(6, int), sparse.csr_matrix(counts), np.array(list("abc")),
        np.array([0, -1, -1, -1, -1, -1]), None, ("A",), np.arange(6) < 3, np.arange(6) >= 3, 30, 45,
    )  # fmt: skip
    assert screen.spilled_genes().tolist() == [True, False, False]
    # The carrier itself is alone; its neighbour and a recipient are near it.
    # A target whose carriers are no tumour cells has a place too.
    assert len(screen.clonality) == 2
    assert screen.near_any.tolist() == [False, True, False, True, False, False]


def test_cells_with_several_guides_are_no_cells_without_any():
    slide = simulate_screen(**SMALL, seed=0)
    slide.obs["n_guides_raw"] = (slide.obs["target_raw"] != "").astype(int)
    assert read_screen(slide).names == ("KO1", "KO2", "KO3")
    slide.obs.loc[slide.obs_names[:2], "n_guides_raw"] = 2
    with pytest.raises(InputError, match="2 cells have several guides"):
        read_screen(slide)


def test_sections_of_the_same_places_do_not_see_each_other(monkeypatch):
    """Of two screens in one coordinate system each keeps its neighbours, and its carriers when the map is moved."""
    slides = [simulate_screen(**SMALL, seed=seed) for seed in (0, 1)]
    both = concat(slides, keys=["b", "a"], label="sample", index_unique="-")
    screen, alone = read_screen(both), [read_screen(slide) for slide in slides]
    n = slides[0].n_obs
    for found in ("seen", "near_any", "tumour"):
        assert (getattr(screen, found) == np.concatenate([getattr(one, found) for one in alone])).all()
    assert screen.far.tolist() == [*alone[0].far, *n + alone[1].far]
    moved, build = [], statistics.build_arena
    monkeypatch.setattr(statistics, "build_arena", lambda *told: moved.append(told[0][told[1]]) or build(*told))
    screen.shifted_sizes(3, 0)
    inside = [screen.place[screen.section == s] for s in range(2)]
    for places in moved:
        held = [((own.min(axis=0) <= places) & (places <= own.max(axis=0))).all(axis=1) for own in inside]
        assert (held[0] ^ held[1]).all()
        assert [h.sum() > 0.3 * len(places) for h in held] == [True, True]


# --- levels ---------------------------------------------------------------------------------------------------------


def rejections(p):
    p = np.asarray([x for x in p if np.isfinite(x)])
    return int((p <= 0.05).sum()), len(p)


def keeps_its_level(p):
    k, n = rejections(p)
    return n > 50 and stats.binom.ppf(0.001, n, 0.05) <= k <= stats.binom.ppf(0.999, n, 0.05)


def test_permuted_clones_keep_their_level_where_regions_differ_and_single_cells_do_not():
    """Large clones, half their guides missed, strong regions; resources/SCREEN.md has the rates of 200 screens."""
    p = {"clones": [], "cells": [], "pseudo": []}
    for number, screen in enumerate(screens(40, region_effect=0.8, clone_size=6.0, n_cells=4500)):
        for target in (1, 2, 3):
            own = screen.arena.only(0, target)
            exposure = own.exposure()
            observed = statistics.effects(own, exposure, target).size[0]
            rng = np.random.default_rng((number, target))
            labels = statistics.permuted_labels(own, statistics.strata(own), 79, rng)
            null = statistics.in_parts(own, labels, target).size
            p["clones"].append(statistics.empirical_p(observed, null))
            mixed = np.stack([rng.permutation(exposure[0]) for _ in range(79)])
            p["cells"].append(statistics.empirical_p(observed, statistics.effects(own, mixed, target).size))
    assert keeps_its_level(p["clones"])
    k, n = rejections(p["cells"])
    assert k / n > 0.5


def test_what_is_asked_of_predictions_keeps_its_level():
    """K3c, the agreement against permuted clones, and all conditions at once, of predictions that know nothing."""
    p = {"p_wrong_target": [], "p_clones": [], "p_joint": []}
    of_targets = []
    for number, screen in enumerate(screens(60, first=500)):
        found = [statistics.assess(screen.arena, k, 19, number, splits=4) for k in (1, 2, 3)]
        if any(one.row["status"] != "tested" for one in found):
            continue
        observed = np.stack([one.change for one in found])
        of_targets += [one.row["p_joint"] for one in found]
        null = statistics.joint_null(screen.arena, [1, 2, 3], 39, number)
        predicted = np.random.default_rng(number).normal(size=observed.shape)
        scored = screen_question.score_corrected(observed, predicted, 0 * predicted, null, number, 99)
        for name, values in p.items():
            values.append(scored[name])
    # Three targets have six orders: one of them is p = 1/6, so only the permuted clones can reject at 0.05.
    assert keeps_its_level(p["p_clones"])
    assert keeps_its_level(p["p_joint"])
    assert keeps_its_level(of_targets)
    assert np.mean(np.array(p["p_wrong_target"]) <= 0.25) < 0.4


# --- verdicts -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strong():
    """Strong effects on many recipients."""
    knobs = {"n_cells": 5000, "n_targets": 4, "clones_per_target": 30, "spillover": 2.0}
    return read_screen(simulate_screen(**knobs, depth=200, n_genes=40, seed=2))


def test_an_effect_is_found_and_none_is_not_resolvable(strong):
    found = [statistics.assess(strong.arena, k, 199, 0) for k in range(1, 5)]
    table = statistics.rows_of(found, relevant=0.2)
    assert (table["verdict"] == "effect").sum() >= 3
    assert table["ceiling"].min() > 0.5
    assert (table["p_joint"] <= 0.02).sum() >= 3
    assert (table["movable"] == 1).all()
    nothing = next(screens(1, first=8))
    table = statistics.rows_of([statistics.assess(nothing.arena, k, 99, 0) for k in (1, 2, 3)], 0.2)
    assert set(table["verdict"]) == {"not resolvable from this section"}
    # Where an effect of that size would have been seen, its absence is a finding.
    table = statistics.rows_of([statistics.assess(nothing.arena, k, 99, 0) for k in (1, 2, 3)], 5.0)
    assert set(table["verdict"]) == {"no effect of 5 or more in 95 % of genes"}


def test_the_absence_of_an_effect_takes_a_bound_on_nearly_all_genes():
    row = {"status": "tested", "q_clones": 0.3, "p_clones": 0.2, "detectable": 0.1, "bound": 0.19, "ceiling": 0.5}
    assert statistics.verdict(row, 0.2) == "no effect of 0.2 or more in 95 % of genes"
    unclear = "not resolvable from this section"
    # One gene in ten that may have changed; a test that would reject by itself; too few clones to bound anything.
    assert statistics.verdict(row | {"bound": 0.21}, 0.2) == unclear
    assert statistics.verdict(row | {"p_clones": 0.005, "q_clones": 0.051}, 0.2) == unclear
    assert statistics.verdict(row | {"bound": np.nan}, 0.2) == unclear
    alone = row | {"q_clones": 0.01, "ceiling": np.nan}
    assert statistics.verdict(alone, 0.2) == f"{unclear}: it differs, but there are no halves to compare"
    assert statistics.verdict(alone | {"ceiling": 0.1}, 0.2).endswith("but its halves do not agree")


def test_what_no_control_units_can_tell_is_not_known():
    """Half the units are the target's: there are no sets of as many control units to compare with."""
    values = np.random.default_rng(0).gamma(9, 1, (24, 6))
    row = statistics.assess(arena(values, [1, 0] * 12), 1, 29, 0, 4).row
    assert row["status"] == "tested"
    assert np.isnan([row["detectable"], row["above"], row["bound"]]).all()
    known = statistics.assess(arena(values, [1, 0, 0, 0] * 6), 1, 29, 0, 4).row
    assert 0 <= known["above"] <= 1
    assert known["bound"] > known["detectable"] * 1.645 / 2.80


def test_the_agreement_is_held_against_the_statistic_of_its_null():
    """Effects as permuted have other matches than those observed: a p of two statistics has no level."""
    rng = np.random.default_rng(0)
    null, predicted = rng.normal(size=(20, 4, 30)), rng.normal(size=(4, 30))
    null[0] = -predicted
    scored = screen_question.score_corrected(predicted, predicted, 0 * predicted, null, 0, 9)
    assert scored["p_clones"] == 1


def test_a_draw_without_a_slope_helps_no_dose(monkeypatch):
    found = replace(arena(np.ones((24, 6)), [1, 0, 0, 0] * 6), carriers=np.tile([1, 2], 12))
    slopes, doses = iter([np.array([0.5]), np.array([np.nan, 0.4, np.nan])]), []
    monkeypatch.setattr(statistics, "_slopes", lambda *told: doses.append(told[3]) or next(slopes))
    assert statistics.dose_slope(found, 1, 3, 0)["p_dose"] == 0.75
    assert [dose.tolist() for dose in doses] == [[0, 1] * 12] * 2


def test_many_draws_are_not_held_at_once(monkeypatch):
    """No step holds all permuted labels at the edges, and in parts they give what they give at once."""
    found = arena(np.random.default_rng(0).gamma(9, 1, (48, 6)), [1, 0, 0, 0] * 12)
    found = replace(found, carriers=np.tile([1, 2, 3], 16))
    exposure, at_once = statistics.Arena.exposure, []

    def watched(own, labels=None):
        made = exposure(own, labels)
        at_once.append(len(made))
        return made

    monkeypatch.setattr(statistics.Arena, "exposure", watched)

    def every():
        at_once.clear()
        return [statistics.dose_slope(found, 1, 40, 0), statistics.assess(found, 1, 40, 0, 4).row]

    whole = every()
    assert max(at_once) == 41
    monkeypatch.setattr(statistics, "_DRAWS_AT_ONCE", 7)
    assert every() == whole
    assert max(at_once) == 7


def test_draws_of_two_arenas_with_one_target_are_told_apart():
    found = arena(np.random.default_rng(0).gamma(9, 1, (48, 6)), [1, 0, 0, 0] * 12)
    here, there = (statistics.assess(found, 1, 99, 0, 4, *tag).row for tag in ((), ("carriers",)))
    assert here["size"] == there["size"]
    for name in ("z_clones", "detectable", "split_half"):
        assert here[name] != there[name]


def test_few_clones_are_not_testable():
    screen = next(screens(1, clones_per_target=1))
    row = statistics.rows_of([statistics.assess(screen.arena, 1, 99, 0)], 0.2).iloc[0]
    assert row["verdict"].startswith("not testable")


def test_the_verdict_needs_every_control():
    passed = {
        "p_wrong_target": 0.01,
        "p_clones": 0.01,
        "over_others_low": 0.1,
        "over_twin_low": 0.1,
    }
    assert statistics.prediction_verdict(passed, 0.6) == "predicted"
    assert statistics.prediction_verdict(passed, 0.2) == "not resolvable from this section"
    assert statistics.prediction_verdict(passed, np.nan) == "not resolvable from this section"
    for name in passed:
        spoilt = passed | {name: 0.06 if name.startswith("p_") else -0.01}
        assert statistics.prediction_verdict(spoilt, 0.6).startswith("no better than")


def test_the_truth_is_recognised_as_a_prediction_and_other_targets_are_not(strong):
    codes = range(1, 5)
    observed = np.stack(
        [statistics.effects(strong.arena.only(0, k), strong.arena.only(0, k).exposure(), k).change[0] for k in codes]
    )
    null = statistics.joint_null(strong.arena, list(codes), 99, 0)
    right = screen_question.score_corrected(observed, observed + 0.1, 0 * observed, null, 0, 999)
    assert right["pearson"] == pytest.approx(1)
    assert right["p_clones"] <= 0.02
    assert right["over_twin_low"] > 0
    assert right["over_others_low"] > 0
    assert right["p_joint"] <= 0.02
    # One condition that fails is enough: a twin that says as much.
    same = screen_question.score_corrected(observed, observed + 0.1, observed, null, 0, 99)
    assert same["p_over_twin"] > 0.05
    assert same["p_joint"] > 0.05
    assert right["p_over_twin"] <= 0.02
    assert right["p_over_others"] <= 0.05
    wrong = screen_question.score_corrected(observed, observed[[1, 2, 3, 0]], 0 * observed, null, 0, 999)
    assert wrong["matched"] < right["matched"]
    assert wrong["p_wrong_target"] > 0.05
    assert wrong["p_joint"] > 0.05


def test_conditions_together_are_as_rare_as_p_says_and_as_good_as_the_worst():
    rng = np.random.default_rng(0)
    p = []
    for _ in range(1000):
        # Three conditions that depend on each other, in units of their own.
        evidence = rng.normal(size=(100, 3)) @ [[1, 0.5, 0], [0, 1, 0.5], [0, 0, 1]]
        p.append(statistics.joint_p(np.exp(evidence) * [1, 1e3, 1e-3]))
    assert rejections(p)[0] / 1000 == pytest.approx(0.05, abs=0.015)
    best = np.arange(10.0, 0, -1)
    assert statistics.joint_p(np.column_stack([best, best])) == 0.1
    # Three draws are fourth or better in both, as the first row now is.
    spoilt = np.append(best[3], best[1:])
    assert statistics.joint_p(np.column_stack([best, spoilt])) == 0.4
    # Sums that differ by rounding alone say nothing; nor does what is not known.
    assert statistics.joint_p(np.column_stack([best, 1e-12 * best])) == 1
    assert np.isnan(statistics.joint_p(np.column_stack([best, best * np.nan])))


def test_dose_and_shifted_carriers(strong):
    assert statistics.dose_slope(strong.arena, 1, 19, 0)["p_dose"] <= 1
    sizes = statistics.shifted_sizes(
        strong.place, strong.section, strong.carriers, strong.code[strong.carriers],
        np.flatnonzero(strong.recipient), strong.counts, strong.names, 9, 0, 30.0, None,
    )  # fmt: skip
    observed = [
        statistics.effects(strong.arena.only(0, k), strong.arena.only(0, k).exposure(), k).size[0] for k in range(1, 5)
    ]
    assert (np.array(observed) > np.median(sizes, axis=0)).all()


def test_small_tools():
    rows = np.arange(6.0).reshape(3, 2)
    assert statistics.others_mean(rows)[0] == pytest.approx(rows[1:].mean(axis=0))
    mean, low, high = statistics.paired_interval(np.array([1.0, 2, 3]))
    expected = stats.ttest_1samp([1.0, 2, 3], 0).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx((2, *expected))
    many = np.eye(8)
    found = statistics.wrong_target(many, many, 999, np.random.default_rng(0))
    assert found["p_wrong_target"] < 0.01
    assert found["matched"] > 1


# --- the authors' protocol --------------------------------------------------------------------------------------------


def test_as_run_scores_the_ten_most_changed_genes():
    observed = np.zeros((2, 30))
    observed[:, :10] = np.linspace(1, 2, 10)
    observed[1] *= -1
    predicted = np.where(observed != 0, observed, 100.0)
    rows = screen_question.score_as_run(observed, predicted, np.ones((2, 30)))
    full = [r for r in rows if r["truth"] == "full" and r["donors"] == "target"]
    assert [r["pearson"] for r in full] == pytest.approx([1, 1])
    assert [r["sign_agreement"] for r in full] == [1, 1]
    assert full[0]["rmse"] == pytest.approx(0)
    drawn = [r["pearson"] for r in rows if r["donors"] == "random"]
    assert drawn == [0] * 4
    own, other, p = screen_question.authors_test(rows, "full")
    assert (own, other) == pytest.approx((1, 0))
    assert p == pytest.approx(0.25)


def test_as_run_a_recipient_sees_the_carriers_among_its_nearest_cells():
    place = np.column_stack([[0, 1, 2, 3, 50, 90, 200, 204], np.zeros(8)])
    code = np.array([-1, 1, -1, 0, -1, 1, -1, 0])
    counts = sparse.csr_matrix(np.ones((8, 2)))
    screen = screen_question.Screen(
        place, np.zeros(8, int), counts, np.array(["a", "b"]), code, None, ("A",), code >= 0,
        np.isin(np.arange(8), [0, 4, 6]), 3.5, 45,
    )  # fmt: skip
    # Within the radius both stand around the first; the others are alone.
    assert screen.seen.tolist() == [-1] * 8
    # Of two nearest cells the first sees one carrier, of three both; another is 40 um off, and cells are no carriers.
    assert replace(screen, nearest=2).seen.tolist() == [1, -1, -1, -1, 1, -1, 0, -1]
    assert replace(screen, nearest=3).seen.tolist() == [-1, -1, -1, -1, 1, -1, 0, -1]
    assert replace(screen, nearest=3, far_um=39).seen.tolist() == [-1] * 6 + [0, -1]


def test_far_recipients_are_matched_by_depth():
    counts = np.array([[1.0, 1], [8, 8], [2, 2], [100, 0], [7, 9]])
    screen = screen_question.Screen(
        np.zeros((5, 2)), np.zeros(5, int), sparse.csr_matrix(counts), np.array(["a", "b"]), np.full(5, -1), None,
        ("A",), np.zeros(5, bool), np.ones(5, bool), 30, 45,
    )  # fmt: skip
    # Of depths 16 and 100 the near cell of 16 is matched to that of 16.
    change = screen_question.against_far(screen, np.array([4]), np.array([1, 3]))
    expected = np.log1p([7 / 16 * 1e4, 9 / 16 * 1e4]) - np.log1p([5e3, 5e3])
    assert change == pytest.approx(expected)
