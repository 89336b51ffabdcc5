"""h5ad files as other programs write them are read; damaged, locked and treacherous ones are told by their cause."""

import subprocess
import sys

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from layouts import h5ad as layout
from layouts import spatialdata
from layouts.edit import replace
from layouts.tissue import assert_is
from tissue_counterfactuals.config import load_config
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources import READERS
from tissue_counterfactuals.sources.prepare import prepare_slide


def open_slide(source, path, **keys):
    raw = {"source": source, "path": str(path), "experiments": ["celcomen_spleen"]} | keys
    dataset = load_config({"datasets": {"mine": raw}})["datasets"]["mine"]
    reader = READERS[source]
    return reader.open(reader.locate(path), dataset, None)


@pytest.fixture
def mine(tmp_path):
    """A good file, and what is in it."""
    tissue = layout.write(tmp_path)
    return tmp_path / "mine.h5ad", tissue


# --- other writers ------------------------------------------------------------------------------------------------


def old_categories(file, pointed: bool):
    """Categories together, as anndata 0.7 and SeuratDisk write them, with or without references to them."""
    kept = file["obs"].create_group("__categories")
    for name in ("cell_type", "domain"):
        codes, categories = (file["obs"][name][part][:] for part in ("codes", "categories"))
        kept[name] = categories
        replace(file["obs"], name, codes.astype(np.int32))
        if pointed:
            file["obs"][name].attrs["categories"] = kept[name].ref


def r_missing(file):
    """R has no code -1: what is missing is its missing whole number; the first two cells here lose their types."""
    codes = file["obs/cell_type/codes"][:].astype(np.int32)
    codes[:2] = [np.iinfo(np.int32).min, -1]
    replace(file["obs/cell_type"], "codes", codes)


def float_codes(file):
    codes = file["obs/cell_type/codes"][:].astype(float)
    codes[:2] = np.nan
    replace(file["obs/cell_type"], "codes", codes)


def columns_of_one(file):
    """Vectors as matrices of one column, as R writes them without dropping dimensions."""
    for part in ("obs/cell_type/codes", "obs/domain/categories", "obs/_index", "var/_index"):
        replace(file, part, file[part][:].reshape(-1, 1))


def fixed_text(file):
    """Text of a fixed length; names of attributes as bytes, and as arrays of one."""
    for part in ("obs/_index", "var/_index", "obs/cell_type/categories"):
        values = [text.encode() for text in file[part].asstr()[:]]
        replace(file, part, np.array(values, dtype="S"))
    file["obs"].attrs["_index"] = np.bytes_("_index")
    file["var"].attrs["_index"] = np.array(["_index"], dtype=object)
    file["X"].attrs["encoding-type"] = np.bytes_("csr_matrix")


def text_with_masks(file):
    """Nullable strings in place of categories and index."""
    for table, name in (("obs", "cell_type"), ("obs", "_index"), ("var", "_index")):
        values = (
            file[table][name].asstr()[:]
            if name == "_index"
            else np.take(file["obs/cell_type/categories"].asstr()[:], file["obs/cell_type/codes"][:])
        )
        del file[table][name]
        group = file[table].create_group(name)
        group["values"] = values.astype(object)
        group["mask"] = np.zeros(len(values), dtype=bool)


def unsaid_form(file):
    """A sparse matrix that does not say whether it goes by rows, with floating-point places from R."""
    for name in list(file["X"].attrs):
        del file["X"].attrs[name]
    for part in ("indptr", "indices"):
        replace(file["X"], part, file["X"][part][:].astype(float))


def float_shape(file):
    file["X"].attrs["shape"] = file["X"].attrs["shape"].astype(float)


def places_as_table(file):
    """Coordinates as a data frame."""
    places = file["obsm/spatial"][:]
    del file["obsm/spatial"]
    table = file["obsm"].create_group("spatial")
    table.attrs["column-order"] = np.array(["x", "y"], dtype=object)
    table.attrs["_index"] = "_index"
    table["_index"] = file["obs/_index"][:]
    table["x"], table["y"] = places[:, :1], places[:, 1]


def foreign_provenance(file):
    """Somebody else's uns, in encodings that anndata does not know."""
    for name in ("provenance", "simulation"):
        group = file.require_group("uns").create_group(name)
        group.attrs["encoding-type"], group.attrs["encoding-version"] = "seurat-command", "9"
        group["log"] = np.arange(3)


def table_provenance(file):
    anndata.io.write_elem(file, "uns/provenance", {"steps": pd.DataFrame({"a": [1, 2]})})


WRITERS = {
    "SeuratDisk": lambda file: old_categories(file, pointed=False),
    "anndata 0.7": lambda file: old_categories(file, pointed=True),
    "n x 1 arrays": columns_of_one,
    "fixed-length text": fixed_text,
    "anndataR strings with masks": text_with_masks,
    "MuDataSeurat without a form": unsaid_form,
    "shape as numbers of R": float_shape,
    "coordinates as a data frame": places_as_table,
    "uns of another program": foreign_provenance,
    "a table as provenance": table_provenance,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_what_other_programs_write_is_read(mine, writer):
    path, tissue = mine
    with h5py.File(path, "a") as file:
        WRITERS[writer](file)
    assert_is(open_slide("h5ad", path).load(), tissue)


@pytest.mark.parametrize("missing", [r_missing, float_codes])
def test_missing_codes_of_other_programs_are_missing(mine, missing):
    path, tissue = mine
    with h5py.File(path, "a") as file:
        missing(file)
    slide = open_slide("h5ad", path).load()
    assert list(slide.obs_names) == list(tissue.cells[2:])
    assert list(slide.obs["cell_type"]) == list(tissue.cell_type[2:])


# --- damaged ------------------------------------------------------------------------------------------------------


def change(part, edit):
    """Plant values: `edit` gets the array and returns the one to write."""

    def planted(file):
        replace(file, part, edit(file[part][:]))

    return planted


def put(place, value):
    def edit(array):
        array = array.astype(np.result_type(array, np.int64)) if array.dtype.kind in "iu" else array
        array[place] = value
        return array

    return edit


def null_x(file):
    del file["X"]
    file.create_dataset("X", data=h5py.Empty("f4")).attrs["encoding-type"] = "null"


def orphan(file):
    del file["obs/cell_type/categories"]


def swapped(file):
    indptr = file["X/indptr"][:]
    indptr[[5, 40]] = indptr[[40, 5]]
    replace(file["X"], "indptr", indptr)


# What is done to the file -> words of the sentence.
DAMAGE = {
    "gene index too high": (change("X/indices", put(7, 12)), "an index outside 0 to 11"),
    "gene index far too high": (change("X/indices", put(7, 2**40)), "an index outside 0 to 11"),
    "gene index -1": (change("X/indices", put(0, -1)), "an index outside 0 to 11"),
    "fractional gene index": (
        change("X/indices", lambda a: np.where(np.arange(len(a)) == 3, 0.5, a)),
        "an index outside 0 to 11",
    ),
    "text as gene indices": (change("X/indices", lambda a: a.astype("S")), "where indices are"),
    "rows not in order": (swapped, "X/indptr does not rise from 0"),
    "negative row start": (change("X/indptr", put(3, -5)), "X/indptr does not rise from 0"),
    "first row not at 0": (change("X/indptr", put(0, 1)), "X/indptr does not rise from 0"),
    "too few rows": (change("X/indptr", lambda a: a[:-1]), "where 91 places are needed"),
    "rows as a table": (change("X/indptr", lambda a: a[:, None]), "where 91 places are needed"),
    "row end beyond the values": (
        change("X/indptr", put(-1, 10**9)),
        "X/indptr ends at 1000000000",
    ),
    "values cut": (change("X/data", lambda a: a[:-3]), "X has values"),
    "values and indices cut": (
        lambda file: [change(f"X/{part}", lambda a: a[:-3])(file) for part in ("data", "indices")],
        "X/indptr ends at",
    ),
    "text as values": (change("X/data", lambda a: a.astype("S")), "are stored as"),
    "no indptr": (lambda file: file["X"].__delitem__("indptr"), "KeyError: .*indptr"),
    "no values": (lambda file: file["X"].__delitem__("data"), "stored as nothing"),
    "X null": (null_x, r"it has no X; key layer must say .*layers: none; raw: not there"),
    "another shape": (
        lambda file: file["X"].attrs.__setitem__("shape", [90, 13]),
        r"shape \(90, 13\), but must be",
    ),
    "code without a category": (
        change("obs/cell_type/codes", put(4, 2)),
        "obs/cell_type/codes holds the code 2, where there are 2 categories",
    ),
    "negative code": (change("obs/cell_type/codes", put(4, -7)), "holds the code -7"),
    "categories lost": (orphan, "KeyError: .*categories"),
    "column shorter than the table": (
        change("obs/domain/codes", lambda a: a[:50]),
        r"length of values \(50\)|Length of values \(50\)",
    ),
    "complex labels": (
        lambda file: replace(file["obs"], "domain", np.ones(90, dtype=complex)),
        "obs/domain holds complex128, where text or numbers are needed",
    ),
    "a table as a column": (
        change("obs/cell_type/codes", lambda a: np.stack([a, a])),
        r"obs/cell_type/codes has the shape \(2, 90\)",
    ),
    "text that is not UTF-8": (
        lambda file: replace(file["obs/domain"], "categories", np.array([b"Caf\xe9", b"b"])),
        "text that is not UTF-8",
    ),
    "coordinates as text": (
        change("obsm/spatial", lambda a: a.astype("S")),
        "must be numbers of 90 cells x 2",
    ),
    "coordinates of other cells": (
        change("obsm/spatial", lambda a: a[:7]),
        r"have the shape \(7, 2\)",
    ),
    "no index": (lambda file: file["obs"].__delitem__("_index"), "KeyError: .*_index"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_told_before_native_code_reads_it(mine, damage):
    path, _ = mine
    plant, words = DAMAGE[damage]
    with h5py.File(path, "a") as file:
        plant(file)
    with pytest.raises(InputError, match=rf"^(config: datasets.mine: )?file {path}: .*{words}") as told:
        prepare_slide(open_slide("h5ad", path), n_top_genes=None)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("form", [sp.csc_matrix, np.asarray])
def test_other_forms_are_checked_too(mine, form):
    path, tissue = mine
    data = anndata.read_h5ad(path)
    data.X = form(tissue.counts.astype(np.float32))
    data.write_h5ad(path)
    with h5py.File(path, "a") as file:
        if form is np.asarray:
            replace(file, "X", file["X"][:, :5])
        else:
            replace(file["X"], "indices", put(3, 90)(file["X/indices"][:]))
    with pytest.raises(InputError, match=r"shape \(90, 5\)|an index outside 0 to 89"):
        prepare_slide(open_slide("h5ad", path), n_top_genes=None)


def test_a_block_whose_bytes_changed_is_told(mine):
    path, tissue = mine
    data = anndata.read_h5ad(path)
    data.write_h5ad(path, compression="gzip")
    with h5py.File(path) as file:
        place = file["X/data"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[place.byte_offset + 5 : place.byte_offset + 25] = bytes(20)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"cannot be read to its end, it is damaged \(.*fetch or"):
        open_slide("h5ad", path).load()


# --- not to be opened, or leading elsewhere -----------------------------------------------------------------------


@pytest.mark.parametrize("part", ["X/data", "obs/cell_type/codes", "obsm/spatial"])
def test_a_filter_that_is_not_installed_is_named(mine, part):
    path, _ = mine
    with h5py.File(path, "a") as file:
        values, attributes = file[part][:], dict(file[part].attrs)
        del file[part]
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk(values.shape)
        made.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
        space, kind = h5py.h5s.create_simple(values.shape), h5py.h5t.py_create(values.dtype)
        stored = h5py.h5d.create(file.id, part.encode(), kind, space, made)
        stored.write_direct_chunk((0,) * values.ndim, b"packed by zstd", 0)
        file[part].attrs.update(attributes)
    if h5py.h5z.filter_avail(32015):
        pytest.skip("hdf5plugin is installed here")
    sentence = rf"{part} is compressed by zstd \(HDF5 filter 32015\).* install hdf5plugin"
    with pytest.raises(InputError, match=sentence):
        open_slide("h5ad", path).load()


def test_a_file_that_another_process_writes_to_is_not_called_damaged(mine):
    path, _ = mine
    code = "import h5py, sys; f = h5py.File(sys.argv[1], 'r+'); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(InputError, match="another process holds it open for writing"):
            open_slide("h5ad", path)
        other.stdin.close()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (37, "its disk knows no locks .* HDF5_USE_FILE_LOCKING=FALSE"),
        (13, "it cannot be opened .Permission denied"),
        (5, "it cannot be opened .Input/output error"),
    ],
)
def test_the_systems_own_reason_is_told(mine, monkeypatch, number, words):
    def refuse(*_):
        raise OSError(f"Unable to open file (unable to lock file, errno = {number}, error ...)")

    monkeypatch.setattr(h5py, "File", refuse)
    with pytest.raises(InputError, match=words):
        open_slide("h5ad", mine[0])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x1f\x8b\x08 packed", "packed with gzip; unpack it"),
        (b"PK\x03\x04 packed", "a zip archive; unpack it"),
        (b"", "it is empty or of another format"),
        (b"\x89HDF\r\n\x1a\n and nothing else", "it is damaged"),
    ],
)
def test_what_is_no_hdf5_is_called_by_what_it_is(mine, content, words):
    mine[0].write_bytes(content)
    with pytest.raises(InputError, match=words):
        open_slide("h5ad", mine[0])


def external_link(file, secret):
    del file["obs/cell_type"]
    file["obs/cell_type"] = h5py.ExternalLink(secret, "/obs/cell_type")


def external_storage(file, secret):
    del file["obsm/spatial"]
    file["obsm"].create_dataset("spatial", (90, 2), "f8", external=[(secret, 0, 90 * 16)])


def virtual(file, secret):
    layout = h5py.VirtualLayout((90, 2), "f8")
    layout[:] = h5py.VirtualSource(secret, "obsm/spatial", (90, 2))
    del file["obsm/spatial"]
    file["obsm"].create_virtual_dataset("spatial", layout)


@pytest.mark.parametrize("lead", [external_link, external_storage, virtual])
def test_a_file_does_not_lead_to_another(mine, tmp_path, lead):
    path, _ = mine
    secret = tmp_path / "secret.h5ad"
    secret.write_bytes(path.read_bytes())
    with h5py.File(path, "a") as file:
        lead(file, str(secret))
    with pytest.raises(InputError, match="is a link to another file|lie in another file"):
        open_slide("h5ad", path)


# --- the same in other containers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("region", ["../../outside", "/etc", "..", "a/b"])
def test_a_region_does_not_lead_out_of_its_store(tmp_path, region):
    import zarr

    spatialdata.write(tmp_path / "store.zarr")
    table = zarr.open_group(tmp_path / "store.zarr" / spatialdata.TABLE, mode="r+")
    table.attrs["region"] = region
    with pytest.raises(InputError, match=r"its region '.*' is no name of an element but a path"):
        open_slide("spatialdata", tmp_path / "store.zarr")


@pytest.mark.parametrize(("part", "place", "value"), [("indices", 2, 999), ("indices", 2, -1), ("indptr", 4, 10**6)])
def test_bad_indices_in_a_store_are_told(tmp_path, part, place, value):
    import zarr

    spatialdata.write(tmp_path / "store.zarr")
    matrix = zarr.open_group(tmp_path / "store.zarr" / spatialdata.TABLE / "X", mode="r+")
    matrix[part][place] = value
    with pytest.raises(InputError, match="the matrix X is damaged: ind"):
        open_slide("spatialdata", tmp_path / "store.zarr")


@pytest.mark.parametrize("part", ["tables", "tables/table/X", "tables/table/obs/_index", "shapes"])
def test_a_link_out_of_a_spatialdata_store_is_refused(tmp_path, part):
    spatialdata.write(tmp_path / "store.zarr")
    inside = tmp_path / "store.zarr" / part
    inside.rename(tmp_path / "elsewhere")
    inside.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=rf"store.zarr: {part} is a link out of the store, to .*elsewhere; put a copy"):
        open_slide("spatialdata", tmp_path / "store.zarr")
    if part.startswith("tables/"):
        with pytest.raises(InputError, match=f"store.zarr: {part} is a link out of the store"):
            open_slide("spatialdata", tmp_path / "store.zarr" / spatialdata.TABLE)
    # Within the store, and to the store, links are followed.
    inside.unlink()
    (tmp_path / "elsewhere").rename(tmp_path / "store.zarr/kept")
    inside.symlink_to(tmp_path / "store.zarr/kept")
    (tmp_path / "link.zarr").symlink_to(tmp_path / "store.zarr")
    assert open_slide("spatialdata", tmp_path / "link.zarr").n_obs
