"""Metrics under test: planted scores of known worth, predictions of a tiny tissue, and the figure from files."""

import json

import numpy as np
import pandas as pd
import pytest

from drawings import PROVENANCE, texts
from slides import small_slide
from tasks import Question, make_task
from tissue_counterfactuals import protocols
from tissue_counterfactuals.metrics import calibration
from tissue_counterfactuals.metrics.calibration import PREDICTIONS, judge, predictions_of
from tissue_counterfactuals.question.folds import Fold, cells_of
from tissue_counterfactuals.results.figures import metrics_under_test as figure
from tissue_counterfactuals.simulate import simulate_tissue
from tissue_counterfactuals.slide import normalize_counts

SWITCHES = protocols.of_step(protocols.resolve("corrected"), "metrics")
# A metric of correlation that works, prediction by prediction.
GOOD = {
    "ceiling": 0.9, "truth": 0.92, "target_mean": 0.88, "truth_of_donors": 0.6, "mixture_0.75": 0.8,
    "mixture_0.5": 0.6, "mixture_0.25": 0.3, "twin": 0.2, "types": 0.5, "control": 0.0, "other_type": 0.1,
    "permuted": 0.05,
}  # fmt: skip


def planted(metric="pearson", folds=3, **changed):
    rows = [
        (f"fold {fold}", name, metric, value + 0.01 * fold)
        for fold in range(folds)
        for name, value in (GOOD | changed).items()
    ]
    return pd.DataFrame(rows, columns=["fold", *calibration.COLUMNS])


def verdict(table):
    (row,) = judge(table).to_dict("records")
    return row


def test_a_metric_is_calibrated_saturated_or_blind():
    good = verdict(planted())
    assert good["verdict"] == "calibrated"
    assert good["monotony"] == pytest.approx(1)
    assert good["dynamic_range"] == pytest.approx(np.mean([(0.9 - 0.1) / (0.9 - 0.01 * f) for f in range(3)]), abs=1e-4)
    assert good["place_other_type"] == pytest.approx(0.1 / 0.9)
    assert verdict(planted(other_type=0.5))["verdict"] == "saturated"
    assert verdict(planted(permuted=0.95))["dynamic_range"] < 0
    # A knowing prediction that loses, whichever it is.
    unknown = planted(target_mean=-0.1).query("prediction != 'truth'")
    assert PREDICTIONS["target_mean"] in verdict(unknown)["reason"]
    assert verdict(planted(target_mean=-0.1))["verdict"] == "calibrated"
    for name in ("ceiling", "truth"):
        found = verdict(planted(**{name: -0.1}))
        assert found["verdict"] == "blind"
        assert PREDICTIONS[name] in found["reason"]
    mixed = verdict(planted(**{"mixture_0.75": 0.1, "mixture_0.5": -0.2, "mixture_0.25": 0.95}))
    assert mixed["verdict"] == "blind"
    assert "monotony" in mixed["reason"]
    # Where lower is better, the same scores are the other way round.
    assert verdict(planted("rmse_lfc"))["verdict"] == "blind"
    errors = {name: 1 - value for name, value in GOOD.items()}
    assert verdict(planted("rmse_lfc", **errors))["place_other_type"] == pytest.approx(0.1 / 0.9)
    assert verdict(planted("rmse_lfc", **errors))["verdict"] == "calibrated"


def test_one_losing_fold_of_many_is_no_verdict_and_undefined_is_no_knowledge():
    table = planted(folds=20)
    lost = (table["fold"] == "fold 3") & (table["prediction"] == "truth")
    table.loc[lost, "value"] = -1
    assert verdict(table)["told_apart"] == pytest.approx(0.95)
    assert verdict(table)["verdict"] == "calibrated"
    table.loc[table["prediction"] == "truth", "value"] = np.nan
    assert verdict(table)["verdict"] == "blind"
    without = verdict(planted().query("prediction != 'truth'"))
    assert without["verdict"] == "calibrated"
    assert np.isnan(without["truth"])


def test_a_null_beyond_the_best_value_has_no_range():
    assert np.isnan(calibration.dynamic_range(0, 0.1, 0))
    assert calibration.dynamic_range(0.5, 0.5, 1) == 0
    assert calibration.dynamic_range(-5, 0.5, 1) == -1


@pytest.fixture(scope="module")
def tissue():
    return simulate_tissue(n_cells=900, n_genes=80, n_slides=1, seed=3)


def test_predictions_know_what_they_are_said_to_know(tissue):
    task = make_task(tissue, Fold("type_0", "domain_0", ("domain_1",)), n_donors=10)
    made, scored = predictions_of(task, "domain_1", None)
    assert set(made) == set(PREDICTIONS) - {"twin"}
    target, focal = (cells_of(tissue, "type_0", d) for d in ("domain_1", "domain_0"))
    assert set(made["ceiling"].cells) | set(scored) == set(target)
    for name, share in {"ceiling": 1, "control": 0, **calibration.MIXTURES}.items():
        cells = made[name].cells
        assert not set(cells) & set(scored)
        assert set(cells) <= {*target, *focal}
        assert np.isin(cells, target).mean() == pytest.approx(share, abs=0.5 / len(cells) + 1e-9)
        assert np.array_equal(made[name].values, tissue.X[cells].toarray())
    permuted, own = made["permuted"].values, made["ceiling"].values
    assert not np.array_equal(permuted, own)
    assert np.array_equal(np.sort(permuted, axis=1), np.sort(own, axis=1))
    # Every row of a mean is one profile, at the libraries of control cells: here the commonest other type's beside
    # them.
    profile = made["other_type"].values / made["other_type"].values.sum(axis=1, keepdims=True)
    there = tissue.obs["cell_type"][tissue.obs["domain"] == "domain_0"].astype(str)
    most = there[there != "type_0"].value_counts().index[0]
    cells = cells_of(tissue, most, "domain_0")
    expected = normalize_counts(tissue.X[cells[task.split.train[cells]]]).mean(axis=0)
    np.testing.assert_allclose(profile - np.ravel(expected / expected.sum()), 0, atol=1e-6)
    # Counts scatter about what is expected of a cell as they did when it was simulated.
    assert np.array_equal(made["truth"].dispersion, tissue.var["simulation_overdispersion"])
    again, _ = predictions_of(task, "domain_1", None)
    assert all(np.array_equal(made[k].values, again[k].values) for k in made)


def test_the_published_e_distance_is_blind_to_expected_counts_and_with_noise_it_is_not(tissue):
    fold = Fold("type_0", "domain_0", ("domain_1",))
    scores = calibration.score_fold(make_task(tissue, fold, n_donors=10), SWITCHES, 20, "domain_1")
    found = judge(scores.assign(fold="a")).set_index("metric")
    assert set(found.index) == set(calibration.JUDGED)
    assert found.loc["e_distance", "verdict"] == "blind"
    assert found.loc["e_distance", "truth"] > found.loc["e_distance", "control"] + 1
    assert found.loc["e_distance_noisy", "verdict"] == "calibrated"
    assert found.loc["e_distance_noisy", "truth"] < found.loc["e_distance_noisy", "control"] / 2


def test_nulls_of_the_authors_scorer_correlate_by_genes_that_the_control_lacks(tissue):
    """Their note on it: another type's control mean and permuted genes reach .93 and .98, because both changes share
    the control's share; over genes that any control cell shows they do not.
    """
    sparse = tissue.copy()
    lacking = np.random.default_rng(0).choice(sparse.n_vars, 15, replace=False)
    counts = sparse.X.tolil()
    counts[np.ix_(cells_of(sparse, "type_0", "domain_0"), lacking)] = 0
    sparse.X = counts.tocsr()
    fold = Fold("type_0", "domain_0", ("domain_1",))
    switches = protocols.of_step(protocols.resolve("as_run"), "metrics")
    scores = calibration.score_fold(make_task(sparse, fold, n_donors=10), switches, 20, "domain_1")
    found = judge(scores.assign(fold="a")).set_index("metric")
    for null in ("other_type", "permuted"):
        assert found.loc["pearson", null] > 0.9
        assert found.loc["pearson_in_control", null] < 0.6
    assert found.loc["pearson", "verdict"] == "saturated"


def test_a_slide_without_truth_is_judged_by_its_halves(tmp_path, monkeypatch):
    """From files, as the workflow does it; the twin is that of the method that was asked."""
    question = Question(tmp_path / "s", small_slide(n_cells=400, n_genes=30), cellina={"epochs": 2})
    question.predict("no_change", "cellina_ablated")
    places = [tmp_path / kind / "d" / "s" / "A" for kind in ("questions", "predictions")]
    for place in places:
        place.mkdir(parents=True)
    asked, made = places[0] / "corrected.seed0.npz", places[1] / "corrected.seed0/core.h5ad"
    made.parent.mkdir()
    question.file.rename(asked)
    (question.folder / "predictions.h5ad").rename(made)
    config = {"datasets": {"d": {"target_domains": ["right"]}}, "switches": {}, "metrics": {"n_deg": 8}}
    record = {
        "dataset": "d",
        "label": "d",
        "kind": "real",
        "n_cells": 9,
        "seeds": [0],
        "commit": "a",
        "config_hash": "b",
        "config": config,
    }
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps(record))
    inputs = {"slides": [question.slide], "questions": [asked], "predictions": [made], "manifest": manifest}
    output = {"tsv": tmp_path / "t.tsv", "png": tmp_path / "t.png"}
    figure.draw_files(inputs, output, "right", "corrected")
    table = pd.read_csv(output["tsv"], sep="\t").set_index("metric")
    assert set(table["verdict"]) <= set(figure.VERDICTS)
    assert table["truth"].isna().all()
    assert table["twin"].notna().any()
    assert output["png"].stat().st_size > 10_000
    # Of two folds each twin is named, whichever comes last.
    (fold,) = figure.tasks(inputs, "corrected.seed0", "right")
    twins, drawn = iter([("hierarchical", None), ("cellina", None), ("", None)]), []
    monkeypatch.setattr(figure, "tasks", lambda *_: [fold] * 3)
    monkeypatch.setattr(figure, "read_twin", lambda *_: next(twins))
    monkeypatch.setattr(figure.calibration, "judge", lambda table: table)
    monkeypatch.setattr(figure, "compose", lambda *given: drawn.append(given[-1]))
    monkeypatch.setattr(figure.style, "save", lambda *_: None)
    figure.draw_files(inputs, output, "right", "corrected")
    assert drawn == [{"cellina", "hierarchical"}]


def test_the_picture_shows_the_calibrated_first_and_every_number():
    table = pd.concat([planted("e_distance"), planted("pearson", other_type=0.7), planted("spearman")])
    drawn = figure.compose(judge(table), "Metrics under test", PROVENANCE, {"hierarchical", "cellina"})
    axes = drawn.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["E-distance ↓", "Pearson ↑", "Spearman ↑"]
    shown = texts(drawn)
    assert {"calibrated (0.90; 1.00)", "0.91", "0.71", "twin of Cellina / Random effects (ours)"} <= {*shown}
    assert {word.split()[0] for word in shown if "; " in word and "(0" in word or "(-" in word} == {
        "calibrated",
        "saturated",
        "blind",
    }
