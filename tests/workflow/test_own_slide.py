"""A user's own file, by configuration alone: pooled over its sections, and each section on its own."""

import json

import anndata
import numpy as np
import scipy.sparse as sp

from runs import Run, tiny
from tissue_counterfactuals.results.tables import read_scores
from user_slides import ENTRY, UM_PER_PIXEL, write_users_slide


def test_sections_pooled_and_per_sample(tmp_path):
    columns = ENTRY["columns"] | {"sample": "section"}
    sections = ENTRY | {"columns": columns, "methods": ["no_change", "mean_shift"]}
    pooled = sections | {"fit": "pooled", "methods": ["no_change", "cellina_ablated"]}
    config = tiny(seeds=[0], cellina={"epochs": 2}, methods=["no_change"])
    config["datasets"] = {"pooled": pooled, "sections": sections}
    run = Run(tmp_path).configure(config)
    mine = write_users_slide(tmp_path / "mine.h5ad", n_slides=2)
    # A section without the held-out type stops no other.
    second = mine.obs["section"] == "s 2"
    mine.obs["cluster"] = mine.obs["cluster"].astype(str).mask(second, "fibroblast")
    mine.write_h5ad(tmp_path / "mine.h5ad")
    outcome = run.snakemake("table1", "results/figures/sections/map.s_2.png")
    assert outcome.code == 0, outcome.screen
    (sentence,) = json.loads(run.read("results/tables/sections/provenance.json"))["left_out"]
    assert sentence.startswith("slide sections/s_2: no cell has the type 'T cell (CD4+)'")
    assert "left out: 1" in run.read("results/tables/sections/table_1.tumour_core_edge.corrected.md")
    assert json.loads(run.read("results/tables/pooled/provenance.json"))["left_out"] == []
    # Where no section has it, the header of the file tells.
    config["datasets"]["sections"]["holdout"] = {"cell_types": ["T cell (CD4+)", "T cells (CD4+)"]}
    outcome = run.configure(config).snakemake("table1")
    assert outcome.code == 1
    assert "names 'T cells (CD4+)', which no cell of the slide has; did you mean 'T cell (CD4+)'?" in outcome.screen

    slide = anndata.read_h5ad(tmp_path / "results/slides/pooled/pooled.h5ad")
    assert list(slide.obs_names) == list(mine.obs_names)
    np.testing.assert_allclose(slide.obsm["spatial"], mine.obsm["centroids_px"] * UM_PER_PIXEL)
    assert (mine.layers["raw counts"] != slide.X).nnz == 0
    section = mine.obs["section"].astype(str).to_numpy()
    rows, columns = sp.load_npz(tmp_path / "results/graphs/pooled/pooled.npz").nonzero()
    assert (section[rows] == section[columns]).all()
    assert set(section[rows]) == {"s 1", "s 2"}

    # "T cell (CD4+)" and "tumour core/edge" are no file names; in tables they stand as they are.
    scores = {name: read_scores([tmp_path / f"results/tables/{name}/scores.tsv"]) for name in config["datasets"]}
    for table in scores.values():
        assert set(table["status"]) == {"ok"}
        assert set(table["kind"]) == {"real"}
        assert set(table["cell_type"]) == {"T cell (CD4+)"}
        assert set(table["target"]) == {"tumour core/edge"}
    assert set(scores["pooled"]["slide"]) == {"pooled"}
    assert set(scores["pooled"]["method"]) == {"no_change", "cellina_ablated"}
    assert set(scores["sections"]["slide"]) == {"s_1"}
    n_focal = scores["sections"].groupby("slide")["n_control"].first().sum()
    assert n_focal == scores["pooled"]["n_control"].iloc[0]
    for name in config["datasets"]:
        table = run.read(f"results/tables/{name}/table_1.tumour_core_edge.corrected.md")
        assert "tumour core/edge" in table
