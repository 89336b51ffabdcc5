"""Readers of the published h5ad layouts: what they give back, what they decide, what they refuse."""

import json
import shutil

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import yaml

from layouts import cosmx_crc, edit, fetal_spleen, merfish_brain
from layouts.tissue import assert_is
from slides import list_filters
from tissue_counterfactuals import protocols, steps
from tissue_counterfactuals.config import load_config, samples_of
from tissue_counterfactuals.config.dataset import Dataset
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.graph import slide_graph
from tissue_counterfactuals.methods.run import load_task
from tissue_counterfactuals.settings import schema
from tissue_counterfactuals.slide import read_slide
from tissue_counterfactuals.sources import READERS
from tissue_counterfactuals.sources.downloads.table import read_datasets
from tissue_counterfactuals.sources.expected import expected_shapes
from tissue_counterfactuals.sources.fetal_spleen import recover_counts
from tissue_counterfactuals.sources.prepare import prepare_slide
from tissue_counterfactuals.sources.stored import StoredSlide

LAYOUTS = {"cosmx_crc": cosmx_crc, "merfish_brain": merfish_brain, "fetal_spleen": fetal_spleen}
# Test slides have fewer cells than the default number of neighbours.
CELLINA = {"control_domain": "a", "target_domains": ["b"], "graph": {"max_neighbors": 20}}

pytestmark = pytest.mark.filterwarnings("ignore:.* names are not unique")


def configured(entry):
    if "preprocess" in entry:
        return entry
    return load_config({"datasets": {"tissue": CELLINA | entry}})["datasets"]["tissue"]


def read(entry, samples=None):
    dataset = configured(entry)
    reader = READERS[dataset["source"]]
    slide = reader.open(reader.locate(dataset["path"]), dataset, samples or dataset["samples"])
    return slide.load() if isinstance(slide, StoredSlide) else slide


@pytest.fixture(params=LAYOUTS)
def layout(request, tmp_path):
    """A layout, the folder that it was written into, and what must come of it."""
    module = LAYOUTS[request.param]
    return module, tmp_path, module.write(tmp_path)


def test_every_layout_is_read_to_its_tissue(layout):
    module, folder, tissue = layout
    slide = read(module.entry(folder))
    assert_is(slide, tissue)
    assert (slide.X.format, slide.X.dtype) == ("csr", np.float32)
    # The filters say where all cells of the file went.
    filters = list_filters(slide)
    stored = json.loads(slide.uns["provenance"]["in_file"])
    assert list(filters["cells_before"][1:]) == list(filters["cells_after"][:-1])
    assert (filters["cells_after"].iloc[-1] if len(filters) else slide.n_obs) == slide.n_obs
    assert sum(stored["cells"].values()) >= slide.n_obs
    assert stored["genes"] == slide.n_vars


def test_rows_in_another_order_are_the_same_cells(layout):
    module, folder, tissue = layout
    module.FAULTS["barcodes in another order"](folder)
    slide = read(module.entry(folder))
    place = slide.obs_names.get_indexer(tissue.cells)
    assert sorted(place) == list(range(slide.n_obs))
    np.testing.assert_array_equal(slide.X.toarray()[place], tissue.counts)
    np.testing.assert_allclose(slide.obsm["spatial"][place], tissue.places_um, atol=1e-6)
    assert list(slide.obs["domain"].iloc[place]) == list(tissue.domain)


def test_cells_without_labels_are_left_out_and_counted(layout):
    module, folder, tissue = layout
    module.FAULTS["extra cells without labels"](folder)
    slide = read(module.entry(folder))
    assert slide.n_obs == len(tissue.cells) - 4
    assert set(slide.obs_names) < set(tissue.cells)
    dropped = list_filters(slide)[["cells_before", "cells_after"]].diff(axis=1)["cells_after"]
    assert -4 in list(dropped) or -6 in list(dropped) or -7 in list(dropped)


@pytest.mark.parametrize(
    ("name", "fault", "message"),
    [
        ("cosmx_crc", "wrong gene ids", r"no symbols but ids like 'ENSG00000000000' \(12 of 12\)"),
        ("cosmx_crc", "missing column", "no obs column 'typ'"),
        (
            "cosmx_crc",
            "log-normalised instead of counts",
            r"fractional count \d\.\d+, which looks log-normalised",
        ),
        (
            "cosmx_crc",
            "coordinates in pixels",
            r"cells lie 1\.\d+ um from their nearest neighbour .*; use the file as it was published",
        ),
        (
            "cosmx_crc",
            "duplicated barcodes",
            r"the cell id 'cell_\d+' occurs more than once at the same place \(1 such cells\)",
        ),
        ("merfish_brain", "wrong gene ids", "no symbols but ids like 'ENSMUSG0000"),
        ("merfish_brain", "missing column", "no obs column 'major_brain_region'"),
        ("merfish_brain", "log-normalised instead of counts", "looks log-normalised"),
        ("merfish_brain", "duplicated barcodes", "the cell id '.*' occurs 2 times"),
        ("fetal_spleen", "wrong gene ids", r"no symbols but ids like 'ENSG00000000000' \(80 of"),
        ("fetal_spleen", "missing column", "no obs column 'sample_id'"),
        (
            "fetal_spleen",
            "log-normalised instead of counts",
            r"the values of spot '.*' are no log-normalised counts: .* which is no whole number",
        ),
        ("fetal_spleen", "coordinates in pixels", "spots of sample '.*' lie on top of each other"),
        ("fetal_spleen", "duplicated barcodes", "the cell id '.*' occurs 2 times"),
    ],
)
def test_a_fault_is_refused_in_one_sentence(tmp_path, name, fault, message):
    module = LAYOUTS[name]
    module.write(tmp_path)
    module.FAULTS[fault](tmp_path)
    with pytest.raises(InputError, match=message) as error:
        read(module.entry(tmp_path))
    assert module.FILES[0] in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(".")


@pytest.mark.parametrize("damage", [edit.truncate, edit.web_page])
def test_what_is_no_whole_file_is_refused(layout, damage):
    module, folder, _ = layout
    entry = module.entry(folder)
    dataset = configured(entry)
    damage(folder / module.FILES[0])
    with pytest.raises(InputError, match="it is (cut short|a web page)"):
        READERS[dataset["source"]].open({"h5ad": folder / module.FILES[0]}, dataset, None)


# --- CosMx ------------------------------------------------------------------------------------------------------


def test_unknown_labels_are_listed_with_their_cells(tmp_path, capsys):
    cosmx_crc.write(tmp_path)
    slide = read(cosmx_crc.entry(tmp_path))
    assert json.loads(slide.uns["provenance"]["unmapped_labels"]) == {
        "typ": {},
        "ist": {cosmx_crc.UNKNOWN: 1},
    }
    assert "labels of ist that resources/labels_cosmx_crc.tsv does not know: doublet (1)" in (capsys.readouterr().out)

    def rename(data):
        data.obs["ist"] = pd.Categorical(["epithelium"] * 70 + ["stroma"] * 50)

    edit.edit_anndata(tmp_path / "242.h5ad", rename)
    with pytest.raises(
        InputError,
        match=r"no label of the obs column 'ist' stands in resources/labels_cosmx_crc\.tsv \(the column has "
        r"epithelium \(70\), stroma \(50\)\)",
    ):
        read(cosmx_crc.entry(tmp_path))


def test_slides_that_the_benchmark_leaves_out(tmp_path):
    cosmx_crc.write(tmp_path, slides=("110", "222", "231", "232"))
    dataset = configured(cosmx_crc.entry(tmp_path))
    assert samples_of("tissue", dataset) == {"231": ["231"], "232": ["232"]}
    # Two slides of one patient say so.
    patients = {name: read(dataset, [name]).uns["provenance"]["patient"] for name in ("231", "232")}
    assert patients["231"] == patients["232"]
    named = {"source": "cosmx_crc", "files": "crc_cosmx"}
    assert configured(named)["samples"] == ["120", "210", "221", "231", "232", "242"]
    assert configured(named | {"samples": [110]})["samples"] == ["110"]
    # Asked for by name, a slide that was left out is read all the same.
    assert samples_of("tissue", dataset | {"samples": ["110"]}) == {"110": ["110"]}
    assert set(read(dataset, ["110"]).obs["sample"]) == {"110"}
    (tmp_path / "231.h5ad").unlink()
    (tmp_path / "232.h5ad").unlink()
    with pytest.raises(InputError, match=r"leaves out every slide .*110 \(patches .*222 \(no reg"):
        samples_of("tissue", dataset)


def test_ids_that_repeat_at_other_places_are_numbered(tmp_path):
    tissue = cosmx_crc.write(tmp_path)
    edit.double_anndata(tmp_path / "242.h5ad")
    edit.edit_anndata(
        tmp_path / "242.h5ad",
        lambda data: setattr(data, "obs_names", [*data.obs_names[:-2], "twin", "twin"]),
    )
    slide = read(cosmx_crc.entry(tmp_path))
    assert list(slide.obs_names[-2:]) == ["twin", "twin-1"]
    assert slide.uns["provenance"]["repeated_ids"] == "2"
    np.testing.assert_array_equal(slide.X.toarray(), tissue.counts)


def test_several_slides_below_each_other(tmp_path):
    """Pooled, with the genes of the second in another order and one of them missing in the first."""
    cosmx_crc.write(tmp_path, slides=("120", "210"), seed=3)
    with pytest.raises(InputError, match="samples names '242', of which there is no file; there are 120, 210"):
        read(cosmx_crc.entry(tmp_path), ["120", "242"])
    alone = {name: read(cosmx_crc.entry(tmp_path), [name]) for name in ("120", "210")}
    edit.edit_anndata(tmp_path / "120.h5ad", lambda data: data[:, 1:].copy())
    edit.edit_anndata(tmp_path / "210.h5ad", lambda data: data[:, ::-1].copy())
    entry = cosmx_crc.entry(tmp_path) | {"fit": "pooled"}
    both = read(entry)
    genes = alone["120"].var_names[1:]
    assert list(both.var_names) == list(genes)
    expected = sp.vstack([alone[name][:, genes].X for name in ("120", "210")])
    np.testing.assert_array_equal(both.X.toarray(), expected.toarray())
    assert list(both.obs["sample"]) == ["120"] * alone["120"].n_obs + ["210"] * alone["210"].n_obs
    assert list(both.obs_names) == [f"{n}_{c}" for n, s in alone.items() for c in s.obs_names]
    held = json.loads(both.uns["provenance"]["in_file"])
    assert held == {"cells": {"120": 120, "210": 120}, "genes": 12}
    # Filters on the stored counts give what they give in memory.
    dataset = configured(entry)
    stored = READERS["cosmx_crc"].open(READERS["cosmx_crc"].locate(tmp_path), dataset, None)
    assert isinstance(stored, StoredSlide)
    a, b = (prepare_slide(slide, 5, 40, None) for slide in (stored, both))
    assert a.shape == b.shape != both.shape
    np.testing.assert_array_equal(a.X.toarray(), b.X.toarray())


# --- brain ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("unit", "um"), [("micrometres", 1.0), ("millimetres", 1000.0), ("pixels of 0.109 um", 0.109)])
def test_the_extent_of_a_section_decides_the_unit(tmp_path, unit, um):
    tissue = merfish_brain.write(tmp_path)
    merfish_brain.scale_places(tmp_path, 1 / um)
    slide = read(merfish_brain.entry(tmp_path))
    np.testing.assert_allclose(slide.obsm["spatial"], tissue.places_um, rtol=1e-9)
    assert slide.uns["provenance"]["unit"].startswith(f"{unit}, because the largest section")
    assert float(slide.uns["provenance"]["unit_um"]) == um


@pytest.mark.parametrize("factor", [0.1, 2.3, 100])
def test_an_extent_that_no_brain_has_is_refused(tmp_path, factor):
    merfish_brain.write(tmp_path)
    merfish_brain.scale_places(tmp_path, factor)
    with pytest.raises(InputError, match=r"a section of a mouse brain \(2 to 15 mm\) in none of"):
        read(merfish_brain.entry(tmp_path))


def test_ids_with_a_mask_of_missing_ones_are_read(tmp_path):
    """As anndata writes text under newer versions of pandas."""
    tissue = merfish_brain.write(tmp_path)
    with h5py.File(tmp_path / merfish_brain.FILES[0], "r+") as file:
        for table in (file["obs"], file["raw/var"]):
            ids = table[table.attrs["_index"]][:]
            del table[table.attrs["_index"]]
            group = table.create_group(table.attrs["_index"])
            group["values"], group["mask"] = ids, np.zeros(len(ids), dtype=bool)
    assert_is(read(merfish_brain.entry(tmp_path)), tissue)


def test_the_wanted_sections_alone_decide_the_unit(tmp_path):
    """A cell that strays in another section has no say."""
    tissue = merfish_brain.write(tmp_path)
    with h5py.File(tmp_path / merfish_brain.FILES[0], "r+") as file:
        other = np.flatnonzero(file["obs/brain_section_label/codes"][:] == 0)[0]
        file["obsm/X_spatial_coords"][other] = 1e6
    assert_is(read(merfish_brain.entry(tmp_path)), tissue)


def test_sections_of_the_brain(tmp_path):
    merfish_brain.write(tmp_path)
    dataset = configured(merfish_brain.entry(tmp_path) | {"samples": None})
    assert list(samples_of("tissue", dataset)) == list(merfish_brain.SECTIONS)
    whole = read(dataset)
    assert set(whole.obs["sample"]) == set(merfish_brain.SECTIONS)
    assert whole.n_obs == 3 * 118
    one = read(dataset, [merfish_brain.SECTIONS[2]])
    np.testing.assert_array_equal(one.X.toarray(), whole[one.obs_names].X.toarray())
    with pytest.raises(InputError, match="names 'C57BL6J-2.100', which no cell has in column"):
        read(dataset, ["C57BL6J-2.100"])


# --- spleen -----------------------------------------------------------------------------------------------------


def test_another_organ_is_told_by_its_samples(tmp_path):
    fetal_spleen.write(tmp_path, samples=fetal_spleen.SAMPLES[:3])
    with pytest.raises(InputError, match=r"holds 3 samples .* but the spleen has 4; .* swapped"):
        read(fetal_spleen.entry(tmp_path))


def test_one_sample_of_the_spleen(tmp_path):
    tissue = fetal_spleen.write(tmp_path)
    slide = read(fetal_spleen.entry(tmp_path), [fetal_spleen.SAMPLES[1]])
    np.testing.assert_array_equal(slide.X.toarray(), tissue.counts[60:120])


@pytest.mark.parametrize("base", [np.e, 2.0])
@pytest.mark.parametrize("target", [1.0, 1e4, 37.2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_counts_come_back_from_any_depth_and_base(base, target, dtype):
    rng = np.random.default_rng(0)
    counts = rng.negative_binomial(0.3, 0.02, (50, 200))
    counts[:, 0] = 1
    counts[7] = 0
    scaled = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) * target
    values = sp.csr_matrix((np.log1p(scaled) / np.log(base)).astype(dtype))
    recovered, totals = recover_counts(values, base, pd.RangeIndex(50).astype(str), "file x")
    np.testing.assert_array_equal(recovered.toarray(), counts)
    np.testing.assert_allclose(totals, scaled.sum(axis=1), rtol=1e-4)


def test_values_that_are_no_logarithms_of_counts_are_refused():
    spots = pd.Index(["a", "b"])
    counts = sp.csr_matrix(np.array([[1.0, 2, 0], [3, 0, 1]]))
    with pytest.raises(InputError, match="whole numbers, so these are counts already .* source h5"):
        recover_counts(counts, np.e, spots, "file x")
    with pytest.raises(InputError, match="X holds negative values or NaN"):
        recover_counts(counts * -0.5, np.e, spots, "file x")
    shifted = counts.log1p()
    shifted.data[1] += 0.1
    with pytest.raises(InputError, match="the values of spot 'a' are no log-normalised counts"):
        recover_counts(shifted, np.e, spots, "file x")


# --- the table of readers ---------------------------------------------------------------------------------------


def test_files_are_found_and_checked_by_their_roles(tmp_path):
    reader = READERS["cosmx_crc"]
    cosmx_crc.write(tmp_path, slides=("242", "110"))
    shutil.copy(tmp_path / "242.h5ad", tmp_path / "crc_120.h5ad")
    found = reader.locate(tmp_path)
    assert {key: path.name for key, path in found.items()} == {
        "110/h5ad": "110.h5ad",
        "120/h5ad": "crc_120.h5ad",
        "242/h5ad": "242.h5ad",
    }
    assert reader.locate(tmp_path / "242.h5ad") == {"h5ad": tmp_path / "242.h5ad"}
    with pytest.raises(InputError, match="there is no such file or folder"):
        reader.locate(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no file that source cosmx_crc reads \(\*\.h5ad\)"):
        reader.locate(tmp_path / "empty")
    with pytest.raises(InputError, match="it is a folder, but source merfish_brain reads a file"):
        READERS["merfish_brain"].locate(tmp_path)
    with pytest.raises(
        InputError,
        match="reads a folder with cell_feature_matrix.h5, cells.parquet or cells.csv.gz; name",
    ):
        READERS["xenium"].locate(tmp_path / "242.h5ad")
    with pytest.raises(InputError, match="no file of the role 'photo'; its roles are h5ad"):
        reader.check_files({"242/photo": tmp_path}, "table")
    with pytest.raises(InputError, match=r"the file \*_tissue_positions_list\.csv\.gz of sample 'KP_1', without"):
        READERS["visium_perturbmap"].check_files({"KP_1/matrix": tmp_path}, "table")


def test_every_source_has_an_adapter():
    for reader in READERS.values():
        ways = [w for w in ("read_sample", "read", "stored") if hasattr(reader.adapter, w)]
        assert len(ways) == 1, reader.name


def test_a_slide_keeps_no_trace_of_other_columns(layout):
    module, folder, _ = layout
    slide = read(module.entry(folder))
    assert set(slide.obs) == {"cell_type", "domain", "sample"}
    assert list(slide.obsm) == ["spatial"]
    assert isinstance(slide, anndata.AnnData)


# --- from the file to the graph ---------------------------------------------------------------------------------


def test_the_bandwidth_of_the_brain_as_run(tmp_path):
    merfish_brain.write(tmp_path)
    entry = merfish_brain.entry(tmp_path) | {
        "control_domain": "Thalamus",
        "target_domains": ["Isocortex"],
        "holdout": {"cell_types": ["astrocyte"], "min_cells": 2},
        "graph": {"bandwidth_um": 10, "max_neighbors": 20},
    }
    config = load_config({"datasets": {"brain": entry}, "device": "cpu"})
    dataset = config["datasets"]["brain"]
    files = READERS["merfish_brain"].locate(dataset["path"])
    paths = {name: tmp_path / name for name in ("slide.h5ad", "shapes.tsv", "graph.npz", "folds.tsv")}
    steps.prepare(dataset, files, dataset["samples"], paths["slide.h5ad"], paths["shapes.tsv"])
    steps.build_graph(paths["slide.h5ad"], dataset["graph"], paths["graph.npz"])
    steps.write_folds(paths["slide.h5ad"], "brain", dataset, paths["folds.tsv"])
    graphs = {}
    for protocol in ("corrected", "as_run"):
        settings = {
            "protocol": protocol,
            "graph": dataset["graph"],
            "switches": protocols.resolve(protocol),
            "validation_fraction": 0.1,
            **config["counterfactual"],
        }
        files = [paths[name] for name in ("slide.h5ad", "graph.npz", "folds.tsv")]
        steps.write_question(*files, "astrocyte", 0, settings, tmp_path / "question.npz")
        task = load_task(paths["slide.h5ad"], tmp_path / "question.npz")
        bandwidth = {"corrected": 10, "as_run": 10 / 0.109}[protocol]
        expected = slide_graph(task.slide, task.split.held_out, bandwidth, 20, 0.1)
        assert (abs(task.masked_graph - expected) > 1e-7).nnz == 0
        assert task.question.graph["bandwidth_um"] == pytest.approx(bandwidth)
        graphs[protocol] = task.masked_graph
    assert graphs["as_run"].nnz > 1.5 * graphs["corrected"].nnz


def prepared(entry, folder, samples=None):
    dataset = configured(entry)
    files = READERS[dataset["source"]].locate(dataset["path"])
    steps.prepare(dataset, files, samples, folder / "slide.h5ad", folder / "shapes.tsv")
    shapes = pd.read_csv(folder / "shapes.tsv", sep="\t", keep_default_na=False)
    return read_slide(folder / "slide.h5ad"), shapes


def test_shapes_are_compared_with_the_published_ones(tmp_path, capsys):
    tissue = cosmx_crc.write(tmp_path)
    slide, shapes = prepared(cosmx_crc.entry(tmp_path), tmp_path, ["242"])
    row = shapes[(shapes["step"] == "file") & (shapes["quantity"] == "cells")].iloc[0]
    assert (row["sample"], row["found"], row["expected"], row["verdict"]) == (*("242", 120, "474471", "differs"),)
    assert row["difference"] == "-474351"
    fibroblasts = shapes[(shapes["cell_type"] == "Fibroblast") & (shapes["domain"] == "CRC")]
    own = (tissue.cell_type == "Fibroblast") & (tissue.domain == "CRC")
    own &= tissue.counts.sum(axis=1) >= 3
    nobody = shapes[(shapes["cell_type"] == "Mast_cell") & (shapes["domain"] == "CRC")]
    assert nobody[["found", "expected"]].values.tolist() == [[0, "383"]]
    assert fibroblasts["found"].tolist() == [own.sum()]
    assert fibroblasts["expected"].tolist() == ["22548"]
    deviations = json.loads(slide.uns["provenance"]["deviations"])
    assert len(deviations) == (shapes["verdict"] == "differs").sum() > 5
    whole = next(d for d in deviations if d["step"] == "prepared" and not d["cell_type"])
    assert whole == {
        **{"dataset": "crc_cosmx", "sample": "242", "step": "prepared", "quantity": "cells"},
        **{"cell_type": "", "domain": "", "found": slide.n_obs, "expected": 420694},
    }
    told = capsys.readouterr().out
    assert "deviation: crc_cosmx 242, file: 120 cells, but 474,471 were published (stored" in told

    # Data that are not the published ones are not compared with them.
    slide, shapes = prepared(cosmx_crc.entry(tmp_path) | {"kind": "stand-in"}, tmp_path, ["242"])
    assert set(shapes["verdict"]) == {"not compared"}
    assert set(shapes["expected"]) == {""}
    assert not shapes["cell_type"].any()
    assert "deviations" not in slide.uns["provenance"]


def test_a_number_that_agrees_is_no_deviation(tmp_path, capsys):
    fetal_spleen.write(tmp_path)
    slide, shapes = prepared(fetal_spleen.entry(tmp_path), tmp_path)
    row = shapes[shapes["quantity"] == "samples"].iloc[0]
    assert (row["found"], row["expected"], row["difference"], row["verdict"]) == (
        4,
        "4",
        "0",
        "same",
    )
    assert "deviations" not in slide.uns["provenance"]
    assert "deviation" not in capsys.readouterr().out


def test_the_table_of_published_shapes_is_sound():
    table = expected_shapes()
    assert not table.duplicated(["dataset", "sample", "step", "quantity", "cell_type", "domain"]).any()
    assert set(table["dataset"]) == set(read_datasets())
    assert (table["published_in"].str.len() > 5).all()
    published = {reader.published for reader in READERS.values() if reader.published}
    assert published <= set(table["dataset"])
    # The three regions of slide 210 are all of its cells.
    own = table[(table["sample"] == "210") & (table["step"] == "prepared")]
    whole = own[(own["domain"] == "") & (own["quantity"] == "cells")]["expected"].item()
    assert own[(own["domain"] != "") & (own["cell_type"] == "")]["expected"].sum() == whole


def test_the_full_reproduction_is_configured(root):
    config = load_config(yaml.safe_load((root / "config/paper.yaml").read_text()))
    datasets = config["datasets"]
    # Every published data set, read by the reader whose shapes were published for it.
    assert {entry["files"] for entry in datasets.values()} == set(read_datasets())
    for entry in datasets.values():
        published = READERS[entry["source"]].published
        assert published in (None, entry["files"])
        roles = {row.role for row in read_datasets()[entry["files"]]}
        required = {role for role, needed in READERS[entry["source"]].files.items() if needed}
        assert required <= roles <= set(READERS[entry["source"]].files)
        assert entry["kind"] == "real"
    experiments = {name for entry in datasets.values() for name in entry["experiments"]}
    known = schema(Dataset)["properties"]["experiments"]["items"]["enum"]
    assert experiments == set(known)
    assert config["protocols"] == ["corrected", "as_run"]
    # 30 folds of the colorectal slides, 15 models of the brain.
    assert [len(samples_of(n, datasets[n])) for n in ("crc", "brain")] == [6, 3]
    assert all(len(datasets[n]["holdout"]["cell_types"]) == 5 for n in ("crc", "brain"))
    labels = pd.read_csv(root / "resources/labels_cosmx_crc.tsv", sep="\t")["label"]
    assert {*datasets["crc"]["holdout"]["cell_types"], "REF", "CRC"} <= set(labels)
