"""How far a question is from what was seen: it ranks the true error, and knows what it has seen."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from slides import small_slide
from tasks import SECTIONS, make_task
from tissue_counterfactuals.experiments import trust
from tissue_counterfactuals.question import support
from tissue_counterfactuals.question.nodes import NodePerturbation
from tissue_counterfactuals.question.question import DONORS, Question
from tissue_counterfactuals.question.support import support_of
from tissue_counterfactuals.question.task import Task

KNOBS = {"n_cells": 1000, "n_genes": 60, "effect_size": 1.2, "n_slides": 1}
ASKED = {
    "n_donors": 30,
    "reaches": [0, 0.7, 1.5, 3],
}


def test_support_ranks_the_true_error():
    """Over tissues and donors that lead further and further away, by two methods that know nothing of each other."""
    rows = []
    for seed in range(3):
        task = trust.ask_far(KNOBS, seed, ASKED)
        rows += trust.answer(task, {m: SECTIONS[m] for m in ("ridge", "hierarchical")})[0]
    table = pd.DataFrame(rows)
    assert set(table["status"]) == {"ok"}
    for method, own in table.groupby("method"):
        assert stats.spearmanr(own["inside"], own["error"]).statistic <= -0.6, method
        assert stats.spearmanr(own["distance"], own["error"]).statistic >= 0.6, method


def asked(slide, donors) -> Task:
    task = make_task(slide, n_donors=10)
    question = task.question
    told = {(DONORS, "right", "mine"): donors(task)}
    return Task(
        slide,
        Question(question.fold, question.split, question.focal, told, "corrected", 0, question.switches, question.graph,
        question.fingerprint),
    )  # fmt: skip


def test_neighbourhoods_that_were_seen_are_inside_and_others_are_not():
    slide = small_slide(n_cells=900, n_genes=30)

    def real(task):
        """To stand where a training cell stands: 30 of its neighbours."""
        train = np.flatnonzero(~task.split.held_out)
        rng = np.random.default_rng(0)
        at = task.masked_graph[rng.choice(train, len(task.focal))]
        return np.stack([at.indices[a:b][:30] for a, b in zip(at.indptr, at.indptr[1:], strict=False)])

    (seen,) = support_of(asked(slide, real), "right").values()
    assert seen.inside > 0.85
    assert seen.distance < 1.2

    def extreme(task):
        """The cells with most of one gene."""
        most = np.argsort(-slide.X[:, [3]].toarray().ravel())[:10]
        return np.tile(most, (len(task.focal), 1))

    (far,) = support_of(asked(slide, extreme), "right").values()
    assert far.inside < 0.05
    assert far.distance > 1.5 * seen.distance
    assert far.inside_type < 0.05


@pytest.mark.parametrize("dimensions", [3, 10])
def test_neighbourhoods_like_those_of_training_are_inside_as_often_as_it_says(dimensions):
    rng, found = np.random.default_rng(0), []
    for _ in range(10):
        seen = rng.normal(size=(1000, dimensions))
        reference = support._Reference.of(seen, rng.random(1000) < 0.5)
        found.append(reference.place(rng.normal(size=(1000, dimensions))))
    inside, distance = np.mean(found, axis=0)
    assert inside == pytest.approx(support.WITHIN, abs=0.012)
    assert distance == pytest.approx(1, abs=0.03)


def test_altered_neighbours_are_placed_too_and_reasons_are_not():
    slide = small_slide(n_cells=600, n_genes=30)
    task = make_task(slide, n_donors=10)
    n_types = len(slide.obs["cell_type"].cat.categories)
    question = task.question
    for name, factor in (("same", 0.0), ("loud", 4.0)):
        node = NodePerturbation(np.full((n_types, slide.n_vars), factor) * (np.arange(slide.n_vars) < 8))
        question.perturbations["node", "right", name] = node
    question.perturbations[DONORS, "right", "none"] = "no donors"
    found = support_of(task, "right")
    assert "none" not in found
    assert found["same"].inside > 0.85
    assert found["loud"].inside == 0


def test_too_few_cells_have_no_support():
    slide = small_slide(n_cells=900, n_genes=20)
    task = asked(slide, lambda task: np.tile(np.arange(10), (len(task.focal), 1)))
    task.split.held_out[np.flatnonzero(~task.split.held_out)[19:]] = True
    (found,) = support_of(task, "right").values()
    assert np.isnan([found.inside, found.distance, found.inside_type]).all()


def test_how_well_two_groups_of_variables_go_together():
    rng = np.random.default_rng(0)
    x, half = rng.normal(size=(2000, 3)), rng.random(2000) < 0.5
    turned = x @ rng.normal(size=(3, 3)) + 5
    assert trust.canonical(x, turned, half) == pytest.approx(1, abs=1e-6)
    assert trust.canonical(x, rng.normal(size=(2000, 4)), half) < 0.1
    noisy = np.hstack([x[:, :1] + rng.normal(size=(2000, 1)), np.ones((2000, 1))])
    assert trust.canonical(x, noisy, half) == pytest.approx(np.sqrt(0.5), abs=0.06)
    # A latent that says nothing.
    assert np.isnan(trust.canonical(np.ones((2000, 2)), x, half))
