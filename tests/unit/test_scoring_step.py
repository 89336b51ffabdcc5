"""What the scoring step compares with what: the right cells, the right twin, the right training cells."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from slides import small_slide
from tasks import NAMES, Question
from tissue_counterfactuals.metrics import METRICS, Interval, Noise, Reference
from tissue_counterfactuals.metrics.fold import FoldScorer
from tissue_counterfactuals.metrics.populations import mean_expression, overdispersion
from tissue_counterfactuals.models.cellina import Cellina
from tissue_counterfactuals.question.folds import Fold, cells_of, split_cells
from tissue_counterfactuals.question.predictions import read_predictions
from tissue_counterfactuals.question.support import support_of
from tissue_counterfactuals.simulate import simulate_tissue

N_DEG = 8
METHODS = ("no_change", "mean_shift", "ceiling", "target_mean", "cellina_ablated")


@pytest.fixture(scope="module")
def slide():
    # More genes than principal components, or any rotation of all genes would do.
    return small_slide(n_cells=500, n_genes=60)


@pytest.fixture(scope="module")
def scored(slide, tmp_path_factory):
    """Predictions, and their scores by method, variant and metric."""
    question = Question(tmp_path_factory.mktemp("q"), slide, cellina={"epochs": 4})
    made = question.predict(*METHODS)
    return question, made, question.score(N_DEG)


def values(table, method, variant):
    rows = table[(table["method"] == method) & (table["variant"] == variant)]
    return rows.set_index("metric")["value"].replace("", "nan").astype(float)


def reference(slide, question, target=None, train=None):
    target = cells_of(slide, "A", "right") if target is None else target
    train = split_cells(slide, question.fold).train if train is None else train
    control = slide.X[cells_of(slide, "A", "left")]
    return Reference(control, slide.X[target], train=slide.X[train], n_deg=N_DEG)


def agree(found, expected):
    expected = pd.Series(expected)
    return np.allclose(found[expected.index], expected, rtol=1e-4, atol=1e-5, equal_nan=True)


def test_components_are_fitted_on_the_training_cells_alone(slide, scored):
    question, made, table = scored
    predicted = made["mean_shift", "right", "-"]
    found = values(table, "mean_shift", "-")
    assert agree(found, reference(slide, question).score(predicted))
    split = split_cells(slide, question.fold)
    for others in (np.ones(slide.n_obs, bool), split.train | split.held_out, ~split.held_out):
        assert not agree(found, reference(slide, question, train=others).score(predicted))


def test_the_ceiling_is_scored_against_the_half_that_it_has_not_seen(slide, scored):
    question, made, table = scored
    prediction = made["ceiling", "right", "-"]
    target = cells_of(slide, "A", "right")
    rows = table[table["method"] == "ceiling"]
    n_own, n_other = len(prediction), len(target) - len(prediction)
    assert set(rows["n_predicted"].astype(int)) == {n_own}
    assert set(rows["n_target"].astype(int)) == {n_other}
    assert set(table.loc[table["method"] != "ceiling", "n_target"].astype(int)) == {len(target)}
    own = {tuple(cell) for cell in prediction}
    others = [cell for cell in target if tuple(slide.X[[cell]].toarray()[0]) not in own]
    assert len(others) == n_other
    found = values(table, "ceiling", "-")
    assert agree(found, reference(slide, question, np.array(others)).score(prediction))
    assert not agree(found, reference(slide, question).score(prediction))


def test_a_counterfactual_is_scored_against_its_own_twin(slide, scored):
    question, made, table = scored
    against = reference(slide, question)
    for method in METHODS:
        for variant in set(table.loc[table["method"] == method, "variant"]):
            found = values(table, method, variant)
            if (method, variant) == ("cellina_ablated", "published"):
                twin = made[method, "right", "no_intervention"]
                expected = against.unbiased_scores(made[method, "right", variant], twin)
                assert agree(found, expected)
                assert expected.keys() >= {"pearson_twin", "rmse_lfc_twin", "signed_precision_twin"}
            else:
                # Nobody else has a twin, and the twin itself least of all.
                assert not {name for name in found.index if "twin" in METRICS[name].needs}


def test_a_prediction_gets_the_counting_noise_that_it_lacks_and_no_more(slide, scored):
    question, made, table = scored
    task = question.task
    own = (slide.obs["cell_type"] == "A").to_numpy() & task.split.train
    groups = [own & (slide.obs["domain"] == name).to_numpy() for name in ("left", "right")]
    observed = Noise(overdispersion(slide.X[group].tocsr() for group in groups if group.any()))
    modelled = Noise(Cellina.load(question.folder / "cellina_ablated/model.pt", "cpu").dispersion)
    against, kept = reference(slide, question), Noise(None)
    for method, noise in {
        "target_mean": observed,  # says nothing of its scatter
        "cellina_ablated": modelled,
        "mean_shift": kept,  # moves observed counts
    }.items():
        variant = "published" if method == "cellina_ablated" else "-"
        found = values(table, method, variant)
        for other in (observed, modelled, kept):
            scores = against.unbiased_scores(made[method, "right", variant], noise=other)
            same = scores["e_distance_noisy"] == pytest.approx(found["e_distance_noisy"], rel=1e-4)
            assert same == (other is noise), method


def test_changes_beyond_the_mean_over_types_are_measured_from_the_other_types_training_cells(slide, scored):
    question, made, table = scored
    train = question.task.split.train
    types, domain = slide.obs["cell_type"], slide.obs["domain"]
    changes = []
    for other in set(types) - {"A"}:
        means = [
            mean_expression(sparse.csr_array(slide.X[(train & (types == other) & (domain == name)).to_numpy()]))
            for name in ("right", "left")
        ]
        changes.append(np.log1p(means[0]) - np.log1p(means[1]))
    scores = reference(slide, question).unbiased_scores(
        made["mean_shift", "right", "-"], shared=np.mean(changes, axis=0)
    )
    found = values(table, "mean_shift", "-")["pearson_beyond_types"]
    assert found == pytest.approx(scores["pearson_beyond_types"], abs=1e-4)


def test_every_row_says_which_experiment_it_is_of(scored):
    question, _, table = scored
    notes = pd.read_csv(question.folder / "scores.diagnostics.tsv", sep="\t")
    for rows in (table, notes):
        for name, value in (NAMES | {"cell_type": "A"}).items():
            assert set(rows[name].astype(str)) == {str(value)}
    assert set(table["reason"]) == {""}


def test_how_far_the_question_is_stands_beside_the_scores(scored):
    question, *_ = scored
    notes = pd.read_csv(question.folder / "scores.diagnostics.tsv", sep="\t")
    told = notes[notes["method"] == "-"].set_index("name")
    assert set(told["variant"]) == {"published"}
    assert set(told["target"]) == {"right"}
    (expected,) = support_of(question.task, "right").values()
    assert told["value"].to_dict() == pytest.approx(vars(expected), rel=1e-5)


def test_control_cells_are_the_held_out_type_in_the_control_domain(slide, scored):
    _, made, table = scored
    focal = cells_of(slide, "A", "left")
    assert set(table["n_control"].astype(int)) == {len(focal)}
    assert np.array_equal(made["no_change", "right", "-"], slide.X[focal].toarray())
    own = values(table, "no_change", "-")
    assert own["rmse_lfc"] == pytest.approx(np.sqrt(np.mean(np.sort(_observed(slide) ** 2)[-N_DEG:])), rel=1e-4)


def _observed(slide):
    """Observed log-fold change (genes,) of the paper: natural logarithm, pseudocount 1, mean CP10K."""
    means = []
    for domain in ("right", "left"):
        counts = slide.X[cells_of(slide, "A", domain)].toarray().astype(float)
        means.append((counts / counts.sum(axis=1, keepdims=True) * 1e4).mean(axis=0))
    return np.log(means[0] + 1) - np.log(means[1] + 1)


def test_on_simulated_tissue_errors_to_the_truth_are_those_under_the_same_donors(tmp_path):
    slide = simulate_tissue(n_cells=900, n_genes=40, n_slides=1, seed=1)
    fold = Fold("type_0", "domain_0", ("domain_1",))
    rules = ("published", "matched")
    question = Question(tmp_path, slide, fold, donor_rules=rules, graph={"max_neighbors": 20})
    made = question.predict("no_change", "truth", "truth_in_place", "hierarchical")
    table = question.score(N_DEG)
    target, train = cells_of(slide, "type_0", "domain_1"), split_cells(slide, fold).train
    control = slide.X[question.task.focal]
    against = Reference(control, slide.X[target], train=slide.X[train], n_deg=N_DEG)
    means = {key[2]: mean_expression(v) for key, v in made.items() if key[0] == "truth"}
    for variant in (*rules, "no_intervention"):
        assert values(table, "truth", variant)["rmse_lfc_truth"] == pytest.approx(0, abs=1e-6)
    # What was given no donors is compared under the first rule.
    expected = against.unbiased_scores(control, truths={"truth": means["published"]})
    other = against.unbiased_scores(control, truths={"truth": means["matched"]})
    found = values(table, "no_change", "-")["rmse_lfc_truth"]
    assert found == pytest.approx(expected["rmse_lfc_truth"], rel=1e-4)
    assert found != pytest.approx(other["rmse_lfc_truth"], rel=1e-3)
    in_place = values(table, "truth_in_place", "-")
    assert in_place["rmse_lfc_truth_in_place"] == pytest.approx(0, abs=1e-6)
    # The scatter of the truth is that of the simulator, its twin's too.
    noise = Noise(slide.var["simulation_overdispersion"].to_numpy())
    for variant in ("published", "no_intervention"):
        drawn = against.unbiased_scores(made["truth", "domain_1", variant], noise=noise)["e_distance_noisy"]
        assert values(table, "truth", variant)["e_distance_noisy"] == pytest.approx(drawn, rel=1e-4)
    # What a method says of its own error is scored, and nobody else has such scores.
    with read_predictions(question.folder / "predictions.h5ad") as predictions:
        (told,) = [i for i in predictions.notes["intervals"] if i["variant"] == "published"]
    interval = Interval(*(np.array(told[key]) for key in Interval._fields))
    expected = against.unbiased_scores(made["hierarchical", "domain_1", "published"], interval=interval)
    found = values(table, "hierarchical", "published")
    for name in ("coverage", "interval_width"):
        assert found[name] == pytest.approx(expected[name], rel=1e-4)
        assert set(table.loc[table["metric"] == name, "method"]) == {"hierarchical"}
    assert values(table, "no_change", "-")["rmse_lfc_truth_in_place"] > 0.01


def test_other_target_cells_of_the_same_number_are_another_reference(slide, scored):
    question, *_ = scored
    fold = FoldScorer(question.task, {}, N_DEG)
    target = cells_of(slide, "A", "right")
    half = len(target) // 2
    first, second = fold.reference(target[:half]), fold.reference(target[half : 2 * half])
    for found, cells in ((first, target[:half]), (second, target[half : 2 * half])):
        assert (found.target != slide.X[cells]).nnz == 0
    # What depends on these cells alone is computed once.
    assert fold.reference(target[:half]) is first
