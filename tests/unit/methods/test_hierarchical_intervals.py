"""The method `hierarchical`: intervals that hold where truth is known, and what it leaves out where nothing is
known.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from slides import small_slide
from tasks import CELLINA, SECTIONS, make_task
from tissue_counterfactuals import protocols
from tissue_counterfactuals.graph import slide_graph
from tissue_counterfactuals.methods import cellina, hierarchical
from tissue_counterfactuals.models.hierarchical import FEWEST_TYPES
from tissue_counterfactuals.models.settings import CellinaSettings
from tissue_counterfactuals.question.asked import ask_own
from tissue_counterfactuals.question.folds import Fold
from tissue_counterfactuals.question.nodes import NodePerturbation
from tissue_counterfactuals.question.settings import UserQuestion
from tissue_counterfactuals.question.task import Task
from tissue_counterfactuals.simulate import simulate_tissue, true_counterfactual, true_expression
from tissue_counterfactuals.slide import normalize_counts

SETTINGS = SECTIONS["hierarchical"] | {"n_components": 6}


def asked(slide, fold, folder, **settings):
    node = {"shifts": ["node"], "n_genes": 50}
    task = make_task(slide, fold, settings=SETTINGS | settings, node=node, report=lambda line: None)
    hierarchical.fit(task, folder)
    return task, hierarchical.predict(task, folder, fold.targets[0])


def log_mean(counts):
    return np.log1p(np.asarray(normalize_counts(counts).mean(axis=0)).ravel())


@pytest.fixture(scope="module")
def leaving_each_type_out(tmp_path_factory):
    """Variant and fold: whether the true change lies in its interval (genes,), and the genes' mean expression."""
    inside, expression = {"published": [], "node": []}, []
    slide = simulate_tissue(n_cells=2500, n_genes=100, n_types=6, seed=1, n_slides=1)
    for label in slide.obs["cell_type"].cat.categories:
        fold = Fold(label, "domain_0", ("domain_1",))
        task, made = asked(slide, fold, tmp_path_factory.mktemp("fold"))
        there = log_mean(true_expression(slide, task.target_cells("domain_1")))
        here = log_mean(true_expression(slide, task.focal))
        for variant, found in inside.items():
            lower, upper = np.log1p(made[variant].interval) - log_mean(slide.X[task.focal])
            found.append((lower <= there - here) & (there - here <= upper))
        expression.append(here)
    return {variant: np.array(found) for variant, found in inside.items()}, np.array(expression)


@pytest.mark.parametrize("variant", ["published", "node"])
def test_intervals_hold_on_simulated_tissue(leaving_each_type_out, variant):
    inside, expression = leaving_each_type_out
    inside = inside[variant]
    assert 0.85 < inside.mean() < 0.95
    thirds = np.digitize(expression, np.quantile(expression, [1 / 3, 2 / 3]))
    for level in range(3):
        # Neighbours that are altered have wider intervals than they need among highly expressed genes.
        assert 0.85 < inside[thirds == level].mean() < (0.95 if variant == "published" else 0.97)
    # Folds are few genes' worth of independent errors, for genes of one fold are off together.
    assert np.mean(inside.mean(axis=1) > 0.8) >= 0.75


def ask_of(slide, graph, label, **keys):
    given = {"name": "q", "cell_type": label, "domain": "domain_0"} | keys
    told = UserQuestion.read(given).model_dump()
    return ask_own(slide, graph, told, "corrected", 0, protocols.resolve("corrected"), {}, 50, 0.1)


def answers(slide, question, folder):
    """Predictions by perturbation; the twin's are the last."""
    task = Task(slide, question, SETTINGS, device="cpu", report=lambda line: None)
    hierarchical.fit(task, folder)
    return hierarchical.predict(task, folder, *question.fold.targets)


def test_intervals_of_moved_cells_hold_on_simulated_tissue(tmp_path):
    """The true change among the very donors: of the population, and of each cell's expected share of the genes that
    change most.
    """
    inside, widths, together = [], [], []
    for seed in (3, 4):
        slide = simulate_tissue(n_cells=2500, n_genes=100, n_types=6, seed=seed, n_slides=1)
        graph = slide_graph(slide)
        for label in ("type_0", "type_1"):
            question = ask_of(slide, graph, label, move_to="domain_1")
            made, twin = answers(slide, question, tmp_path).values()
            (donors,) = question.perturbations.values()
            new, old = true_counterfactual(slide, question.focal, donors), true_expression(slide, question.focal)
            truth = np.log(new / new.sum(axis=1, keepdims=True) * old.sum(axis=1, keepdims=True) / old)
            lower, upper = np.log1p(made.interval) - log_mean(twin.values)
            change = log_mean(new) - log_mean(old)
            together.append(np.mean((lower <= change) & (change <= upper)))
            cells = made.per_cell
            error = np.abs(truth[:, cells["genes"]] - cells["change"])
            inside.append(np.mean(error <= cells["half"]))
            widths.append(np.median(cells["half"]) / truth.std())
    # Without how far donors may be from what stands there: 0.82, and 0.63.
    assert 0.85 < np.mean(together) < 0.97
    assert min(together) > 0.75
    # Types differ, as folds of populations do; none is covered by intervals that say nothing at all.
    assert 0.8 < np.mean(inside) < 0.96
    assert min(inside) > 0.6
    assert np.median(widths) < 3


def test_intervals_among_other_neighbours_hold_on_simulated_tissue(tmp_path):
    """The true change of the same donors; tests/bench/bench_answers.py asks more types of more tissues."""
    inside, half = [], []
    for seed, label, *kinds in ((1, "type_0", "type_1", "type_2"), (2, "type_1", "type_0", "type_2")):
        slide = simulate_tissue(n_cells=2500, n_genes=100, n_types=6, seed=seed, n_slides=1)
        graph = slide_graph(slide)
        there = slide.obs["cell_type"][(slide.obs["domain"] == "domain_1").to_numpy()].value_counts()
        keys = {"other": {"composition": there.to_dict()}, "added": {"add_sender": kinds[0], "share": 0.3}}
        keys |= {"two": {"composition": dict.fromkeys(kinds, 1)}}
        asked = {name: ask_of(slide, graph, label, **given) for name, given in keys.items()}
        # One fit for the three of them.
        told = {("donors", "domain_0", k): next(iter(q.perturbations.values())) for k, q in asked.items()}
        question = replace(asked["two"], perturbations=told)
        *made, twin = answers(slide, question, tmp_path).values()
        old = log_mean(true_expression(slide, question.focal))
        for prediction, donors in zip(made, told.values(), strict=True):
            truth = log_mean(true_counterfactual(slide, question.focal, donors)) - old
            lower, upper = np.log1p(prediction.interval) - log_mean(twin.values)
            inside.append(np.mean((lower <= truth) & (truth <= upper)))
            half.append(np.mean(upper - lower) / 2 / truth.std())
        # So have the errors by which gene sets are judged, which are those of shorter ways.
        near, _, far = (np.std(prediction.per_gene["error_0"]) for prediction in made)
        assert far > 1.5 * near
    assert 0.85 < np.mean(inside) < 0.98
    assert min(inside) > 0.75
    assert np.median(half) < 3


def test_a_benchmark_tells_nothing_of_single_cells(tmp_path):
    slide = simulate_tissue(n_cells=1500, n_genes=40, n_types=6, seed=1, n_slides=1)
    _, made = asked(slide, Fold("type_0", "domain_0", ("domain_1",)), tmp_path)
    assert made["published"].per_cell == {}


def test_a_prediction_lies_in_its_interval_and_the_twin_has_none(tmp_path):
    slide = simulate_tissue(n_cells=1500, n_genes=40, n_types=6, seed=1, n_slides=1)
    _, made = asked(slide, Fold("type_0", "domain_0", ("domain_1",)), tmp_path)
    prediction = made["published"]
    mean = np.expm1(log_mean(prediction.values))
    assert (prediction.interval[0] <= mean + 1e-3).all()
    assert (prediction.interval[1] >= mean - 1e-3).all()
    assert prediction.diagnostics["n_types_known"] == 5
    assert made["no_intervention"].interval is None


def test_few_cells_are_told_what_others_express_and_nothing_of_the_answer(tmp_path):
    """Of a type, 12 cells are left in its domain."""
    slide = simulate_tissue(n_cells=1500, n_genes=40, n_types=6, seed=1, n_slides=1)
    own = (slide.obs["cell_type"] == "type_1").to_numpy()
    here = np.flatnonzero(own & (slide.obs["domain"] == "domain_0").to_numpy())
    slide = slide[np.setdiff1d(np.arange(slide.n_obs), here[12:])].copy()
    task, made = asked(slide, Fold("type_1", "domain_0", ("domain_1",)), tmp_path)
    truth = log_mean(true_expression(slide, task.focal))
    twin, raw = (log_mean(x) for x in (made["no_intervention"].values, slide.X[task.focal]))
    assert np.mean((twin - truth) ** 2) < 0.85 * np.mean((raw - truth) ** 2)

    def share(label, factors):
        """Of another type, as if its cells in the target were not known, after those of a type there have changed."""
        counts, there = slide.X.toarray(), (slide.obs["domain"] == "domain_1").to_numpy()
        counts[there & (slide.obs["cell_type"] == label).to_numpy()] *= factors
        changed = replace(task, slide=slide.copy())
        changed.slide.X = sparse.csr_matrix(counts)
        focal = np.flatnonzero((slide.obs["cell_type"] == "type_0").to_numpy() & ~there)
        return hierarchical.likely_shares(changed)(focal[:12], ("domain_1",))

    factors = np.linspace(0, 4, 40)
    assert np.array_equal(share("type_0", factors), share("type_0", 1))
    assert not np.allclose(share("type_2", factors), share("type_2", 1))


def test_without_types_whose_answer_is_known_there_is_no_interval(tmp_path):
    _, made = asked(small_slide(n_cells=600), Fold("A", "left", ("right",)), tmp_path, min_cells=20)
    prediction = made["published"]
    assert prediction.diagnostics["n_types_known"] == 2 < FEWEST_TYPES
    assert prediction.interval is None


def test_the_form_mean_is_the_regression_without_the_noise_of_cells(tmp_path):
    """Cells of one type in one place are the same: then the form `mean` gives the type's mean, for every cell."""
    slide = small_slide(n_cells=600)
    fold = Fold("A", "left", ("right",))
    task, made = asked(slide, fold, tmp_path, form="mean", min_cells=20)
    twin = made["no_intervention"].values
    counts = slide.X[task.focal].toarray()
    share, own = (x / x.sum(axis=1, keepdims=True) for x in (twin, counts))
    np.testing.assert_allclose(share.mean(axis=0), own.mean(axis=0), atol=0.004)
    assert share.std(axis=0).mean() < 0.4 * own.std(axis=0).mean()
    np.testing.assert_allclose(twin.sum(axis=1), counts.sum(axis=1), rtol=1e-5)
    moved = made["published"].values / made["published"].values.sum(axis=1, keepdims=True)
    there = slide.X[task.target_cells("right")].toarray()
    there = (there / there.sum(axis=1, keepdims=True)).mean(axis=0)
    before, after = (np.abs(x.mean(axis=0) - there).sum() for x in (share, moved))
    assert after < 0.5 * before


def with_factors(task, gene, factor, senders=slice(None)):
    """The task, asked about altered neighbours in place of new ones."""
    n_types = len(task.slide.obs["cell_type"].cat.categories)
    shift = np.zeros((n_types, task.slide.n_vars), np.float32)
    shift[senders, gene] = np.log(factor) if factor else -np.inf
    asked = {("node", "left", "shift_genes"): NodePerturbation(shift, scale="counts")}
    stay = Fold("A", "left", ("left",))
    return replace(task, question=replace(task.question, fold=stay, perturbations=asked))


def log_change(made):
    """Of the cells' mean counts (genes,)."""
    return np.log(made["shift_genes"].values.mean(axis=0) / made["no_intervention"].values.mean(axis=0))


SOURCE, RESPONSE, FILLER, EFFECT = 0, 4, 5, 0.5


@pytest.fixture(scope="module")
def answering(tmp_path_factory):
    """A task in which one gene's rate is EFFECT times the first gene around a cell; every library holds 10,000
    counts.
    """
    slide = small_slide(n_cells=1500, n_genes=6)
    rng = np.random.default_rng(0)
    level = np.full((slide.n_obs, 6), 3.0)
    # What a cell receives must differ from place to place, for its effect to be learnt.
    level[:, SOURCE] += 2 * np.sin(slide.obsm["spatial"][:, 1] / 80)
    counts = rng.poisson(rng.lognormal(level, 0.5))
    around = make_task(slide).masked_graph
    received = around @ np.log1p(counts[:, SOURCE]) / np.maximum(around.sum(axis=1), 1e-12)
    counts[:, RESPONSE] = rng.poisson(100 * np.exp(EFFECT * received))
    counts[:, FILLER] = 10_000 - counts[:, :FILLER].sum(axis=1)
    slide.X = sparse.csr_matrix(counts.astype(np.float32))
    settings = SETTINGS | {"min_cells": 20}
    task = make_task(slide, n_donors=20, settings=settings, report=lambda line: None)
    folder = tmp_path_factory.mktemp("answering")
    hierarchical.fit(task, folder)
    return task, folder, received


def test_a_gene_knocked_out_in_neighbours_takes_its_effect_with_it(answering):
    task, folder, received = answering
    made = hierarchical.predict(with_factors(task, SOURCE, 0.0), folder, "left")
    change = log_change(made)
    without = -np.log(np.exp(EFFECT * received[task.focal]).mean())
    assert change[RESPONSE] == pytest.approx(without, rel=0.12)
    assert np.abs(change[SOURCE + 1 : RESPONSE]).max() < 0.3


def test_only_the_senders_of_the_type_are_altered(answering):
    task, folder, _ = answering
    one, two, every = (
        log_change(hierarchical.predict(with_factors(task, SOURCE, 0.0, who), folder, "left"))[RESPONSE]
        for who in ([0], [1, 2], slice(None))
    )
    assert 0 > one > two > every
    assert one + two == pytest.approx(every, rel=0.1)


def test_factors_of_1_change_nothing(answering, tmp_path):
    task, folder, _ = answering
    same = with_factors(task, SOURCE, 1.0)
    made = hierarchical.predict(same, folder, "left")
    np.testing.assert_allclose(made["shift_genes"].values, made["no_intervention"].values, rtol=1e-4)
    trained = replace(same, settings=CellinaSettings.read(CELLINA).model_dump(exclude={"time_limit_minutes"}))
    cellina.fit(trained, tmp_path)
    made = cellina.predict(trained, tmp_path, "left")
    np.testing.assert_array_equal(made["shift_genes"].values, made["no_intervention"].values)
    made = cellina.predict(with_factors(trained, SOURCE, 0.0), tmp_path, "left")
    assert (made["shift_genes"].values != made["no_intervention"].values).any()


def test_known_types_are_asked_about_their_own_altered_neighbours(tmp_path):
    """The held-out type stands in a corner: its neighbours are hardly those of the types that calibrate."""
    slide = simulate_tissue(n_cells=1500, n_genes=40, seed=2, n_slides=1)
    here, y = (slide.obs["domain"] == "domain_0").to_numpy(), slide.obsm["spatial"][:, 1]
    away = here & (slide.obs["cell_type"] == "type_0").to_numpy() & (y > np.quantile(y, 0.3))
    slide, widths = slide[~away].copy(), []
    for who in ("all", "neighbors"):
        node = {"shifts": ["node"], "n_genes": 40, "cells": who}
        fold, told = Fold("type_0", "domain_0", ("domain_1",)), {"settings": SETTINGS, "report": lambda line: None}
        task = make_task(slide, fold, node=node, **told)
        hierarchical.fit(task, tmp_path)
        lower, upper = np.log1p(hierarchical.predict(task, tmp_path, "domain_1")["node"].interval)
        widths.append(upper - lower)
    known = np.isfinite(widths).all(axis=0)
    assert known.sum() > 10
    # Cells of the same neighbourhood answer alike, and so they do in the types that are known.
    np.testing.assert_allclose(widths[1][known], widths[0][known], rtol=0.05)
