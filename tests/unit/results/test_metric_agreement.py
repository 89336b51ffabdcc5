"""Agreement of rankings: planted scores whose order is known, and the interval on simulated folds."""

import json

import numpy as np
import pandas as pd
import pytest

from drawings import PROVENANCE, panel, png_size, texts
from tissue_counterfactuals.protocols import resolve
from tissue_counterfactuals.results.figures import metric_agreement as figure
from tissue_counterfactuals.results.tables import COLUMNS, write_tsv

METHODS = ("no_change", "mean_shift", "ridge", "cellina", "scvi")
# From the nearest to the truth to the farthest.
ERROR = dict(zip(METHODS, (0.1, 0.2, 0.3, 0.4, 0.5), strict=True))


def planted(folds=3, seeds=(0, 1), **values):
    """Scores in which the metrics `values` are given per method; None is undefined."""
    rows = []
    known = {
        "rmse_lfc_truth": ERROR,
        "rmse_lfc_truth_in_place": {m: 1 - e for m, e in ERROR.items()},
    }
    for fold in range(folds):
        for seed in seeds:
            for metric, of_method in (known | values).items():
                for method, value in of_method.items():
                    donors = method in ("ridge", "cellina")
                    row = {
                        "method": method,
                        "variant": "published" if donors else "-",
                        "seed": seed,
                    }
                    row |= {"metric": metric, "value": np.nan if value is None else value}
                    rows.append(row | {"cell_type": f"type {fold}"})
                    # Neither twins nor bounds are ranked, however well they do.
                    bounds = [
                        {"method": name, "variant": v} for name, v in {"target_mean": "-", "truth": "published"}.items()
                    ]
                    for other in ({"variant": "no_intervention"}, *bounds):
                        rows.append(rows[-1] | other | {"value": 0.0} if donors else rows[-1])
    table = pd.DataFrame(rows).drop_duplicates()
    table = table.assign(
        dataset="d", kind="simulated", slide="s", target="t", protocol="corrected", status="ok", reason=""
    )
    return table.reindex(columns=COLUMNS)


def agreement(table, metric, truth="rmse_lfc_truth"):
    found = figure.agreements(table, "published", resolve("corrected"))
    return found[(found["metric"] == metric) & (found["truth"] == truth)]


def test_a_metric_that_ranks_as_the_truth_does_agrees_and_one_that_reverses_disagrees():
    table = planted(
        pearson={m: 1 - e**2 for m, e in ERROR.items()},  # higher is better, same order
        rmse_lfc=dict(ERROR),  # lower is better, same order
        rmse_counts={m: 1 - e for m, e in ERROR.items()},  # lower is better, other way round
    )
    for metric, expected in (("pearson", 1), ("rmse_lfc", 1), ("rmse_counts", -1)):
        for truth, sign in (("rmse_lfc_truth", 1), ("rmse_lfc_truth_in_place", -1)):
            found = agreement(table, metric, truth)
            assert found["agreement"].tolist() == pytest.approx([sign * expected] * 3)
            assert set(found["n_methods"]) == {5}
    # One exchange of neighbours: 1 - 6 * 2 / (5 * 24).
    swapped = dict(ERROR, ridge=0.4, cellina=0.3)
    found = agreement(planted(rmse_lfc=swapped), "rmse_lfc")
    assert found["agreement"].tolist() == pytest.approx([0.9] * 3)
    # What measures the truth, and what has no better end, is no metric to be judged.
    assert set(figure.agreements(table, "published", resolve("corrected"))["metric"]) == {
        "pearson",
        "rmse_lfc",
        "rmse_counts",
    }


def test_a_method_that_sees_the_answer_under_a_switch_is_not_ranked_there():
    scores = planted(rmse_lfc=dict(ERROR))
    leaking = scores[scores["method"] == "scvi"].assign(method="scgen")
    table = pd.concat([scores, leaking])
    for protocol, n_methods in (("corrected", 6), ("as_run", 5)):
        found = figure.agreements(table, "published", resolve(protocol))
        assert set(found["n_methods"]) == {n_methods}


def test_undefined_scores_leave_a_method_out_and_too_few_methods_a_metric():
    one = dict(ERROR, no_change=None)
    found = agreement(planted(pearson=one), "pearson")
    assert found["n_methods"].tolist() == [4, 4, 4]
    assert found["agreement"].tolist() == pytest.approx([-1] * 3)
    two = dict(one, scvi=None)
    assert agreement(planted(pearson=two), "pearson").empty
    # The same value for all methods ranks nothing.
    assert agreement(planted(pearson=dict.fromkeys(METHODS, 0.5)), "pearson").empty


def test_seeds_are_averaged_before_methods_are_ranked():
    table = planted(rmse_lfc=dict(ERROR))
    one = (table["metric"] == "rmse_lfc") & (table["method"] == "no_change")
    # The best method looks worst with seed 1, and is still best on average with seed 0 far below.
    table.loc[one & (table["seed"] == 1), "value"] = 0.6
    table.loc[one & (table["seed"] == 0), "value"] = -10.0
    assert agreement(table, "rmse_lfc")["agreement"].tolist() == pytest.approx([1] * 3)


def test_the_interval_covers_the_mean_of_rankings_at_random():
    """Folds in which a metric says nothing of the truth: eight methods in random order, mean agreement 0."""
    rng = np.random.default_rng(0)
    order = np.argsort(rng.random((2000, 6, 8)), axis=2)
    agreements = 1 - 6 * ((order - np.arange(8)) ** 2).sum(axis=2) / (8 * 63)
    covered = [low <= 0 <= high for low, high in map(figure.interval, agreements)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)
    for values in ([0.5, 0.7], [0.5, 0.7, 0.6], [0.8] * 6):
        assert np.isnan(figure.interval(np.array(values))).all()


@pytest.mark.parametrize(("n_methods", "n_folds"), [(4, 8), (8, 4)])
def test_the_interval_covers_the_mean_of_rankings_that_are_nearly_right(n_methods, n_folds):
    """A mean agreement of .9: most folds are at or near 1, and few of them differ."""
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((20_000, n_folds, n_methods))
    orders = [
        np.argsort(np.argsort(v, axis=2), axis=2) for v in (truth, truth + 0.3 * rng.standard_normal(truth.shape))
    ]
    agreements = 1 - 6 * ((orders[0] - orders[1]) ** 2).sum(axis=2) / (n_methods * (n_methods**2 - 1))
    mean = agreements.mean()
    assert mean == pytest.approx(0.9, abs=0.03)
    intervals = np.array([figure.interval(values) for values in agreements[:1000]])
    known = intervals[~np.isnan(intervals).any(axis=1)]
    assert len(known) > 950
    assert np.mean((known[:, 0] <= mean) & (mean <= known[:, 1])) > 0.92


def test_the_picture_lists_metrics_from_best_to_worst(tmp_path):
    table = planted(
        pearson={m: 1 - e for m, e in ERROR.items()},
        rmse_counts={m: 1 - e for m, e in ERROR.items()},
        # Higher is better, so that but for one exchange the order is the wrong way round.
        spearman={"mean_shift": 0.2, "ridge": 0.4, "cellina": 0.3, "scvi": 0.5, "no_change": None},
    )
    drawn = figure.compose(figure.agreements(table, "published", resolve("corrected")), "Rankings", PROVENANCE)
    left = panel(drawn, "Errors against the true effect")
    names = [label.get_text() for label in left.get_yticklabels()]
    assert names[-1] == "Pearson (5)"
    assert names[:2] == ["RMSE of expression (5)", "Spearman (4)"]
    assert [line.get_xdata()[0] for line in left.lines if line.get_linewidth() == 2] == pytest.approx([-1, -0.8, 1])
    assert PROVENANCE in " ".join(texts(drawn)).replace("\n", " ")
    dots = [line for line in left.lines if line.get_marker() == "o"]
    assert [len(line.get_xdata()) for line in dots] == [3, 3, 3]

    scores, manifest = tmp_path / "scores.tsv", tmp_path / "provenance.json"
    write_tsv(table, scores)
    config = {
        "datasets": {"d": {"target_domains": ["t"]}},
        "switches": {},
        "counterfactual": {"donor_rules": ["published"]},
    }
    record = {
        "dataset": "d",
        "label": "d",
        "kind": "simulated",
        "n_cells": 9,
        "seeds": [0],
        "commit": "a",
        "config_hash": "b",
        "config": config,
    }
    manifest.write_text(json.dumps(record))
    output = {"tsv": tmp_path / "agreement.tsv", "png": tmp_path / "agreement.png"}
    figure.draw_files({"scores": scores, "manifest": manifest}, output, "t", "corrected")
    assert min(png_size(output["png"])) > 200
    told = pd.read_csv(output["tsv"], sep="\t")
    assert told.columns.tolist() == figure.COLUMNS
    assert len(told)


def test_too_few_methods_are_said(tmp_path):
    table = planted(pearson={"no_change": 0.1, "scvi": 0.2})
    drawn = figure.compose(figure.agreements(table, "published", resolve("corrected")), "Rankings", PROVENANCE)
    assert "fewer than 4 methods to rank" in texts(drawn)
