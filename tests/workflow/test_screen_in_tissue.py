"""A screen in tissue from its tables to figure and comparison, and when to trust an answer, both as config/paper.yaml
asks.

The layout is that of Perturb-FISH, the cells are simulated; only sizes are others than in config/paper.yaml.
"""

import json

import pandas as pd
import pytest
import yaml

from layouts import perturb_fish
from opened import check_declared, watched
from runs import ROOT
from tissue_counterfactuals.methods import METHODS
from tissue_counterfactuals.simulate.screen import simulate_screen

TARGETS = ("IRAK1", "IRF3", "MAP2K2", "RELA")
SIZES = {
    "protocols": ["as_run"],
    "seeds": [0],
    "device": "cpu",
    "cellina": {"epochs": 1, "batch_size": 64, "n_hidden": 8, "n_latent": 3},
    "cellina_experiments": {
        "in_vivo": {
            "methods": ["no_change", "hierarchical", "ridge"],
            "min_recipients": 5, "draws": 29, "splits": 5, "shifts": 1, "far_um": 45,
            "min_mean_counts": 0.2,
        },
        "trust": {
            "n_simulations": 2, "methods": ["mean_shift_by_type", "hierarchical"], "reaches": [0, 1, 3], "n_cells": 500,
            "n_genes": 30,
            "effect_sizes": [0.3], "confounding": [0.3], "label_noise": [0.1], "spill": [0.1],
            "numbers_of_cells": [600],
        },
    },
}  # fmt: skip

SCREEN = {
    "n_simulations": 2, "slow_simulations": 0, "n_targets": 4, "n_genes": 12, "clones_per_target": [4],
    "spillovers": [0], "usual_clones": 4, "draws": 29, "shifts": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("screen")
    slide = simulate_screen(n_cells=1500, n_targets=4, clones_per_target=8, n_genes=500, depth=150, seed=1)
    paper = yaml.safe_load((ROOT / "config/paper.yaml").read_text())
    entry = paper["datasets"]["screen_in_tissue"]
    assert "trust" in paper["celcomen"]["without_slides"]
    entry.pop("files")
    entry |= {"path": "tables", "kind": "stand-in"}
    config = SIZES | {
        "datasets": {"fish": entry},
        "celcomen": {"without_slides": ["trust", "screen"], "screen": SCREEN},
    }
    with watched(folder) as run:
        perturb_fish.write_screen(run.folder / "tables", slide, TARGETS)
        outcome = run.configure(config).snakemake()
    assert outcome.code == 0, outcome.screen[-6000:]
    return run


def test_jobs_read_nothing_that_their_rules_do_not_declare(finished):
    check_declared(finished, {})


def read(run, name):
    return pd.read_csv(run.folder / f"results/tables/fish/cellina_in_vivo.as_run.{name}.tsv", sep="\t")


def test_the_tables_end_in_effects_scores_and_a_figure(finished):
    effects, scores = read(finished, "effects"), read(finished, "scores")
    assert set(effects["target"]) == {*TARGETS}
    assert set(effects["calling"]) == {"target_raw", "target_published"}
    ok = scores[scores["status"] == "ok"]
    assert set(ok["method"]) == {"no_change", "ridge", "mean_shift_near"}
    # Of two types one is held out, and it learns from two others.
    why = scores.loc[scores["method"] == "hierarchical", "status"].iloc[0]
    assert "only 1 other cell types" in why
    assert {*METHODS} <= {*scores["method"]}
    assert set(ok["kind"]) == {"stand-in"}
    assert len(read(finished, "components")) > 0
    assert finished.bytes_of("results/figures/fish/cellina_in_vivo.png").startswith(b"\x89PNG")


def test_published_numbers_stand_beside_it_without_a_verdict(finished):
    numbers = pd.read_csv(finished.folder / "results/compare/all/numbers.tsv", sep="\t")
    own = numbers[numbers["place"] == "newer runs, Perturb-FISH"]
    assert len(own) == 720
    ran = own[own["verdict"] != "not run"]
    assert set(ran["verdict"]) == {"not comparable"}
    assert set(ran["reason"]) == {"stand-in data"}
    assert ran["quantity"].str.startswith("e_distance").any()


def test_trust_is_asked_of_simulated_tissue(finished):
    errors = pd.read_csv(finished.folder / "results/cellina/trust/errors.tsv", sep="\t")
    assert set(errors["status"]) == {"ok"}
    assert set(errors["knob"]) == {"usual", "effect_size", "confounding", "label_noise", "spill", "n_cells"}
    assert json.loads(finished.read("results/cellina/trust/provenance.json"))["kind"] == "simulated"
    figure = finished.bytes_of("results/figures/cellina/when_to_trust.png")
    assert figure.startswith(b"\x89PNG")
