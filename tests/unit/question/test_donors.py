"""Donor rules: who may stand around a focal cell after the edge perturbation."""

from dataclasses import replace

import numpy as np
import pytest

from slides import small_slide
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.graph import neighborhood_features, slide_graph
from tissue_counterfactuals.question.donors import DONOR_RULES, edge_perturbation
from tissue_counterfactuals.question.folds import Fold, cells_of, split_cells
from tissue_counterfactuals.slide import log_normalize


@pytest.fixture(scope="module")
def scene():
    slide = small_slide(n_cells=800)
    fold = Fold("A", "left", ("right",))
    return slide, slide_graph(slide, max_neighbors=30), split_cells(slide, fold)


def moved(scene, rule, **options):
    slide, graph, split = scene
    focal = cells_of(slide, "A", "left")
    return edge_perturbation(slide, graph, split, "A", "right", focal, rule, **options)


def test_published_donors_are_the_other_neighbours_of_held_out_cells(scene):
    slide, graph, _ = scene
    neighbors = np.unique(graph[cells_of(slide, "A", "right")].indices)
    obs = slide.obs.iloc[neighbors]
    everywhere = neighbors[(obs["cell_type"] != "A").to_numpy()]
    here = everywhere[(slide.obs["domain"].iloc[everywhere] == "right").to_numpy()]
    as_run = moved(scene, "published", restrict_to_domain=False).donors
    corrected = moved(scene, "published", restrict_to_domain=True).donors
    assert set(np.unique(as_run)) == set(everywhere)
    assert set(np.unique(corrected)) == set(here)
    assert len(here) < len(everywhere)


def test_any_type_takes_training_cells_of_the_target_domain(scene):
    slide, _, split = scene
    donors = np.unique(moved(scene, "any_type").donors)
    expected = np.flatnonzero((slide.obs["domain"] == "right").to_numpy() & ~split.held_out)
    assert set(donors) == set(expected)


def test_matched_donors_follow_the_composition_around_the_held_out_cells(scene):
    slide, graph, _ = scene
    donors = moved(scene, "matched", n_donors=100).donors
    types = slide.obs["cell_type"].to_numpy()
    around = graph[cells_of(slide, "A", "right")]
    share = {t: float(around[:, types == t].sum() / around.sum()) for t in "ABC"}
    found = {t: float((types[donors] == t).mean()) for t in "ABC"}
    assert found == pytest.approx(share, abs=0.02)
    assert found["A"] > 0.2


@pytest.mark.parametrize("n_donors", [100, 400])
def test_no_cell_is_a_donor_of_its_own_and_all_others_of_its_type_can_be(scene, n_donors):
    slide, _, _ = scene
    asked = moved(scene, "matched", n_donors=n_donors)
    assert not (asked.donors == asked.focal[:, None]).any()
    # Held-out cells give none, so donors of the type are focal cells: each of them, for one or another.
    own = asked.donors[(slide.obs["cell_type"] == "A").to_numpy()[asked.donors]]
    assert set(own) == set(asked.focal)


def test_a_focal_cell_that_is_alone_of_its_type_gets_donors_of_others(scene):
    slide, graph, split = scene
    focal = cells_of(slide, "A", "left")[:1]
    alone = replace(split, held_out=split.held_out | ((slide.obs["cell_type"] == "A").to_numpy()))
    alone.held_out[focal] = False
    donors = edge_perturbation(slide, graph, alone, "A", "right", focal, "matched").donors
    assert set(slide.obs["cell_type"].iloc[donors.ravel()]) == {"B", "C"}


def test_the_first_of_shuffled_donors_have_the_composition_of_all(scene):
    slide, _, _ = scene
    types = slide.obs["cell_type"].to_numpy()
    asked = moved(scene, "matched")
    first, again = (asked.shuffled(np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(np.sort(first), np.sort(asked.donors))
    np.testing.assert_array_equal(first, again)
    # Of each focal cell they are other places.
    assert len(np.unique(first[:, 0] == asked.donors[:, 0])) == 2
    for label in "ABC":
        assert (types[first[:, :5]] == label).mean() == pytest.approx((types[asked.donors] == label).mean(), abs=0.05)
    # Listed by type, the first five of them are of one.
    assert len({*types[asked.donors[:, :5]].ravel()}) == 1


@pytest.mark.parametrize("rule", DONOR_RULES)
def test_held_out_cells_are_never_donors_and_seeds_decide(scene, rule):
    _, _, split = scene
    first, same, other = (moved(scene, rule, seed=s).donors for s in (0, 0, 1))
    assert not split.held_out[first].any()
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("rule", ["published", "any_type"])
def test_donors_of_a_cell_are_different_cells(scene, rule):
    donors = moved(scene, rule).donors
    assert donors.shape == (len(cells_of(scene[0], "A", "left")), 50)
    assert all(len(set(row)) == 50 for row in donors)


def test_new_features_are_the_plain_mean_of_the_donors(scene):
    slide = scene[0]
    perturbation = moved(scene, "published")
    expression = log_normalize(slide.X)
    features = neighborhood_features(perturbation.graph(slide.n_obs), expression)
    expected = np.stack([expression.toarray()[row].mean(axis=0) for row in perturbation.donors])
    assert np.allclose(features, expected, atol=1e-6)


def test_too_few_donors_and_unknown_rules_are_refused(scene):
    with pytest.raises(InputError, match=r"donor rule 'published' finds \d+ donors, and 5000"):
        moved(scene, "published", n_donors=5000)
    # All that there are can be drawn.
    every = np.unique(moved(scene, "any_type", n_donors=50).donors)
    assert (np.sort(moved(scene, "any_type", n_donors=len(every)).donors, axis=1) == every).all()
    with pytest.raises(InputError, match="donor_rules holds 'nearest'"):
        moved(scene, "nearest")
