"""What a label is: the same in every encoding and layout."""

import json
import time

import anndata
import numpy as np
import pandas as pd
import pytest

from layouts import edit, h5ad, spatialdata, xenium
from slides import read_h5ad, small_slide
from tissue_counterfactuals.config import load_config
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.slide import check_slide
from tissue_counterfactuals.sources import READERS
from tissue_counterfactuals.sources.labels import refuse_ids, tidy_labels
from tissue_counterfactuals.sources.stored import StoredSlide


def tidied(labels):
    categories = sorted(set(labels))
    notes = []
    codes, kept = tidy_labels(np.array([categories.index(x) for x in labels]), categories, "type", notes)
    return [None if code < 0 else kept[code] for code in codes], notes


@pytest.mark.parametrize("missing", ["", " ", "nan", "NaN", "NA", "N/A", "#N/A", "None", "null", "<NA>", "NaT"])
def test_every_spelling_of_a_missing_label(missing):
    labels, notes = tidied(["T", missing, "T"])
    assert labels == ["T", None, "T"]
    assert notes == [f"1 cells have the type {missing!r}, which was taken for missing"]


@pytest.mark.parametrize("label", ["naive", "Nanog+", "nonei", "unknown", "0", "-", "T cell"])
def test_labels_that_only_look_like_missing_ones_are_kept(label):
    assert tidied([label]) == ([label], [])


@pytest.mark.parametrize("written", ["T cell\r", "T\tcell", "T\r\ncell", " T cell", "T cell\u2028"])
def test_line_breaks_and_tabs_are_cleaned_and_equal_labels_merged(written):
    labels, notes = tidied(["T cell", written, "B"])
    assert labels == ["T cell", "T cell", "B"]
    assert notes == [f"the type {written!r} was read as 'T cell' (1 cells)"]


def test_labels_that_name_single_cells_are_refused():
    refuse_ids(20, 20, "x", "file y")
    refuse_ids(30, 90, "x", "file y")
    with pytest.raises(InputError, match=r"^file y: x has 30 different values in 89 cells, so that"):
        refuse_ids(30, 89, "x", "file y")


def test_forty_thousand_categories_are_read_in_no_time(tmp_path):
    n = 120_000
    data = anndata.AnnData(
        np.zeros((n, 1), np.float32),
        obs=pd.DataFrame(
            {"cell_type": pd.Categorical([f"t{i % 40_000}" for i in range(n)]), "domain": "d"},
            index=[f"c{i}" for i in range(n)],
        ),
        var=pd.DataFrame(index=["G"]),
        obsm={"spatial": np.random.default_rng(0).uniform(0, 3000, (n, 2))},
    )
    data.write_h5ad(tmp_path / "a.h5ad")
    started = time.process_time()
    slide = read_h5ad(tmp_path / "a.h5ad")
    assert slide.obs["cell_type"].nunique() == 40_000
    # Once it took 31 s.
    assert time.process_time() - started < 8


def spoiled(labels):
    labels = labels.to_numpy(dtype=object).copy()
    labels[:3], labels[3:5] = "None", "<NA>"
    labels[labels == "glia"] = "glia\r\n"
    return labels


@pytest.mark.parametrize("encoding", ["categorical", "text", "file of labels", "spatialdata"])
def test_one_rule_for_all_encodings(tmp_path, encoding):
    if encoding == "file of labels":
        xenium.write(tmp_path / "a")
        entry, path = xenium.entry(tmp_path / "a"), tmp_path / "a/labels.csv"
        table = pd.read_csv(path, dtype=str)
        table["cell_type"] = spoiled(table["cell_type"])
        table.to_csv(path, index=False)
    elif encoding == "spatialdata":
        spatialdata.write(tmp_path / "a")
        entry, path = spatialdata.entry(tmp_path / "a"), tmp_path / "a" / spatialdata.TABLE

        def spoil(data):
            values = spoiled(data.obs["cell_type"].astype(object))
            data.obs["cell_type"] = pd.Categorical(values)

        edit.edit_anndata(path, spoil)
    else:
        h5ad.write(tmp_path / "a")
        entry, path = h5ad.entry(tmp_path / "a"), tmp_path / "a" / h5ad.FILES[0]
        data = anndata.read_h5ad(path)
        values = spoiled(data.obs["cell_type"].astype(object))
        data.obs["cell_type"] = pd.Categorical(values) if encoding == "categorical" else values
        data.write_h5ad(path, convert_strings_to_categoricals=False)
    dataset = load_config({"datasets": {"a": {"experiments": ["celcomen_spleen"]} | entry}})["datasets"]["a"]
    reader = READERS[dataset["source"]]
    slide = reader.open(reader.locate(dataset["path"]), dataset, None)
    slide = slide.load() if isinstance(slide, StoredSlide) else slide
    assert slide.n_obs == 85
    assert set(slide.obs["cell_type"]) == {"glia", "neuron"}
    notes = " | ".join(json.loads(slide.uns["provenance"]["notes"]))
    assert "3 cells have the cell_type 'None', which was taken for missing" in notes
    assert "2 cells have the cell_type '<NA>', which was taken for missing" in notes
    assert r"the cell_type 'glia\r\n' was read as 'glia'" in notes


@pytest.mark.parametrize("label", ["nan", "T cell\r", " B"])
def test_no_slide_may_hold_a_label_that_was_not_cleaned(label):
    slide = small_slide(types=("A", label), n_cells=60)
    with pytest.raises(InputError, match=r"obs column 'cell_type' holds the label .*rename it or"):
        check_slide(slide, "s")
