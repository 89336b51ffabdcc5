"""Every experiment and figure of Cellina's paper once, through its rules, on a tissue small enough for tests."""

import json

import pandas as pd

from opened import check_declared, watched
from runs import tiny

EXPERIMENTS = ["application", "disentanglement", "gene_range", "scalability", "weights"]


def test_all_of_cellina_is_run_and_drawn(tmp_path):
    config = tiny(
        seeds=[0],
        methods=["no_change", "cellina", "cellina_gat", "ceiling"],
        cellina={"epochs": 8, "patience": 8},
    )
    config["datasets"]["tiny"]["experiments"] = ["cellina", *(f"cellina_{name}" for name in EXPERIMENTS)]
    config |= {
        "protocols": ["corrected"],
        "cellina_gat": {"epochs": 2, "n_hidden": 8, "n_latent": 3, "n_layers": 1, "max_neighbors": 5},
        "cellina_experiments": {
            "application": {"min_genes": 4, "n_deg": 10, "min_cells": 10, "n_shuffles": 19, "embedding": "pca"},
            "disentanglement": {"n_cells": 300, "methods": ["cellina"]},
            "gene_range": {"n_genes": [5]},
            "scalability": {"methods": ["ridge"], "n_cells": [300], "subsets": ["random"], "epochs": 1},
            "weights": {"sweeps": ["classifier"], "weights": [1], "others": [1], "n_samples": 5},
        },
    }
    config["counterfactual"] |= {"node": {"shifts": ["node"], "n_genes": 5}}
    with watched(tmp_path) as run:
        outcome = run.configure(config).snakemake()
    assert outcome.code == 0, outcome.screen
    check_declared(run, {})
    # Each picture has its vectors and its numbers beside it; the schematic has no data.
    pictures = {name.removesuffix(".png") for name in run.files("results/figures/tiny") if name.endswith(".png")}
    assert pictures == {
        *("attention.slide_0", "map.slide_0", "learning_curves.corrected", "schematic.corrected"),
        *(
            f"{name}.domain_1.corrected"
            for name in ("cell_types", "figure_cellina_a7", "intervals", "metrics_under_test")
        ),
        *(f"figure_cellina_{name}.corrected" for name in ("3", "a1", "a5", "a6")),
    }
    assert {f"{name}.svg" for name in pictures} < set(run.files("results/figures/tiny"))
    assert {f"{name}.tsv" for name in pictures - {"schematic.corrected"}} < set(run.files("results/tables/tiny"))
    # The comparison with the published numbers is made of such targets too, and no training has failed.
    assert "page.html" in run.files("results/compare/all")
    scores = pd.read_csv(run.folder / "results/tables/tiny/scores.tsv", sep="\t")
    assert set(scores["method"]) == set(config["methods"])
    assert set(scores["status"]) == {"ok"}
    # Memory that runs out is an answer where costs are the question, and only there.
    records = [json.loads(p.read_text()) for p in (run.folder / ".snakemake/metadata").rglob("*") if p.is_file()]
    fits = [record["shellcmd"] for record in records if record["rule"] == "fit"]
    asked = ["slide_0+random+300" in command for command in fits]
    assert set(asked) == {True, False}
    assert ["--memory-is-asked" in command for command in fits] == asked
