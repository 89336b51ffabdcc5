"""The steps from file to file, called as a user would from Python, without Snakemake."""

import json

import numpy as np
import pandas as pd
import pytest

from slides import small_slide
from tissue_counterfactuals import protocols, steps
from tissue_counterfactuals.config import load_config
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.methods import METHODS, Prediction
from tissue_counterfactuals.methods import cellina as cellina_adapter
from tissue_counterfactuals.methods import no_change as no_change_adapter
from tissue_counterfactuals.results import drawing
from tissue_counterfactuals.slide import write_slide

NAMES = {"dataset": "d", "kind": "real", "slide": "s", "protocol": "corrected", "seed": 0}


@pytest.fixture
def run(tmp_path):
    """A small slide on disk with its graph and folds, and the configuration that a user would write."""
    write_slide(small_slide(n_cells=600), tmp_path / "s.h5ad")
    config = load_config(
        {
            "datasets": {
                "d": {
                    "source": "h5ad",
                    "path": str(tmp_path / "s.h5ad"),
                    "control_domain": "left",
                    "target_domains": ["right"],
                    "holdout": {"cell_types": ["A"]},
                    "graph": {"max_neighbors": 20},
                }
            },
            "cellina": {"epochs": 2, "n_hidden": 8, "n_latent": 3},
            "counterfactual": {"n_donors": 10},
            "device": "cpu",
        }
    )
    dataset = config["datasets"]["d"]
    steps.build_graph(tmp_path / "s.h5ad", dataset["graph"], tmp_path / "s.npz")
    steps.write_folds(
        tmp_path / "s.h5ad",
        "s",
        {key: dataset[key] for key in ("control_domain", "target_domains", "holdout")},
        tmp_path / "folds.tsv",
    )
    return tmp_path, config


def task_of(run, **settings):
    folder, config = run
    base = {
        "graph": config["datasets"]["d"]["graph"],
        "cellina": config["cellina"],
        "device": "cpu",
        "switches": protocols.resolve("corrected"),
        "counterfactual": config["counterfactual"],
    }
    return steps.load_task(
        folder / "s.h5ad", folder / "s.npz", folder / "folds.tsv", "A", 0, base | settings
    )


def score(folder, task, predictions):
    steps.score(
        predictions, task, NAMES, 10, folder / "scores.tsv", folder / "scores.diagnostics.tsv"
    )
    return pd.read_csv(folder / "scores.tsv", sep="\t", keep_default_na=False)


def test_from_slide_to_table_and_figures(run):
    folder, config = run
    task = task_of(run)
    steps.fit("cellina", task, folder / "model", folder / "checkpoint.pt")
    assert json.loads((folder / "model/status.json").read_text())["status"] == "ok"
    assert not (folder / "checkpoint.pt").exists()
    controls = dict.fromkeys(["no_change", "mean_shift", "ceiling"])
    steps.predict({"cellina": folder / "model"} | controls, task, folder / "all.h5ad")
    scores = score(folder, task, folder / "all.h5ad")
    assert set(scores["status"]) == {"ok"}
    variants = set(scores.loc[scores["method"] == "cellina", "variant"])
    assert variants == {"published", "any_type", "matched", "no_intervention"}
    notes = pd.read_csv(folder / "scores.diagnostics.tsv", sep="\t")
    assert set(notes["name"]) == {"kl_s", "donor_effect"}

    names = ["scores", "summary", "gains", "diagnostics", "deviations", "provenance"]
    outputs = {name: folder / f"all.{name}" for name in names}
    steps.tabulate([folder / "scores.tsv"], [folder / "s.h5ad"], "d", config, outputs)
    record = json.loads(outputs["provenance"].read_text())
    assert record["n_cells"] == 600
    assert record["kind"] == "real"
    table = ("right", "corrected", folder / "t.tsv", folder / "t.md", folder / "t.png")
    drawing.table_1(outputs["scores"], outputs["provenance"], *table)
    assert "Cellina" in (folder / "t.md").read_text()
    files = (folder / "s.h5ad", folder / "s.npz", folder / "folds.tsv", outputs["provenance"])
    drawing.slide_map(*files, config["counterfactual"], folder / "map.png")
    assert (folder / "map.png").read_bytes().startswith(b"\x89PNG")


def test_a_fit_that_fails_is_recorded_and_shown_as_failed(run, monkeypatch):
    folder, _ = run

    def broken(task, model_folder):
        raise FloatingPointError("the loss is not finite\nin epoch 3")

    monkeypatch.setattr(cellina_adapter, "fit", broken)
    task = task_of(run)
    steps.fit("cellina", task, folder / "model", folder / "checkpoint.pt")
    steps.predict({"cellina": folder / "model", "no_change": None}, task, folder / "all.h5ad")
    scores = score(folder, task, folder / "all.h5ad")
    failed = scores[scores["status"] == "failed"]
    assert failed["reason"].tolist() == [
        "fit: FloatingPointError: the loss is not finite in epoch 3"
    ]
    assert failed["method"].tolist() == ["cellina"]
    assert (scores.loc[scores["method"] == "no_change", "status"] == "ok").all()


def test_what_the_user_can_mend_stops_the_run(run):
    folder, _ = run
    task = task_of(run, cellina=run[1]["cellina"] | {"validation_fraction": 0.0})
    with pytest.raises(InputError, match="training needs at least 2 training cells"):
        steps.fit("cellina", task, folder / "m", folder / "c.pt")
    assert not (folder / "m/status.json").exists()


def test_fewer_cells_than_neighbours_are_refused(run):
    folder, _ = run
    with pytest.raises(
        InputError, match="sample 'one' has 600 cells, too few for graph.max_neighbors"
    ):
        steps.build_graph(folder / "s.h5ad", {"max_neighbors": 600}, folder / "g.npz")
    assert not (folder / "g.npz").exists()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (lambda x: x[:, :3], r"has shape \(\d+, 3\), not"),
        (lambda x: x - 10, "negative or non-finite"),
        (lambda x: x * np.nan, "negative or non-finite"),
    ],
)
def test_nonsense_from_a_method_is_a_failure_not_a_score(run, monkeypatch, values, reason):
    folder, _ = run
    task = task_of(run)
    observed = task.slide.X[task.focal].toarray()

    def nonsense(task, folder, target):
        return {"-": Prediction(values(observed), task.focal)}

    monkeypatch.setattr(no_change_adapter, "predict", nonsense)
    steps.predict({"no_change": None, "ceiling": None}, task, folder / "all.h5ad")
    scores = score(folder, task, folder / "all.h5ad")
    failed = scores[scores["method"] == "no_change"]
    assert failed["status"].tolist() == ["failed"]
    assert failed["reason"].str.contains(reason).all()
    assert "ok" in set(scores.loc[scores["method"] == "ceiling", "status"])


def test_the_same_steps_give_the_same_bytes(run):
    folder, _ = run
    contents = []
    for _ in range(2):
        task = task_of(run)
        controls = [m.name for m in METHODS.values() if not m.learned and not m.needs_truth]
        steps.predict(dict.fromkeys(controls), task, folder / "c.h5ad")
        score(folder, task, folder / "c.h5ad")
        contents.append((folder / "scores.tsv").read_bytes())
    assert contents[0] == contents[1]
