"""The costs of training: what fits left beside their models, as rows, a picture and a note of Table 1."""

import json

import pandas as pd
import pytest

from drawings import PROVENANCE, png_size, texts
from synthetic_scores import synthetic_scores, table_1
from tissue_counterfactuals.results.figures import costs, table_cellina_1


def write(folder, method, fold="T_cell", seed=0, seconds=1.5, memory=700, reason=""):
    """A folder as `fit` leaves it."""
    model = folder / "slide_0" / fold / method / f"corrected.seed{seed}"
    model.mkdir(parents=True)
    status = {"cell_type": "T cell", "status": "failed" if reason else "ok", "reason": reason}
    status |= {"seconds": seconds, "peak_memory_mb": memory, "device": "cpu", "python": "3.11.7"}
    (model / "status.json").write_text(json.dumps(status | {"versions": {}}))
    return model


@pytest.fixture
def models(tmp_path):
    return [
        write(tmp_path, "cellina", seed=3, seconds=120.5, memory=900),
        write(tmp_path, "cellina", fold="B_cell", seed=3, seconds=80.0),
        write(tmp_path, "scvi", seconds=40.0, memory=2000, reason="fit: it crashed (SIGSEGV)"),
    ]


def test_every_fit_is_a_row(models):
    table = costs.read_costs(models)
    assert table.columns.tolist() == costs.COLUMNS
    assert table["method"].tolist() == ["cellina", "cellina", "scvi"]
    assert table["seconds"].tolist() == [120.5, 80.0, 40.0]
    assert table["peak_memory_mb"].tolist() == [900, 700, 2000]
    assert table["status"].tolist() == ["ok", "ok", "failed"]
    assert table.loc[0, ["slide", "cell_type", "seed"]].tolist() == ["slide_0", "T cell", 3]


def test_the_picture_shows_every_method_and_which_failed(models, tmp_path):
    figure = costs.compose(costs.read_costs(models), "Costs", PROVENANCE)
    assert {"Cellina", "scVI", *costs.PANELS.values(), "Costs"} <= set(texts(figure))
    seconds = figure.axes[0]
    dots = {x for line in seconds.lines if line.get_marker() == "o" for x in line.get_xdata()}
    crosses = {x for line in seconds.lines if line.get_marker() == "x" for x in line.get_xdata()}
    assert (dots, crosses) == ({120.5, 80.0}, {40.0})
    assert [axes.get_xscale() for axes in figure.axes] == ["linear", "linear"]
    # What failed early is no part of how long a method takes.
    table = costs.read_costs(models)
    mixed = costs.compose(pd.concat([table, table.iloc[2:].assign(method="cellina", seconds=1.0)]), "", PROVENANCE)
    assert [100.25] * 2 in [list(line.get_xdata()) for line in mixed.axes[0].lines]
    wide = costs.read_costs(models).assign(seconds=[3.0, 30.0, 300.0])
    seconds, memory = costs.compose(wide, "Costs", PROVENANCE).axes
    assert (seconds.get_xscale(), memory.get_xscale()) == ("log", "linear")
    low, high = seconds.get_xlim()
    assert sum(low <= tick <= high for tick in seconds.get_xticks()) >= 5


def test_files_and_note_say_how_long_methods_trained(models, tmp_path):
    manifest = {"label": "demo", "kind": "real", "n_cells": 10, "seeds": [3], "commit": "a", "config_hash": "b"}
    path = tmp_path / "provenance.json"
    path.write_text(json.dumps(manifest | {"config": {"budget": "equal", "equal_steps": 1234, "switches": {}}}))
    output = {kind: tmp_path / f"costs.{kind}" for kind in ("tsv", "png")}
    costs.draw_files({"models": models, "manifest": path}, output, "corrected")
    assert len(pd.read_csv(output["tsv"], sep="\t")) == 3
    assert min(png_size(output["png"])) > 300
    assert "1,234 optimiser steps" in costs.training_note({"budget": "equal", "equal_steps": 1234}, "corrected")
    own = {"budget": "own", "switches": {}}
    assert costs.training_note(own, "corrected").startswith("Training: every method as long as its own settings")
    published = {"budget": "own", "switches": {"hyperparameters": "published"}}
    for config, protocol in ((own, "as_run"), (published, "corrected")):
        assert "Cellina in all its forms as published, whatever its section" in costs.training_note(config, protocol)
    table = table_1(synthetic_scores(), "demo", "tumour", "corrected")
    assert not any("Training:" in line for line in table_cellina_1.notes(table))
    table.attrs["training"] = costs.training_note({"budget": "equal", "equal_steps": 1234}, "corrected")
    (line,) = (line for line in table_cellina_1.notes(table) if "Training:" in line)
    assert "1,234 optimiser steps" in line
    assert "costs.*.tsv" in line
    # What a method cannot answer stands beside it, and only there.
    assert not any(line.startswith("Celcomen:") for line in table_cellina_1.notes(table))
    table.loc[0, "method"] = "celcomen"
    assert any("neither cell types nor domains" in line for line in table_cellina_1.notes(table))
