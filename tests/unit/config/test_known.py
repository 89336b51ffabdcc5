"""What a configuration, or the header of a file, can tell is refused before anything runs."""

import lzma

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from layouts import edit, xenium
from slides import read_h5ad, small_slide
from tissue_counterfactuals.config import load_config
from tissue_counterfactuals.config.known import may_choose_genes
from tissue_counterfactuals.errors import InputError

BENCHMARK = {"source": "simulated", "control_domain": "domain_0", "target_domains": ["domain_1"]}
SPLEEN = {"source": "simulated_field", "experiments": ["celcomen_spleen"]}
TUMOUR = {"source": "simulated_field", "experiments": ["celcomen_glioblastoma"]}
LESIONS = {"source": "simulated_lesions", "experiments": ["celcomen_perturbmap"]}


def refused(entry, **top):
    with pytest.raises(InputError) as error:
        load_config({"datasets": {"mine": entry}} | top)
    (sentence,) = str(error.value).splitlines()
    return sentence


def tumour(**settings):
    knockout = {"gene": "gene_07"}
    return {"celcomen": {"glioblastoma": {"knockout": knockout} | settings}}


def test_what_fits_is_taken():
    load_config({"datasets": {"mine": TUMOUR}} | tumour())
    load_config({"datasets": {"mine": BENCHMARK | {"simulation": {"n_genes": 30}}}})
    load_config({"datasets": {"mine": LESIONS, "other": SPLEEN, "third": BENCHMARK}})


@pytest.mark.parametrize(
    ("entry", "top", "sentence"),
    [
        (BENCHMARK, {"seeds": [2**32]}, "config: seeds[0] is 4294967296; allowed is a whole number of at least 0 and "
            "up to 4294967295."),
        (BENCHMARK, {"threads": 1e30}, "config: threads is 1000000000000000000000000000000; allowed is a whole number "
            "of at least 1 and up to 1024."),
        (BENCHMARK, {"metrics": {"n_deg": 301}},
        "config: metrics.n_deg is 301, but 300 genes of mine are left at most; lower it."),
        (BENCHMARK | {"preprocess": {"n_top_genes": 40}}, {"metrics": {"n_deg": 50}},
        "config: metrics.n_deg is 50, but 40 genes of mine are left at most; lower it."),
        (BENCHMARK | {"simulation": {"n_slides": 1000}}, {}, "config: datasets.mine.simulation.n_cells is 10000; 1000 "
            "slides of 3 domains and 5 types need at least 150000 cells: give more cells or fewer of these."),
        (BENCHMARK | {"simulation": {"n_slides": 10**9}}, {}, "config: datasets.mine.simulation.n_slides is "
            "1000000000; allowed is a whole number of at least 1 and up to 1000."),
        (BENCHMARK | {"simulation": {"n_cells": 600, "n_slides": 4}}, {}, "config: datasets.mine.graph.max_neighbors "
            "is 200, but a sample of mine has 150 cells, so that everybody would be everybody's neighbour; lower it, "
            "or leave the sample out with `samples`."),
        (BENCHMARK | {"unit_um": 1e30, "source": "h5ad", "path": "."}, {}, "config: datasets.mine.unit_um is "
            "1000000000000000000000000000000; allowed is a number above 0 and up to 1000000 or null."),
        (SPLEEN | {"field": {"n_cells": 10**7, "n_genes": 51}}, {}, "config: datasets.mine.field.n_cells is 10000000 "
            "and n_genes 51; together they make 510,000,000 values, and 500,000,000 are the most: give fewer cells or "
            "genes."),
        (BENCHMARK, {"celcomen": {"recovery": {"n_genes": [10, 5000], "n_cells": [10**6]}}}, "config: "
            "celcomen.recovery.n_cells is 1000000 and n_genes 5000; together they make 5,000,000,000 values, and "
            "500,000,000 are the most: give fewer cells or genes."),
        (SPLEEN | {"field": {"n_cells": 8, "n_samples": 1}}, {"celcomen": {"spleen": {"n_neighbors": 8}}}, "config: "
            "celcomen.spleen.n_neighbors is 8, but a sample of mine has 8 cells, so that everybody would be "
            "everybody's neighbour; lower it, or leave the sample out with `samples`."),
        (SPLEEN | {"field": {"n_genes": 12}}, {"celcomen": {"spleen": {"clusters": {"n_clusters": 13}}}},
        "config: celcomen.spleen.clusters.n_clusters is 13, but 12 genes of mine are left at most; lower it."),
        (TUMOUR, tumour(clusters={"n_clusters": 61}), "config: celcomen.glioblastoma.clusters.n_clusters is 61, but 60 "
            "genes of mine are left at most; lower it."),
        (TUMOUR, tumour(radius_um=1e9), "config: celcomen.glioblastoma.radius_um is 1000000000.0; allowed is a number "
            "above 0 and up to 1000."),
        (TUMOUR, tumour(crop_um=[7000, 6500, 8000, 8500]), "config: celcomen.glioblastoma.crop_um is [7000.0, 6500.0, "
            "8000.0, 8500.0]; give [x_low, x_high, y_low, y_high] in micrometres, low before high."),
        (TUMOUR, tumour(crop_um=[1, 2]), "config: celcomen.glioblastoma.crop_um is [1, 2]; allowed is a list of 4 "
            "numbers, each of at least -1000000000 and up to 1000000000 or null."),
        (TUMOUR, tumour(enrichment={"min_size": 9, "max_size": 5}), "config: celcomen.glioblastoma.enrichment.min_size "
            "is 9, above max_size 5, so that no gene set would be tested; lower it or raise max_size."),
        (TUMOUR, tumour(knockout={"gene": "gene_7"}), "config: celcomen.glioblastoma.knockout.gene names 'gene_7', but "
            "mine has no such gene; name one of its 60, such as 'gene_57'."),
        (TUMOUR, tumour(knockout={"gene": "GENE_07"}), "config: celcomen.glioblastoma.knockout.gene names 'GENE_07', "
            "but mine has no such gene; name one of its 60, such as 'gene_07'."),
        (LESIONS, {"celcomen": {"perturbmap": {"knockouts": ["Jak1"]}}}, "config: celcomen.perturbmap.knockouts names "
            "'Jak1', but mine has no such gene; name one of its 3, such as 'Jak2'."),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_sentence(entry, top, sentence):
    assert refused(entry, **top) == sentence


def test_variable_genes_are_chosen_where_there_may_be_more_of_them(tmp_path):
    path = tmp_path / "mine.h5ad"
    small_slide(n_cells=100, n_genes=30).write_h5ad(path)
    n_genes = 30
    of_file = {"path": str(path), "experiments": ["celcomen_spleen"]}
    to_come = of_file | {"path": "https://example.org/a.h5ad"}
    simulated = BENCHMARK | {"simulation": {"n_genes": n_genes}}
    for entry, chosen in ((of_file, [True, False]), (simulated, [True, False]), (to_come, [True, True])):
        for n_top_genes, expected in zip((n_genes - 1, n_genes), chosen, strict=True):
            loaded = load_config({"datasets": {"mine": entry | {"preprocess": {"n_top_genes": n_top_genes}}}})
            assert may_choose_genes(loaded["datasets"]["mine"]) == expected
        loaded = load_config({"datasets": {"mine": entry | {"preprocess": {"n_top_genes": None}}}})
        assert not may_choose_genes(loaded["datasets"]["mine"])


def test_a_gene_that_the_header_of_a_file_lacks_is_refused(tmp_path):
    var = pd.DataFrame(index=["IFITM3", "EGFR"])
    slide = anndata.AnnData(np.zeros((3, 2), np.float32), var=var, obsm={"spatial": np.zeros((3, 2))})
    slide.obs["cell_type"] = slide.obs["domain"] = "one"
    slide.write_h5ad(tmp_path / "a.h5ad")
    entry = {"path": str(tmp_path / "a.h5ad"), "experiments": ["celcomen_glioblastoma"]}
    few = {"clusters": {"n_clusters": 2}}
    load_config({"datasets": {"mine": entry}, "celcomen": {"glioblastoma": few}})
    settings = {"celcomen": {"glioblastoma": few | {"knockout": {"gene": "EGRF"}}}}
    assert "names 'EGRF', but mine has no such gene; name one of its 2, such as 'EGFR'" in refused(entry, **settings)

    folder = tmp_path / "xenium"
    folder.mkdir()
    (folder / "cells.csv").write_text("cell_id,x_centroid,y_centroid\n")
    with h5py.File(folder / "cell_feature_matrix.h5", "w") as file:
        file["matrix/features/name"] = np.array(["IFITM3", "EGFR", "EGFR", "BLANK-1"], dtype="S")
        file["matrix/features/feature_type"] = np.array(["Gene Expression"] * 3 + ["Blank"], dtype="S")
    entry |= {"source": "xenium", "path": str(folder)}
    assert "names 'EGRF', but mine has no such gene; name one of its 3" in refused(entry, **settings)
    load_config({"datasets": {"mine": entry}, "celcomen": {"glioblastoma": few | {"knockout": {"gene": "EGFR-1"}}}})


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent.gmt", None, "there is no such file"),
        ("empty.gmt", b"", "it is empty"),
        ("binary.gmt", b"\x80\xff\x00\x01" * 50, "it is no text, or damaged"),
        ("bad.gmt.xz", b"\xfd7zXZ\x00 nothing", "it is no text compressed with xz, or damaged"),
        ("half.gmt.xz", lzma.compress(b"".join(b"A%d\tB\tC\n" % i for i in range(999)))[:60], "or damaged"),
        ("words.gmt", b"just words\n", "line 1: it has 1 tab-separated fields"),
    ],
)
def test_a_bad_file_of_gene_sets_is_refused(tmp_path, name, content, words):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    sentence = refused(TUMOUR, **tumour(clusters={"gene_sets": ["hallmark", str(path)]}))
    assert sentence.startswith("config: celcomen.glioblastoma.clusters.gene_sets[1]: gene sets ")
    assert words in sentence


def test_a_bad_table_of_pathways_is_refused(tmp_path):
    entry = BENCHMARK | {"experiments": ["cellina_application"]}
    own = tmp_path / "own.tsv"
    named = {"cellina_experiments": {"application": {"pathway_weights": str(own)}}}
    key = "config: cellina_experiments.application.pathway_weights: pathway weights"
    assert refused(entry, **named).startswith(f"{key} {own}: there is no such file")
    own.write_text("source\ttarget\tweight\nHypoxia\tgene_0\tmuch\n")
    assert refused(entry, **named).startswith(f"{key} {own}: gene 'gene_0' of pathway 'Hypoxia' has no number")
    own.write_text("source\ttarget\tweight\nHypoxia\tgene_0\t1\n")
    load_config({"datasets": {"mine": entry}} | named)


QUESTION = {"name": "q", "cell_type": "type_1", "domain": "domain_0", "methods": ["ridge"]}


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"cell_type": "type_9", "move_to": "domain_1"},
        "cell_type names 'type_9', which no cell of the slide has; did you mean"),
        ({"move_to": "domain_7"}, "move_to names 'domain_7', which no cell of the slide has"),
        ({"composition": {"typ_1": 1}}, "composition names 'typ_1', which no cell of the slide has; did you "
            "mean 'type_1'?"),
        ({"sample": "one", "move_to": "domain_1"},
        "sample names 'one', which no cell of the slide has; there are slide_0"),
        ({"shift_genes": ["gene_7"]}, "shift_genes names 'gene_7', which is neither a gene of the slide nor a bundled "
            "gene set, of human symbols, that holds one; the nearest names are gene_"),
        ({"shift_pathway": "TGFb"}, "shift_pathway: no gene of the slide is in PROGENy"),
    ],
)  # fmt: skip
def test_questions_about_what_a_simulated_tissue_has_not(keys, sentence):
    entry = BENCHMARK | {"questions": [QUESTION | keys]}
    assert refused(entry).startswith(f"config: datasets.mine.questions[0].{sentence}")


def test_questions_about_what_the_header_of_a_file_has_not(tmp_path):
    slide = small_slide(n_cells=300)
    slide.obs["batch"] = pd.Categorical(np.where(np.arange(300) % 2, "x", "y"))
    few = (slide.obs["cell_type"] == "C") & (slide.obs["domain"] == "left") & (slide.obs["batch"] == "x")
    slide = slide[~(few & (few.cumsum() > 3)).to_numpy()].copy()
    slide.write_h5ad(tmp_path / "mine.h5ad")
    question = QUESTION | {"cell_type": "A", "domain": "left", "shift_genes": ["gene_1"]}
    entry = {"source": "h5ad", "path": str(tmp_path / "mine.h5ad"), "keep_columns": ["batch"]}
    fitting = entry | {"questions": [question | {"where": {"batch": "x"}, "sample": "mine"}]}
    load_config({"datasets": {"mine": fitting}})
    for keys, sentence in (
        ({"domain": "lft"}, "domain names 'lft', which no cell of the slide has; did you mean 'left'?"),
        ({"where": {"batch": "z"}}, "where.batch names 'z', which no cell of the slide has; there are x, y."),
        ({"shift_genes": ["gene_99"]}, "shift_genes names 'gene_99', which is neither"),
        ({"cell_type": "C", "where": {"batch": "x"}},
        "cell_type: the slide has 3 cells of type 'C' in domain 'left', batch 'x', and at least 4 are needed; ask "
        "about another type or domain."),
    ):  # fmt: skip
        told = refused(entry | {"questions": [question | keys]})
        assert told.startswith(f"config: datasets.mine.questions[0].{sentence}")
    told = refused(entry | {"keep_columns": None, "questions": [question | {"where": {"batch": "x"}}]})
    assert told == (
        "config: datasets.mine.questions[0].where names the column 'batch', which keep_columns does not; name it there "
        "too."
    )
    told = refused(fitting | {"keep_columns": ["batch", "domain"]})
    assert "keep_columns names domain, which every slide has from columns.domain" in told


def test_questions_that_one_section_of_a_file_cannot_be_asked(tmp_path):
    slide = small_slide(n_cells=600)
    sections = np.where(np.arange(600) % 2, "a", "b")
    kept = (sections == "a") | (slide.obs["domain"] == "left").to_numpy()
    slide.obs["section"] = pd.Categorical(sections)
    slide[kept].copy().write_h5ad(tmp_path / "mine.h5ad")
    entry = {"source": "h5ad", "path": str(tmp_path / "mine.h5ad"), "columns": {"sample": "section"}}
    entry |= {"graph": {"max_neighbors": 20}}
    question = QUESTION | {"cell_type": "A", "domain": "right", "move_to": "left"}
    told = refused(entry | {"questions": [question]})
    assert told == (
        "config: datasets.mine.questions[0].domain names 'right', which no cell of the slide has; there are left. So "
        "it is in sample 'b'; name the one that is asked about under sample."
    )
    for fitting in ({"fit": "pooled"}, {"samples": ["a"]}, {"questions": [question | {"sample": "a"}]}):
        load_config({"datasets": {"mine": entry | {"questions": [question]} | fitting}})


def test_benchmarks_of_what_the_header_of_a_file_has_not(tmp_path):
    slide = small_slide(n_cells=300)
    slide.write_h5ad(tmp_path / "mine.h5ad")
    sizes = pd.crosstab(slide.obs["cell_type"], slide.obs["domain"])[["left", "right"]].min(axis=1)
    entry = {"source": "h5ad", "path": str(tmp_path / "mine.h5ad"), "control_domain": "left"}
    entry |= {"target_domains": ["right"], "holdout": {"min_cells": int(sizes.max())}}
    load_config({"datasets": {"mine": entry}})
    few = sizes.max() + 1
    for keys, sentence in (
        ({"control_domain": "lft"}, "control_domain names 'lft', which no cell of the slide has; did you mean 'left'?"),
        ({"target_domains": ["right", "rim"]}, "target_domains names 'rim', which no cell of the slide has"),
        ({"holdout": {"cell_types": ["A", "a"]}}, "holdout.cell_types names 'a', which no cell of the slide has"),
        ({"holdout": {"min_cells": int(few)}}, f"holdout.min_cells is {few}, and no cell type has so many cells in "
            f"'left' and in 'right'; the largest is {sizes.idxmax()!r} with {sizes.max()}: lower it"),
    ):  # fmt: skip
        assert refused(entry | keys).startswith(f"config: datasets.mine.{sentence}")


def test_benchmarks_of_what_a_simulated_tissue_has_not():
    for keys, sentence in (
        ({"control_domain": "domain_9"}, "control_domain names 'domain_9', which no cell of the slide has; did you"),
        ({"target_domains": ["domain_1", "rim"]}, "target_domains names 'rim', which no cell of the slide has"),
        ({"holdout": {"cell_types": ["type_0", "Type_7"]}}, "holdout.cell_types names 'Type_7', which no cell"),
    ):
        assert refused(BENCHMARK | keys).startswith(f"config: datasets.mine.{sentence}")


def test_named_types_of_which_no_slide_of_a_file_has_enough_cells(tmp_path):
    slide = small_slide(n_cells=600)
    slide.obs["section"] = pd.Categorical(np.where(np.arange(600) % 2, "a", "b"))
    types = slide.obs["cell_type"].astype(object)
    for section in ("a", "b"):
        for domain in ("left", "right"):
            here = (slide.obs["section"] == section) & (slide.obs["domain"] == domain)
            types[slide.obs_names[here][:3]] = "rare"
    slide.obs["cell_type"] = types
    slide.write_h5ad(tmp_path / "mine.h5ad")
    entry = {"source": "h5ad", "path": str(tmp_path / "mine.h5ad"), "columns": {"sample": "section"}}
    entry |= {"control_domain": "left", "target_domains": ["right"], "graph": {"max_neighbors": 20}}
    named = entry | {"holdout": {"cell_types": ["A", "rare"]}}
    assert refused(named) == (
        "config: datasets.mine.holdout.cell_types names 'rare', of which no slide has 4 cells in 'left' and in "
        "'right', the fewest that scores can compare (at most 3): take it out, or choose other domains."
    )
    # Of both sections together there are six.
    for fitting in ({"fit": "pooled"}, {"columns": {}}, {"holdout": {"cell_types": ["A"]}}):
        load_config({"datasets": {"mine": named | fitting}})


def test_types_that_would_be_held_out_under_the_same_name_of_a_file(tmp_path):
    slide = small_slide(n_cells=600, types=("T cell", "T/cell", "B"))
    slide.write_h5ad(tmp_path / "mine.h5ad")
    sizes = pd.crosstab(slide.obs["cell_type"], slide.obs["domain"]).min(axis=1)
    entry = {"source": "h5ad", "path": str(tmp_path / "mine.h5ad"), "control_domain": "left"}
    entry |= {"target_domains": ["right"]}
    both, one = int(sizes[["T cell", "T/cell"]].min()), int(sizes[["T cell", "T/cell"]].max())
    assert both < one
    told = refused(entry | {"holdout": {"min_cells": both}})
    assert told == (
        "config: datasets.mine: the held-out types 'T cell' and 'T/cell' would both be called 'T_cell' in file names; "
        "rename one of them."
    )
    for fitting in ({"holdout": {"min_cells": one}}, {"holdout": {"cell_types": ["T/cell"]}}):
        load_config({"datasets": {"mine": entry | fitting}})


@pytest.mark.parametrize("asks", [{}, {"experiments": ["cellina_weights"]}, {"experiments": ["celcomen_spleen"]}])
def test_more_neighbours_than_a_sample_of_a_file_has_cells_are_refused_as_the_graph_would(tmp_path, asks):
    """Cells without a type are not read; a sample that is not read, or has no cell, does not count."""
    slide = small_slide(n_cells=300)
    sizes = {"large": 240, "small": 45, "none": 15}
    slide.obs["section"] = pd.Categorical(np.repeat([*sizes], [*sizes.values()]), categories=[*sizes, "unused"])
    slide.obs["cell_type"] = slide.obs["cell_type"].astype(object).where(slide.obs["section"] != "none", "NA")
    slide.obs.loc[slide.obs_names[240:245], "cell_type"] = None
    slide.write_h5ad(tmp_path / "mine.h5ad")
    entry = {"source": "h5ad", "path": str(tmp_path / "mine.h5ad"), "columns": {"sample": "section"}}
    entry |= {"control_domain": "left", "target_domains": ["right"], "holdout": {"min_cells": 2}} | asks
    of_spleen = "celcomen_spleen" in asks.get("experiments", ())
    key = "celcomen.spleen.n_neighbors" if of_spleen else "datasets.mine.graph.max_neighbors"

    def loaded(wanted, **keys):
        top = {"celcomen": {"spleen": {"n_neighbors": wanted}}} if of_spleen else {}
        graph = {} if of_spleen else {"graph": {"max_neighbors": wanted}}
        return {"datasets": {"mine": entry | graph | keys}} | top

    load_config(loaded(39))
    with pytest.raises(InputError) as error:
        load_config(loaded(40))
    assert str(error.value) == (
        f"config: {key} is 40, but sample 'small' of mine has 40 cells, so that everybody would be everybody's "
        "neighbour; lower it, or leave the sample out with `samples`."
    )
    load_config(loaded(40, samples=["large"]))
    # Without a sample column all cells are one sample.
    load_config(loaded(279, columns={}))
    with pytest.raises(InputError, match=f"{key} is 280, but mine has 280 cells"):
        load_config(loaded(280, columns={}))


def test_what_the_header_of_a_file_has_not_is_refused_in_the_words_of_the_reader(tmp_path):
    path = tmp_path / "mine.h5ad"
    slide = small_slide(n_cells=300)
    slide.layers["counts"], slide.obsm["pixels"] = slide.X, np.zeros((300, 3))
    slide.obsm["thin"] = sparse.csr_matrix((300, 2))
    slide.write_h5ad(path)
    entry = {"source": "h5ad", "path": str(path), "experiments": ["celcomen_spleen"]}
    load_config({"datasets": {"mine": entry | {"layer": "counts", "columns": {"sample": "sample"}}}})
    for keys, sentence in (
        ({"columns": {"cell_type": "celltype"}}, "there is no obs column 'celltype' (key columns.cell_type); did you "
            "mean 'cell_type', of cell_type, domain, sample."),
        ({"columns": {"sample": "batch"}}, "there is no obs column 'batch' (key columns.sample); there is cell_type"),
        ({"keep_columns": ["batch"]}, "there is no obs column 'batch' (key keep_columns); there is cell_type"),
        ({"layer": "count"}, "there is no layer 'count' (key layer); did you mean 'counts', of counts."),
        ({"layer": "raw"}, "there is no part 'raw' (key layer); there is X, layers, obs"),
        ({"spatial": "xy"}, "there is no array of coordinates in obsm 'xy' (key spatial); there is pixels, spatial, "
            "thin."),
        ({"spatial": "thin"}, "the coordinates obsm['thin'] are stored as a sparse matrix; store them as a dense one."),
        ({"spatial": "pixels"}, "the coordinates obsm['pixels'] have the shape (300, 3)"),
    ):  # fmt: skip
        told = refused(entry | keys)
        assert told.startswith(f"config: datasets.mine: file {path}: {sentence}")
        # Whoever reads the file without a configuration is told the same.
        with pytest.raises(InputError) as error:
            read_h5ad(path, **keys)
        assert told == f"config: datasets.mine: {error.value}"
    # All of them at once.
    with pytest.raises(InputError) as error:
        load_config({"datasets": {"mine": entry | {"layer": "x", "spatial": "y", "columns": {"domain": "z"}}}})
    assert len(str(error.value).splitlines()) == 3
    path.write_bytes(path.read_bytes()[:3000])
    assert refused(entry) == f"config: datasets.mine: file {path}: it is cut short; fetch or copy it again."


@pytest.mark.parametrize(
    ("source", "files", "absent"),
    [
        ("xenium", ["cell_feature_matrix.h5"], "cells.parquet"),
        ("visium", ["filtered_feature_bc_matrix.h5"], "spatial/tissue_positions.parquet"),
        ("cosmx_flat", ["Run_exprMat_file.csv"], "*metadata_file.csv"),
        ("merscope", ["cell_by_gene.csv"], "cell_metadata.csv"),
    ],
)
def test_a_file_that_a_bundle_lacks_is_told_before_anything_is_planned(tmp_path, source, files, absent):
    entry = {"source": source, "path": str(tmp_path), "experiments": ["celcomen_spleen"]}
    assert f"config: datasets.mine: folder {tmp_path}: it holds no file that source {source} reads" in refused(entry)
    for file in files:
        (tmp_path / file).touch()
    assert refused(entry).startswith(f"config: datasets.mine: folder {tmp_path}: the file {absent}")


@pytest.mark.parametrize(
    ("source", "matrix", "table", "columns"),
    [
        ("xenium", "cell_feature_matrix.h5", "cells.csv", ["x_centroid", "y_centroid"]),
        ("merscope", "cell_by_gene.csv", "cell_metadata.csv", ["center_x", "center_y"]),
        ("cosmx_flat", "a_exprMat_file.csv", "a_metadata_file.csv", ["CenterX_global_px", "CenterY_global_px"]),
        ("visium", "filtered_feature_bc_matrix.h5", "tissue_positions_list.csv", None),
    ],
)
def test_a_column_that_a_table_of_a_bundle_lacks_is_told_before_anything_is_planned(
    tmp_path, source, matrix, table, columns
):
    entry = {"source": source, "path": str(tmp_path), "experiments": ["celcomen_spleen"]}
    entry |= {"unit_um": 1} if source != "visium" else {}
    told = f"config: datasets.mine: file {tmp_path}"
    for file in (matrix, table):
        (tmp_path / file).touch()
    if columns:
        assert refused(entry) == f"{told}/{table}: it is empty; fetch it again."
        for line, words in (
            (f"number,{','.join(columns)},kind", "no column says by its name that it holds the ids"),
            (f"cell_id,{columns[0]},kind", f"there is no column '{columns[1]}'"),
        ):
            (tmp_path / table).write_text(f"{line}\n")
            assert refused(entry).startswith(f"{told}/{table}: {words}")
        (tmp_path / table).write_text(f"# exported\ncell_id,{','.join(columns)},kind\n")
        load_config({"datasets": {"mine": entry | {"columns": {"cell_type": "kind"}}}})

    # Labels may stand in a file of their own; the sentence is the reader's.
    labels = tmp_path / "labels.csv"
    labels.write_text("barcode,niche\n")
    entry |= {"labels": str(labels)}
    load_config({"datasets": {"mine": entry | {"columns": {"domain": "niche"}}}})
    wrong = refused(entry | {"columns": {"domain": "niches"}})
    assert wrong.startswith(
        f"config: datasets.mine: sample '{tmp_path.name}': there is no column 'niches' (key columns.domain)"
    )
    assert "niche); name one that is there." in wrong


def test_cosmx_files_that_cannot_tell_their_unit_are_told_before_anything_is_planned(tmp_path):
    entry = {"source": "cosmx_flat", "path": str(tmp_path), "experiments": ["celcomen_spleen"]}
    (tmp_path / "a_exprMat_file.csv").touch()
    table = tmp_path / "a_metadata_file.csv"
    names = "fov,cell_ID,CenterX_global_px,CenterY_global_px"
    table.write_text(f"{names}\n")
    assert refused(entry).startswith(f"config: datasets.mine: file {table}: neither the fields of view")
    load_config({"datasets": {"mine": entry | {"unit_um": 0.18}}})
    table.write_text(f"{names},CenterX_local_px,CenterY_local_px\n")
    load_config({"datasets": {"mine": entry}})
    table.write_text(f"{names}\n")
    (tmp_path / "a_fov_positions_file.csv").write_text("fov,x_global_px,y_global_px,x_global_mm,y_global_mm\n")
    load_config({"datasets": {"mine": entry}})


def test_a_bundle_without_labels_is_told_before_it_is_asked_of_its_types(tmp_path):
    xenium.write(tmp_path / "run")
    entry = {"source": "xenium", "path": str(tmp_path / "run"), "graph": {"max_neighbors": 9}}
    benchmark = entry | {"control_domain": "a", "target_domains": ["b"]}
    told = "config: datasets.mine.labels is not given, so that cells of source xenium have neither a type nor a domain"
    assert refused(benchmark).startswith(told)
    asked = {"name": "q", "cell_type": "t", "domain": "a", "move_to": "b"}
    assert refused(entry | {"questions": [asked]}).startswith(told)
    load_config({"datasets": {"mine": benchmark | {"labels": str(tmp_path / "run/labels.csv")}}})
    # Forces between genes need no labels; and somebody may have added them to the table of cells.
    load_config({"datasets": {"mine": entry | {"experiments": ["celcomen_spleen"]}}})
    edit.edit_csv(tmp_path / "run/cells.csv.gz", lambda table: table.assign(kind="t"))
    load_config({"datasets": {"mine": benchmark | {"columns": {"cell_type": "kind"}}}})
