"""What identifies a cell: columns known by name, exact text, no row counters; and tables joined by it."""

import numpy as np
import pandas as pd
import pytest

from layouts import cosmx_flat, edit, merscope, visium, xenium
from tissue_counterfactuals.config import load_config
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources import READERS
from tissue_counterfactuals.sources.ids import check_ids, id_columns, name_cells


def read(module, folder, **more):
    raw = {"experiments": ["celcomen_spleen"]} | module.entry(folder) | more
    dataset = load_config({"datasets": {"a": raw}})["datasets"]["a"]
    reader = READERS[dataset["source"]]
    return reader.open(reader.locate(dataset["path"]), dataset, None)


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (["", "cell", "G0"], ("cell",)),
        (["Unnamed: 0", "EntityID", "fov", "volume"], ("EntityID",)),
        (["group", "Cell ID"], ("Cell ID",)),
        (["Barcode", "Cluster"], ("Barcode",)),
        (["fov", "cell_ID", "cell_id", "cell"], ("fov", "cell_ID")),
        (["", "fov", "center_x"], ("",)),
        (["X", "group"], ("X",)),
    ],
)
def test_the_column_of_ids_is_known_by_its_name(names, columns):
    assert id_columns(names, "a.csv") == columns


def test_a_table_without_a_column_of_ids_is_refused():
    with pytest.raises(InputError, match=r"^file a.csv: no column says .*it has 'group', ''\); call"):
        id_columns(["group", ""], "a.csv")


def test_ids_stay_exact_text():
    name = lambda *ids: list(name_cells(pd.DataFrame({"cell": ids}, dtype=object), "a.csv"))  # noqa: E731
    assert name("1101234567890123457", "0012", " x ") == ["1101234567890123457", "0012", "x"]
    assert name("12.0", "13.0") == ["12", "13"]
    assert name("c_1_12_345", "c_2_3_0")[0] == "12_345"
    assert pd.isna(name("c_1_12_345", "c_2_3_0")[1])
    for rounded in ("1.1012345678901235e+18", "1.1E+18", "1101234567890123457.0"):
        with pytest.raises(InputError, match="was saved as a floating-point number, which lost"):
            name("12", rounded)


@pytest.mark.parametrize(
    ("ids", "refused"), [("012", True), ("231", True), ("024", False), ("12x", False), ("112", True)]
)
def test_the_numbers_of_rows_are_no_ids_where_nothing_names_them(ids, refused):
    index = pd.Index(list(ids), name="Unnamed: 0")
    if not refused:
        check_ids(index, "file a")
        return
    with pytest.raises(InputError, match=r"only counts the rows|occurs 2 times"):
        check_ids(index, "file a")
    if len(set(ids)) == 3:
        check_ids(index.rename("cell_id"), "file a")


def test_merscope_saved_again_by_pandas_is_joined_by_its_ids(tmp_path):
    """Once 119 of 120 cells came to a wrong place, and the ids became a gene."""
    tissue = merscope.write(tmp_path / "a")
    for name in merscope.FILES:
        table = pd.read_csv(tmp_path / "a" / name, dtype=str)
        shuffled = table.sample(frac=1, random_state=len(name)).reset_index(drop=True)
        shuffled.to_csv(tmp_path / "a" / name)
    slide = read(merscope, tmp_path / "a")
    place = slide.obs_names.get_indexer(tissue.cells)
    np.testing.assert_allclose(slide.obsm["spatial"][place], tissue.places_um)
    np.testing.assert_array_equal(slide.X[place].toarray(), tissue.counts)
    assert list(slide.var_names) == tissue.genes


def test_merscope_of_early_versions_has_ids_in_a_column_without_a_name(tmp_path):
    tissue = merscope.write(tmp_path / "a")
    edit.edit_csv(tmp_path / "a/cell_metadata.csv", lambda t: t.rename(columns={"EntityID": ""}))
    assert set(read(merscope, tmp_path / "a").obs_names) == set(tissue.cells)


@pytest.mark.parametrize("form", ["fov and cell_ID", "c_1_fov_cell", "fov_cell"])
def test_labels_of_cosmx_in_every_form_of_its_ids(tmp_path, form):
    tissue = cosmx_flat.write(tmp_path / "a")

    def change(table):
        fov, cell = table["cell_id"].str.split("_").str[0], table["cell_id"].str.split("_").str[1]
        if form == "fov_cell":
            return table
        if form == "c_1_fov_cell":
            return table.assign(cell_id="c_1_" + table["cell_id"])
        return table.drop(columns="cell_id").assign(fov=fov, cell_ID=cell)

    edit.edit_csv(tmp_path / "a/labels.csv", change)
    slide = read(cosmx_flat, tmp_path / "a")
    assert list(slide.obs.loc[tissue.cells, "cell_type"]) == list(tissue.cell_type)


@pytest.mark.parametrize("form", ["index", "integers", "floats", "bytes", "categories"])
def test_ids_and_labels_of_parquet_whatever_their_type(tmp_path, form):
    tissue = xenium.write(tmp_path / "a")
    path = tmp_path / "a/labels.csv"
    labels = pd.read_csv(path)
    if form in ("integers", "floats"):
        # The file of cells keeps them as text, as Xenium did at first.
        number = {cell: str(i + 7) for i, cell in enumerate(tissue.cells)}
        edit.edit_csv(tmp_path / "a/cells.csv.gz", lambda t: t.assign(cell_id=t["cell_id"].map(number)))
        edit.edit_10x(
            tmp_path / "a/cell_feature_matrix.h5",
            lambda m: edit.replace(m, "barcodes", np.array([number[b.decode()] for b in m["barcodes"][:]], "S")),
        )
        labels["cell_id"] = labels["cell_id"].map(number).astype(int if form == "integers" else float)
        tissue.cells = [number[cell] for cell in tissue.cells]
    elif form == "index":
        labels = labels.set_index("cell_id")
    elif form == "bytes":
        labels["cell_id"] = labels["cell_id"].str.encode("utf-8")
    else:
        labels = labels.astype("category")
    labels.to_parquet(tmp_path / "a/labels.parquet")
    slide = read(xenium, tmp_path / "a", labels=str(tmp_path / "a/labels.parquet"))
    assert list(slide.obs.loc[tissue.cells, "cell_type"]) == list(tissue.cell_type)


def test_ids_of_parquet_that_lost_their_digits_are_refused(tmp_path):
    xenium.write(tmp_path / "a")
    labels = pd.read_csv(tmp_path / "a/labels.csv").assign(cell_id=np.arange(90) + 1.1e18)
    labels.to_parquet(tmp_path / "a/labels.parquet")
    with pytest.raises(InputError, match=r"the id '1\.1e\+18' was saved as a floating-point number"):
        read(xenium, tmp_path / "a", labels=str(tmp_path / "a/labels.parquet"))


@pytest.mark.parametrize("sign", [";", "\t"])
def test_labels_of_xenium_explorer_and_of_excel(tmp_path, sign):
    tissue = xenium.write(tmp_path / "a")
    path = tmp_path / "a/labels.csv"
    text = path.read_text().replace(",", sign).replace("\n", "\r\n")
    path.write_text(f"#Selection name: Selection 1\r\n#Area (um^2): 1,000,000\r\n{text}", newline="")
    slide = read(xenium, tmp_path / "a")
    assert list(slide.obs.loc[tissue.cells, "domain"]) == list(tissue.domain)


def test_one_bundle_under_two_names_is_refused(tmp_path):
    xenium.write(tmp_path / "both/a")
    xenium.write(tmp_path / "both/a (copy)")
    with pytest.raises(InputError, match=r"it is the same as .*, so that samples 'a' and 'a \(copy\)'"):
        read(xenium, tmp_path / "both", labels=None)
    xenium.write(tmp_path / "both/a (copy)", seed=3)
    assert set(read(xenium, tmp_path / "both", labels=None).obs["sample"]) == {"a", "a (copy)"}


@pytest.mark.parametrize("outs", [False, True])
def test_bins_of_one_run_are_no_samples(tmp_path, outs):
    folder = tmp_path / "run/outs/binned_outputs" if outs else tmp_path / "binned_outputs"
    for name in ("square_008um", "square_016um"):
        visium.write(folder / name)
    with pytest.raises(InputError, match=r"square_008um, square_016um hold the same tissue in bins"):
        READERS["visium"].locate(tmp_path / "run" if outs else folder)
    assert READERS["visium"].locate(folder / "square_008um")["matrix"].parent.name == "square_008um"
