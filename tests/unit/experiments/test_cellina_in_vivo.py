"""The experiment on a screen, from a slide to figure, on simulated screens whose effects are known."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from tissue_counterfactuals import protocols
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.experiments import cellina_in_vivo
from tissue_counterfactuals.experiments.screen_question import read_screen
from tissue_counterfactuals.experiments.settings import InVivoSettings
from tissue_counterfactuals.methods import METHODS as METHODS_TABLE
from tissue_counterfactuals.methods.prediction import Prediction
from tissue_counterfactuals.methods.settings import RidgeSettings
from tissue_counterfactuals.results.figures import figure_cellina_in_vivo
from tissue_counterfactuals.simulate.screen import simulate_screen
from tissue_counterfactuals.slide import write_slide

ENTRY = {"name": "screen", "kind": "simulated", "label": "Screen"}
KNOBS = {"n_cells": 5000, "n_targets": 5, "clones_per_target": 16, "n_genes": 24, "depth": 150}
METHODS = {
    **{name: {} for name in ("no_change", "mean_shift", "spatialprop", "oracle")},
    "ridge": RidgeSettings().model_dump(),
}


def settings(**more):
    told = {
        "draws": 99,
        "splits": 20,
        "shifts": 3,
        "bootstraps": 50,
        "min_recipients": 10,
        "far_um": 45,
        "min_mean_counts": 0,
    }
    return InVivoSettings.read(told | more, "in_vivo").model_dump()


def run(folder, slide, protocol, **more):
    write_slide(slide, folder / "slide.h5ad")
    outputs = {
        name: folder / f"{protocol}.{name}.tsv" for name in ("effects", "scores", "compared")
    }
    outputs["manifest"] = folder / f"{protocol}.json"
    switches = protocols.resolve(protocol)
    cellina_in_vivo.run(
        folder / "slide.h5ad",
        ENTRY,
        protocol,
        [0],
        METHODS,
        "cpu",
        settings(**more),
        switches,
        outputs,
    )
    return outputs


def oracle(slide):
    """A method that knows the true change of recipients near each target."""
    screen = read_screen(slide)
    changes = {
        name: slide.obsm["simulation_change"][screen.near(k + 1)].mean(axis=0)
        for k, name in enumerate(screen.names)
    }

    def predict(task, folder, target):
        seen = task.slide.X[task.focal].toarray() + 0.1
        rules = [*task.question.donors(target), "no_intervention"]
        return {r: Prediction(seen * np.exp(changes.get(r, 0.0)), task.focal) for r in rules}

    return SimpleNamespace(learned=False, adapter=SimpleNamespace(predict=predict))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("in_vivo")
    slide = simulate_screen(**KNOBS, spillover=2.0, seed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS_TABLE, "oracle", oracle(slide))
        return {protocol: run(folder, slide, protocol) for protocol in ("as_run", "corrected")}


def test_as_run_has_a_row_per_truth_donors_and_target_and_a_failed_method_says_why(made):
    scores = pd.read_csv(made["as_run"]["scores"], sep="\t")
    failed = scores[scores["status"] != "ok"]
    assert list(failed["method"]) == ["spatialprop"]
    assert "KeyError" in failed["status"].iloc[0]
    ok = scores[scores["status"] == "ok"]
    assert len(ok) == 5 * 2 * 2 * 5
    mean = ok.groupby(["method", "truth", "donors"])["pearson"].mean()
    # Other donors, other answers; what knows no donors has one.
    assert mean["ridge", "full", "target"] != mean["ridge", "full", "random"]
    assert mean["mean_shift", "full", "target"] == mean["mean_shift", "full", "random"]
    assert mean["no_change", "full", "target"] == 0
    assert mean["oracle", "full", "target"] > mean["oracle", "full", "random"] + 0.2
    assert mean["oracle", "ko_specific", "target"] > 0.5


def test_corrected_gives_each_method_its_controls_and_a_verdict(made):
    scores = pd.read_csv(made["corrected"]["scores"], sep="\t")
    rows = scores[scores["status"] == "ok"].set_index(["genes", "method"])
    right = rows.loc["all", "oracle"]
    assert right["verdict"] == "predicted"
    assert right["pearson"] > 0.4
    assert right["control_donors"] == 0
    assert right["tiles_low"] < right["pearson"] < right["tiles_high"]
    assert rows.loc["not_spilled", "oracle"]["pearson"] > 0.4
    ridge = rows.loc["all", "ridge"]
    assert ridge["pearson"] < right["pearson"]
    assert ridge["control_donors"] != 0
    for method in ("no_change", "mean_shift"):
        assert rows.loc["all", method]["verdict"] == "no better than the wrong target"
    assert rows.loc["all", "no_change"]["pearson"] == 0
    effects = pd.read_csv(made["corrected"]["effects"], sep="\t")
    assert (effects["verdict"] == "effect").sum() >= 1
    assert (effects["p_own"] <= 0.05).all()
    assert json.loads(made["corrected"]["manifest"].read_text())["settings"]["radius_um"] == 30


def test_published_numbers_stand_beside_ours_and_are_not_compared_with_a_simulation(made):
    compared = pd.read_csv(made["as_run"]["compared"], sep="\t")
    assert len(compared) == 720
    ours = compared[compared["ours"].notna()]
    assert set(ours["model"]) == {"Mean shift"}
    assert set(ours["verdict"]) == {"not comparable: simulated data"}
    assert set(compared["verdict"]) == {"not comparable: simulated data", "not run"}
    scores = pd.DataFrame({"calling": "target_raw", "method": "cellina", "donors": "random", "truth": "ko_specific",
                           "target": ["LBP"], "pearson": [0.0], "sign_agreement": [0.9], "rmse": [0.4]})  # fmt: skip
    real = cellina_in_vivo.compare(scores, "real", "as_run")
    own = real[real["ours"].notna()].set_index(["knockout", "metric"])
    assert own.loc[("mean", "pearson"), "published"] == pytest.approx(-0.002)
    assert own.loc[("mean", "pearson"), "verdict"] == "met"
    assert own.loc[("mean", "sign_agreement"), "verdict"] == "missed"
    assert ("LBP", "pearson") in own.index


def test_the_figure_shows_both_protocols(made, tmp_path):
    inputs = {name: [made[p][name] for p in made] for name in ("effects", "scores", "manifest")}
    figure_cellina_in_vivo.draw_files(inputs, tmp_path / "in_vivo.png")
    assert (tmp_path / "in_vivo.png").stat().st_size > 30_000


def test_control_carriers_alone_are_exchanged_for_those_of_the_target():
    slide = simulate_screen(**KNOBS, seed=2)
    screen = read_screen(slide)
    asked = cellina_in_vivo.ask_corrected(slide, screen, [1, 2], 0, {}, settings())
    donors = asked.donors("perturbed")
    assert list(donors) == ["control", "KO1", "control_for_KO1", "KO2", "control_for_KO2"]
    code = np.where(screen.tumour, screen.code, -1)
    changed = donors["KO1"] != donors["control"]
    assert (code[donors["control"]][changed] == 0).all()
    assert (code[donors["KO1"]][changed] == 1).all()
    assert (code[donors["KO1"]] != 0).all()
    assert 0.01 < changed.mean() < 0.4
    few = np.unique(donors["control_for_KO1"][code[donors["control_for_KO1"]] == 0])
    assert len(few) <= (code == 1).sum()
    # The focal cells do not change with the seed.
    other = cellina_in_vivo.ask_corrected(slide, screen, [1, 2], 5, {}, settings())
    assert (other.focal == asked.focal).all()
    assert not np.array_equal(other.donors("perturbed")["KO1"], donors["KO1"])


def test_too_few_targets_are_refused(tmp_path):
    slide = simulate_screen(**KNOBS | {"n_targets": 3}, seed=2)
    with pytest.raises(InputError, match="4 are needed to compare predictions"):
        run(tmp_path, slide, "corrected")
