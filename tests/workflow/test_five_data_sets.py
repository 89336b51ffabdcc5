"""The full reproduction in small: the five data sets in their true layouts, from a server to results.

The configuration is config/paper.yaml; only addresses (a table that points at the local server, without the published
checksums) and sizes (cells, genes, samples, held-out types, epochs, draws) are others.
"""

import csv
import json
import lzma
import zipfile
from io import BytesIO

import anndata
import numpy as np
import pandas as pd
import pytest
import yaml

from layouts import cosmx_crc, fetal_spleen, merfish_brain, visium_perturbmap, xenium
from layouts.tissue import make_tissue
from opened import check_declared, watched
from runs import ROOT
from slides import list_filters
from tissue_counterfactuals.results.tables import read_scores
from unit.misbehaving_server import serving

SLIDE, SECTION = "242", merfish_brain.SECTIONS[1]
ANSWER = f"results/answers/crc/{SLIDE}/moved/answer.md"
OUTS = "Xenium_V1_Human_Brain_GBM_FFPE_outs.zip"

SIZES = {
    "datasets": {
        "crc": {
            "experiments": ["cellina"],
            "samples": [SLIDE],
            "holdout": {"cell_types": ["Epithelial"]},
            "graph": {"max_neighbors": 20},
            "questions": [
                {"name": "moved", "cell_type": "Epithelial", "domain": "REF", "move_to": "CRC"}
                | {"methods": ["hierarchical"]}
            ],
        },
        "brain": {
            "experiments": ["cellina"],
            "samples": [SECTION],
            "holdout": {"cell_types": ["astrocyte"]},
            "graph": {"max_neighbors": 20},
        },
        "perturbmap": {"samples": ["KP_1", "KP_2"]},
    },
    "protocols": ["corrected"],
    "methods": ["no_change", "mean_shift", "cellina_ablated"],
    "cellina": {"epochs": 1, "n_hidden": 8, "n_latent": 3},
    "counterfactual": {"n_donors": 10, "donor_rules": ["published"]},
    "metrics": {"n_deg": 5},
    "celcomen": {
        "without_slides": [],
        "spleen": {"n_top_genes": 20, "n_permutations": 10},
        "glioblastoma": {
            "localization": {"n_permutations": 50},
            "knockout": {"n_cells": 3, "n_placebo": 1, "epochs": 3},
        },
        "perturbmap": {
            "draws": 5,
            "shuffled_fits": 1,
            "max_genes": 20,
            "null_test": {
                "seeds": 2,
                "depths": [8000],
                "n_genes": 3000,
                "n_modelled_genes": 15,
                "n_sections": 1,
                "draws": 3,
            },
        },
    },
}


def tumour_genes():
    """Human symbols: the gene that is knocked out, and members of gene sets that come with the workflow."""
    with lzma.open(ROOT / "resources/gene_sets/hallmark_human.gmt.xz", "rt") as stream:
        members = dict.fromkeys(g for line in stream for g in line.rstrip("\n").split("\t")[2:42])
    return ["IFITM3", *[gene for gene in list(members)[:59] if gene != "IFITM3"]]


def write_all(folder):
    """Every data set in its layout; what each holds, and name of each file as its address ends -> bytes."""
    genes = tumour_genes()
    tumour = make_tissue(900, len(genes), seed=5)
    tumour.genes, tumour.counts = genes, tumour.counts * 6
    # Inside the crop of the experiment.
    tumour.places_um += [6550, 8050]
    held = {
        "crc": cosmx_crc.write(folder / "crc", slides=(SLIDE,), n_cells=600, n_genes=30),
        "brain": merfish_brain.write(folder / "brain", n_cells=500, n_genes=30),
        "spleen": fetal_spleen.write(folder / "spleen"),
        "glioblastoma": xenium.write(folder / "outs", labels=False, tissue=tumour),
        "perturbmap": visium_perturbmap.write(folder / "perturbmap", n_genes=3000),
    }
    bodies = {
        "242.h5ad": (folder / "crc/242.h5ad").read_bytes(),
        "WB_MERFISH_animal2_coronal.h5ad": (folder / "brain/brain.h5ad").read_bytes(),
        "Visium10X_data_SP.h5ad": (folder / "spleen" / fetal_spleen.FILES[0]).read_bytes(),
        OUTS: zipped(folder / "outs"),
    }
    bodies |= {path.name: path.read_bytes() for path in (folder / "perturbmap").iterdir()}
    return held, bodies


def zipped(outs):
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(outs.iterdir()):
            archive.write(path, path.name)
    return stream.getvalue()


def local_table(path, server):
    """The table of data sets with other addresses, and without what is published about the real files."""
    with open(ROOT / "resources/datasets.tsv", newline="") as stream:
        table = csv.DictReader(stream, delimiter="\t")
        rows, names = list(table), table.fieldnames
    for row in rows:
        row["url"] = server.url(OUTS if row["member"] else row["file"])
        row |= dict.fromkeys(("mirror", "size", "about_mb", "md5", "sha256", "archive_md5"), "")
    with open(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, names, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def override(config, changes):
    """Blocks key by key, all else replaced."""
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(config.get(key), dict):
            override(config[key], value)
        else:
            config[key] = value
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("five")
    held, bodies = write_all(folder / "sources")
    with pytest.MonkeyPatch.context() as patch, serving(bodies) as server, watched(folder) as run:
        patch.setenv("NO_PROXY", "127.0.0.1")
        server.faults |= {"242.h5ad": ["break", "503", "ok"], OUTS: ["ok", "break", "ok"]}
        local_table(run.folder / "table.tsv", server)
        config = yaml.safe_load((ROOT / "config/paper.yaml").read_text())
        downloads = {"table": "table.tsv", "backoff_s": 0.01}
        config = override(config, SIZES | {"downloads": downloads})
        # One patient, and the data sets of the two papers.
        for name in ("crc_joint", "screen_in_tissue"):
            config["datasets"].pop(name)
        for dataset in config["datasets"].values():
            dataset.pop("patients", None)
            dataset.pop("methods", None)
        run.configure(config)
        outcome = run.snakemake("table1", "figures", "celcomen", "compare", ANSWER)
    assert outcome.code == 0, outcome.screen[-6000:]
    return run, held, config


def slide_of(run, name):
    (path,) = (run.folder / "results/slides" / name).glob("*.h5ad")
    return anndata.read_h5ad(path)


@pytest.mark.parametrize("name", ["crc", "brain", "spleen", "glioblastoma", "perturbmap"])
def test_each_slide_holds_what_its_files_held(finished, name):
    run, held, config = finished
    slide, tissue = slide_of(run, name), held[name]
    place = pd.Index(tissue.cells).get_indexer(slide.obs_names)
    assert (place >= 0).all()
    genes = pd.Index(tissue.genes).get_indexer(slide.var_names)
    np.testing.assert_array_equal(slide.X.toarray(), tissue.counts[np.ix_(place, genes)])
    np.testing.assert_allclose(slide.obsm["spatial"], tissue.places_um[place], atol=2.0)
    dropped = list_filters(slide)
    minimum = config["datasets"][name]["preprocess"]["min_counts_per_cell"]
    kept = tissue.counts.sum(axis=1) >= minimum
    assert len(slide) == kept.sum()
    assert (dropped["cells_before"] >= dropped["cells_after"]).all()


@pytest.mark.parametrize("name", ["crc", "brain", "spleen", "glioblastoma", "perturbmap"])
def test_another_shape_than_the_published_one_is_reported_with_both_numbers(finished, name):
    run, _, _ = finished
    (path,) = (run.folder / "results/slides" / name).glob("*.shapes.tsv")
    table = pd.read_csv(path, sep="\t", keep_default_na=False)
    differing = table[table["verdict"] == "differs"]
    if name == "spleen":
        return
    assert len(differing)
    assert (differing["found"].astype(int) != differing["expected"].astype(int)).all()
    told = json.loads(slide_of(run, name).uns["provenance"]["deviations"])
    assert len(told) == len(differing)


@pytest.mark.parametrize("name", ["crc", "brain"])
def test_the_benchmark_ends_in_scores(finished, name):
    run, _, config = finished
    scores = read_scores([run.folder / f"results/tables/{name}/scores.tsv"])
    assert set(scores["status"]) == {"ok"}
    assert set(scores["method"]) == set(SIZES["methods"])
    assert set(scores["target"]) == set(config["datasets"][name]["target_domains"])
    assert set(scores["kind"]) == {"real"}
    for target in config["datasets"][name]["target_domains"]:
        table = run.read(f"results/tables/{name}/table_1.{target}.corrected.md")
        assert config["datasets"][name]["label"] in table


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("spleen", ["figure_celcomen_6.corrected", "figure_celcomen_8.corrected"]),
        ("glioblastoma", ["figure_celcomen_3.corrected", "figure_celcomen_7.corrected"]),
        ("perturbmap", ["figure_celcomen_4.corrected"]),
    ],
)
def test_figures_are_drawn(finished, name, figures):
    run, _, _ = finished
    for figure in figures:
        assert run.bytes_of(f"results/figures/{name}/{figure}.png").startswith(b"\x89PNG")


def test_jobs_read_nothing_that_their_rules_do_not_declare(finished):
    run, _, _ = finished
    # What the table says of a file is a parameter of the rule; the lock says what a file that was fetched must be.
    table, lock = "table.tsv", "downloads.lock.tsv"
    check_declared(run, {"download_file": {table, lock}, "prepare": {lock}})
