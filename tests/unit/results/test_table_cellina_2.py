"""Table 2: the average over target domains is that of the tables of each."""

import json

import numpy as np
import pandas as pd
import pytest

from synthetic_scores import synthetic_scores, table_1
from tissue_counterfactuals.results.figures import table_cellina_1, table_cellina_2
from tissue_counterfactuals.results.tables import write_tsv


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table_2")
    first = synthetic_scores()
    second = first.assign(target="margin", value=first["value"] * 0.5)
    # In the second target the mean shift has no correlation.
    lost = (second["method"] == "mean_shift") & (second["metric"] == "pearson")
    second.loc[lost, "value"] = np.nan
    scores = pd.concat([first, second])
    write_tsv(scores, folder / "scores.tsv")
    dataset = {"target_domains": ["tumour", "margin"], "patients": {}}
    record = {"dataset": "demo", "label": "Demo", "kind": "simulated", "n_cells": 9, "seeds": [0]}
    record |= {"commit": "a", "config_hash": "b", "config": {"datasets": {"demo": dataset}, "switches": {}}}
    (folder / "manifest.json").write_text(json.dumps(record))
    inputs = {"scores": folder / "scores.tsv", "manifest": folder / "manifest.json"}
    output = {kind: folder / f"table_2.{kind}" for kind in ("tsv", "md", "png")}
    table_cellina_2.draw_files(inputs, output, "corrected")
    single = table_1(scores, "demo", "tumour", "corrected")
    return single, pd.read_csv(output["tsv"], sep="\t"), output


def test_means_and_standard_deviations_are_averaged_and_folds_are_summed(made):
    single, table, _ = made
    assert table["method"].tolist() == single["method"].tolist()
    kept = (table["method"] != "mean_shift").to_numpy()
    for column in ("pearson_mean", "pearson_std", "rmse_lfc_gain", "e_distance_std_patients"):
        expected = 0.75 * single[column].to_numpy()
        np.testing.assert_allclose(table[column][kept], expected[kept], rtol=1e-4)
    assert (table["n_folds"] == 2 * single["n_folds"]).all()
    assert table["target"].unique().tolist() == ["average over tumour and margin"]


def test_a_method_without_value_in_one_target_has_no_average(made):
    _, table, output = made
    row = table.query("method == 'mean_shift'").squeeze()
    assert np.isnan(row["pearson_mean"])
    assert (row["pearson_n"], row["e_distance_n"]) == (0, 20)
    markdown = output["md"].read_text()
    assert "undefined" in next(line for line in markdown.splitlines() if "Mean shift " in line)
    assert markdown.startswith("### Table 2 of Cellina · Demo [simulated] · target domain: average")
    assert "Average over tumour and margin: of their means" in markdown
    # What failed in both targets is failed, with its reason once.
    assert markdown.count("scGen: 60 runs (fold × seed × target) failed") == 1


def test_a_method_that_failed_in_one_target_is_failed_and_not_undefined(made):
    single, *_ = made
    other = single.assign(target="margin")
    lost = (other["method"] == "cellina") & (other["variant"] == "matched")
    numbers = [c for c in other if c.startswith("pearson_") and c.endswith(("_n", "_undefined"))]
    other.loc[lost, [*numbers, "n_folds"]] = 0
    other.loc[lost, ["pearson_mean", "pearson_std"]] = np.nan
    other.loc[lost, ["n_failed", "reason"]] = [3, "it crashed"]
    table = table_cellina_2.average([single, other])
    (index,) = table.query("method == 'cellina' and variant == 'matched'").index
    texts = dict(zip(table_cellina_1.header(table), table_cellina_1.cells(table, index), strict=True))
    assert next(text for head, text in texts.items() if head.startswith("Pearson ")) == "failed"
    assert "failed" not in next(text for head, text in texts.items() if head.startswith("RMSE"))
    (note,) = (n for n in table_cellina_1.notes(table) if "it crashed" in n)
    assert note.startswith("† Cellina (donors matched to target): 3 runs (fold × seed × target) failed")


def test_a_method_that_failed_throughout_a_target_is_failed_in_its_variants(tmp_path):
    scores = synthetic_scores(failed_fold=None)
    margin = scores.assign(target="margin")
    lost = margin["method"] == "cellina"
    failed = margin[lost].drop_duplicates(["slide", "cell_type", "seed"])
    failed = failed.assign(variant="-", metric="", value=np.nan, status="failed", reason="it crashed")
    write_tsv(pd.concat([scores, margin[~lost], failed]), tmp_path / "scores.tsv")
    config = {"datasets": {"demo": {"target_domains": ["tumour", "margin"]}}}
    record = {"dataset": "demo", "config": config}
    table = table_cellina_2.build({"scores": tmp_path / "scores.tsv"}, record, {}, "corrected")
    own = table[table["method"] == "cellina"]
    assert own["variant"].tolist() == ["published", "any_type", "matched", "no_intervention"]
    assert own["n_failed"].tolist() == [30] * 4
    for index in own.index:
        name, _, *numbers = table_cellina_1.cells(table, index)
        assert name == "Cellina †"
        assert set(numbers[:4]) == {"failed"}


def test_a_gain_without_value_in_one_target_is_none(made):
    single, *_ = made
    other = single.assign(target="margin")
    lost = other["method"] == "cellina"
    other.loc[lost, "pearson_gain"] = np.nan
    table = table_cellina_2.average([single, other])
    rows = table[table["method"] == "cellina"]
    assert (rows[["pearson_gain_n", "pearson_gain_improved"]] == 0).all(axis=None)
    assert (rows["rmse_lfc_gain_n"].max(), rows["pearson_gain"].notna().sum()) == (20, 0)
    assert not any("nan" in text for index in rows.index for text in table_cellina_1.cells(table, index))
