"""The steps from file to file, called as a user would from Python, without Snakemake."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from slides import small_slide
from tasks import Question
from tissue_counterfactuals import protocols, steps
from tissue_counterfactuals.config import load_config
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.methods import METHODS, applicable, run
from tissue_counterfactuals.question.folds import read_folds
from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.figures import figure_cellina_2, table_cellina_1
from tissue_counterfactuals.slide import VARIABLE, write_slide


@pytest.fixture
def question(tmp_path):
    """A small slide on disk with its graph and folds."""
    rules = ("published", "any_type", "matched")
    return Question(tmp_path, small_slide(n_cells=600), cellina={"epochs": 2}, donor_rules=rules)


def test_from_slide_to_table_and_figures(question):
    folder = question.folder
    question.predict("cellina", "no_change", "mean_shift", "ceiling")
    assert json.loads((folder / "cellina/status.json").read_text())["status"] == "ok"
    assert not (folder / "checkpoint.pt").exists()
    scores = question.score()
    assert set(scores["status"]) == {"ok"}
    variants = set(scores.loc[scores["method"] == "cellina", "variant"])
    assert variants == {"published", "any_type", "matched", "no_intervention"}
    notes = pd.read_csv(folder / "scores.diagnostics.tsv", sep="\t")
    asked = {"inside", "distance", "inside_type", "distance_type"}
    assert set(notes["name"]) == {"kl_s", "donor_effect"} | asked

    names = ["scores", "summary", "gains", "diagnostics", "deviations", "provenance"]
    outputs = {name: folder / f"all.{name}" for name in names}
    entry = {"source": "h5ad", "path": str(question.slide), "control_domain": "left"}
    entry |= {"target_domains": ["right"], "holdout": {"min_cells": 50}}
    config = load_config({"datasets": {"d": entry}})
    empty = folder / "empty.tsv"
    wrong = {"control_domain": "left", "target_domains": ["gone"]}
    nothing = wrong | {"holdout": {"cell_types": "auto", "min_cells": 2}}
    steps.write_folds(question.slide, "d/empty", nothing, empty)
    folds = [question.folds, empty]
    steps.tabulate([folder / "scores.tsv"], [question.slide], folds, "d", config, outputs)
    record = json.loads(outputs["provenance"].read_text())
    (sentence,) = record["left_out"]
    assert sentence.startswith("slide d/empty: no cell has the domain 'gone'")
    assert "left out: 1 (reasons in provenance.json)" in provenance.footer(record)
    assert record["n_cells"] == 600
    assert record["kind"] == "real"
    drawn_from = {"scores": outputs["scores"], "manifest": outputs["provenance"]}
    drawn = {kind: folder / f"t.{kind}" for kind in ("tsv", "md", "png")}
    table_cellina_1.draw_files(drawn_from, drawn, "right", "corrected")
    assert "Cellina" in (folder / "t.md").read_text()
    files = {"slide": question.slide, "question": [question.file]}
    files["folds"] = question.folds
    figure_cellina_2.draw_files(files | drawn_from, {"tsv": folder / "map.tsv", "png": folder / "map.png"})
    # Nothing is asked about this slide.
    files |= {"folds": empty, "question": []}
    figure_cellina_2.draw_files(files | drawn_from, {"tsv": folder / "no_map.tsv", "png": folder / "no_map.png"})
    for name in ("map.png", "no_map.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_the_only_slide_is_refused_at_once_and_one_of_several_is_left_out(question):
    dataset = {"control_domain": "left", "target_domains": ["right"]}
    dataset["holdout"] = {"cell_types": ["A", "Z"], "min_cells": 2}
    table = question.folder / "other.tsv"
    with pytest.raises(InputError, match="data set d: holdout.cell_types names 'Z'"):
        steps.write_folds(question.slide, "d", dataset, table, alone=True)
    assert not table.exists()
    steps.write_folds(question.slide, "d", dataset, table)
    folds = read_folds(table)
    assert folds["fold"].tolist() == ["", "A"]
    assert "no cell has the type 'Z'" in folds["left_out"].iloc[0]
    # Of several slides, one must have each named type.
    tables, every = {"a": table, "b": question.folds}, question.folder / "every.tsv"
    with pytest.raises(InputError, match="data set d: holdout.cell_types names 'Z', which can be held out on no slide"):
        steps.write_checked_folds("d", tables, ["A", "Z"], every)
    assert not every.exists()
    steps.write_checked_folds("d", tables, ["A"], every)
    checked = read_folds(every)
    assert len(checked) == len(folds) + len(read_folds(question.folds))
    assert checked.loc[checked["slide"] == "a", "fold"].tolist() == ["", "A"]


def test_fewer_cells_than_neighbours_are_refused(question):
    folder = question.folder
    with pytest.raises(InputError, match="slide s: graph.max_neighbors is 600, but sample 'one' has 600 cells"):
        steps.build_graph(folder / "s.h5ad", {"max_neighbors": 600}, folder / "g.npz")
    assert not (folder / "g.npz").exists()


def test_the_same_steps_give_the_same_bytes(question):
    contents = []
    for _ in range(2):
        question.predict(*(m.name for m in applicable(METHODS, False) if not m.learned))
        question.score()
        contents.append((question.folder / "scores.tsv").read_bytes())
    assert contents[0] == contents[1]


@pytest.mark.parametrize(("protocol", "bandwidth_um"), [("corrected", 20.0), ("as_run", 40.0)])
def test_models_of_a_whole_slide_hold_nobody_out(tmp_path, protocol, bandwidth_um):
    slide = small_slide(n_cells=300)
    slide.uns["provenance"] |= {"unit_um": 1.0, "unit_um_as_run": 0.5}
    slide.var[VARIABLE] = np.arange(slide.n_vars) % 2 == 0
    write_slide(slide, tmp_path / "s.h5ad")
    switches = protocols.resolve(protocol)
    graph = {"bandwidth_um": 20.0, "max_neighbors": 10}
    settings = {"protocol": protocol, "switches": switches, "graph": graph}
    settings["validation_fraction"] = 0.2
    tasks = []
    for seed in (3, 4):
        file = tmp_path / f"{seed}.npz"
        steps.write_question_of_all(tmp_path / "s.h5ad", seed, settings, file)
        tasks.append(run.load_task(tmp_path / "s.h5ad", file, "cpu"))
    task, other = tasks
    asked, split = task.question, task.split
    assert (asked.protocol, asked.seed, asked.switches) == (protocol, 3, switches)
    assert asked.graph == graph | {"bandwidth_um": bandwidth_um}
    assert not split.held_out.any()
    assert not len(task.focal)
    assert not asked.perturbations
    assert split.validation.sum() == 60
    assert (split.train == ~split.validation).all()
    assert (split.validation != other.split.validation).any()
    assert task.slide.var_names.tolist() == [f"gene_{i}" for i in range(0, 20, 2)]


@pytest.mark.parametrize(("protocol", "bandwidth_um"), [("corrected", 20.0), ("as_run", 40.0)])
def test_an_own_question_has_the_graph_of_its_protocol(tmp_path, monkeypatch, protocol, bandwidth_um):
    slide = small_slide(n_cells=300)
    slide.uns["provenance"] |= {"unit_um": 1.0, "unit_um_as_run": 0.5}
    write_slide(slide, tmp_path / "s.h5ad")
    graph = {"bandwidth_um": 20.0, "max_neighbors": 10}
    steps.build_graph(tmp_path / "s.h5ad", graph, tmp_path / "g.npz")
    settings = {"protocol": protocol, "switches": protocols.resolve(protocol), "graph": graph}
    settings |= {"n_donors": 3, "validation_fraction": 0.2}
    asked = []
    monkeypatch.setattr(steps, "ask_own", lambda *given, **drawing: asked.append(given))
    monkeypatch.setattr(steps, "write_question_file", lambda *given: None)
    steps.write_own_question(tmp_path / "s.h5ad", tmp_path / "g.npz", {}, 0, settings, tmp_path / "q.npz")
    _, neighbors, *_, own = asked[0]
    assert own["bandwidth_um"] == bandwidth_um
    built = sparse.load_npz(tmp_path / "g.npz")
    assert (abs(neighbors - built).sum() > 0) == (protocol == "as_run")


def test_what_was_decided_about_the_cells_is_said_when_they_are_prepared(tmp_path, capsys):
    slide = small_slide(n_cells=300)
    slide.obs["cell_type"] = slide.obs["cell_type"].cat.rename_categories({"C": "C\t"})
    slide.write_h5ad(tmp_path / "source.h5ad")
    entry = {"source": "h5ad", "path": str(tmp_path / "source.h5ad"), "control_domain": "left"}
    entry |= {"target_domains": ["right"], "preprocess": {"n_top_genes": None}, "unit_um": 1.0}
    entry["holdout"] = {"min_cells": 10}
    dataset = load_config({"datasets": {"d": entry}})["datasets"]["d"]
    files = {"h5ad": tmp_path / "source.h5ad"}
    steps.prepare(dataset, files, None, tmp_path / "s.h5ad", tmp_path / "shapes.tsv")
    n = (slide.obs["cell_type"] == "C\t").sum()
    said = f"note: the cell_type 'C\\t' was read as 'C' ({n} cells)\n"
    assert said in capsys.readouterr().out
