"""Readers of bundles, each on a fixture in its true layout whose content is known in full."""

import json

import anndata
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import scipy.sparse as sp
import zarr

from layouts import cosmx_flat, edit, merscope, spatialdata, visium, visium_perturbmap, xenium
from layouts.tissue import make_tissue
from slides import list_filters
from tissue_counterfactuals.config import load_config
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources import READERS

LAYOUTS = {
    module.__name__.removeprefix("layouts."): module
    for module in (cosmx_flat, merscope, spatialdata, visium, visium_perturbmap, xenium)
}


def read(entry, samples=None, **more):
    """A slide, as the rule reads it."""
    dataset = {"columns": {}} | entry | more
    reader = READERS[dataset["source"]]
    return reader.open(reader.locate(dataset["path"]), dataset, samples)


def notes(slide):
    return json.loads(slide.uns["provenance"]["notes"])


def filters(slide):
    return dict(
        zip(list_filters(slide)["filter"], list_filters(slide).iloc[:, 1:].to_numpy().tolist(), strict=True)
    )  # fmt: skip


def assert_holds(slide, tissue, prefix="", labels=True, atol=1e-9):
    """The slide is the tissue, cell by cell, however the files were ordered."""
    ids = [prefix + cell for cell in tissue.cells]
    assert sorted(slide.obs_names) == sorted(ids)
    place = slide.obs_names.get_indexer(ids)
    assert list(slide.var_names) == tissue.genes
    np.testing.assert_array_equal(slide.X[place].toarray(), tissue.counts)
    np.testing.assert_allclose(slide.obsm["spatial"][place], tissue.places_um, atol=atol)
    assert (slide.X.dtype, slide.obsm["spatial"].dtype) == (np.float32, np.float64)
    if labels:
        assert list(slide.obs["cell_type"].iloc[place]) == list(tissue.cell_type)
        assert list(slide.obs["domain"].iloc[place]) == list(tissue.domain)


# --- each layout as it is ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("matrix", ["h5", "mtx"])
@pytest.mark.parametrize("cells", ["csv.gz", "parquet"])
@pytest.mark.parametrize("outs", [True, False])
def test_xenium(tmp_path, matrix, cells, outs):
    folder = tmp_path / "brain" / "outs" if outs else tmp_path / "brain"
    tissue = xenium.write(folder, seed=3, matrix=matrix, cells=cells)
    slide = read({"source": "xenium", "path": tmp_path / "brain", "labels": folder / "labels.csv"})
    assert_holds(slide, tissue)
    assert set(slide.obs["sample"]) == {"brain"}
    name = "brain: features that are genes"
    assert filters(slide) == {name: [90, 90, 15, 12]}
    assert any("stood in another order" in note for note in notes(slide))


def test_xenium_places_in_pixels_are_scaled_along_both_axes(tmp_path):
    tissue = xenium.write(tmp_path / "a")
    edit.scale_columns(tmp_path / "a/cells.csv.gz", ["x_centroid", "y_centroid"], 1 / xenium.UM_PER_PIXEL)
    assert_holds(read(xenium.entry(tmp_path / "a"), unit_um=xenium.UM_PER_PIXEL), tissue, atol=1e-6)


def test_xenium_without_labels_gets_one_for_all(tmp_path):
    tissue = xenium.write(tmp_path / "a", labels=False)
    slide = read({"source": "xenium", "path": tmp_path / "a"})
    assert_holds(slide, tissue, labels=False)
    assert set(slide.obs["cell_type"]) == {"cell"}
    assert set(slide.obs["domain"]) == {"tissue"}
    assert "a: no column 'domain': every cell has the domain 'tissue'" in notes(slide)


def test_two_bundles_are_two_samples(tmp_path):
    first = xenium.write(tmp_path / "both/left", seed=1)
    second = xenium.write(tmp_path / "both/right", seed=2)
    entry = {"source": "xenium", "path": tmp_path / "both"}
    reader = READERS["xenium"]
    files = reader.locate(entry["path"])
    assert reader.samples(files, entry) == ["left", "right"]
    slide = read(entry)
    for name, tissue in (("left", first), ("right", second)):
        own = slide[(slide.obs["sample"] == name).to_numpy()]
        assert_holds(own, tissue, prefix=f"{name}_", labels=False)
    assert_holds(read(entry, samples=["right"]), second, prefix="right_", labels=False)
    with pytest.raises(InputError, match="samples names 'middle', which is not there; there are left, right"):
        read(entry, samples=["middle"])


def test_genes_that_not_all_samples_have_are_left_out_and_counted(tmp_path):
    xenium.write(tmp_path / "both/left", seed=1)
    xenium.write(tmp_path / "both/right", seed=2)

    def rename(matrix):
        names = matrix["features/name"][:]
        names[3] = b"OTHER"
        edit.replace(matrix["features"], "name", names)

    edit.edit_10x(tmp_path / "both/right/cell_feature_matrix.h5", rename)
    slide = read({"source": "xenium", "path": tmp_path / "both"})
    assert "GENE3" not in slide.var_names
    assert filters(slide)["genes of all samples"] == [180, 180, 12, 11]


def test_the_real_bundle(real_data):
    slide = read({"source": "xenium", "path": real_data / "xenium_small"})
    cells = pd.read_csv(real_data / "xenium_small/cells.csv.gz", dtype={"cell_id": str})
    assert list(slide.obs_names) == ["1", "2", "3", "4", "5", "6"]
    assert list(slide.var_names[:3]) == ["ABCC11", "ACTA2", "ACTG2"]
    np.testing.assert_allclose(
        slide.obsm["spatial"],
        cells.set_index("cell_id").loc[slide.obs_names, ["x_centroid", "y_centroid"]],
    )
    assert slide.X.sum() == 21


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("matrix", ["h5", "mtx"])
def test_visium(tmp_path, version, matrix):
    tissue = visium.write(tmp_path / "liver", seed=4, version=version, matrix=matrix)
    slide = read(visium.entry(tmp_path / "liver"))
    # Pixels are whole numbers, so a pitch fitted over the lattice is off by a thousandth at most.
    assert_holds(slide, tissue, prefix="liver_", atol=2.0)
    name = "liver: features that are genes"
    assert filters(slide) == {
        name: [102, 102, 13, 12],
        "liver: spots in tissue": [102, 100, 12, 12],
    }
    (decided,) = [note for note in notes(slide) if "100 um" in note]
    assert decided == "liver: the lattice pitch of 137 pixels was taken for 100 um"


def test_visium_samples_with_the_same_barcodes(tmp_path):
    first = visium.write(tmp_path / "pair/a", seed=1)
    second = visium.write(tmp_path / "pair/b", seed=2, version=1)
    assert set(first.cells) & set(second.cells)
    slide = read({"source": "visium", "path": tmp_path / "pair"})
    for name, tissue in (("a", first), ("b", second)):
        own = slide[(slide.obs["sample"] == name).to_numpy()]
        assert_holds(own, tissue, prefix=f"{name}_", labels=False, atol=2.0)


def test_visium_pixel_size_may_be_configured_or_stand_in_the_scale_factors(tmp_path):
    tissue = visium.write(tmp_path / "a")
    pixels = tissue.places_um / visium.UM_PER_PIXEL
    tissue.places_um = pixels * 0.72
    assert_holds(read(visium.entry(tmp_path / "a"), unit_um=0.72), tissue, prefix="a_")
    path = tmp_path / "a/spatial/scalefactors_json.json"
    path.write_text('{"microns_per_pixel": 0.25}')
    tissue.places_um = pixels * 0.25
    # No lattice of 100 um, but bins of Visium HD come so.
    assert_holds(read(visium.entry(tmp_path / "a")), tissue, prefix="a_")


def test_perturbmap(tmp_path):
    tissue = visium_perturbmap.write(tmp_path / "geo", seed=2, doubled_symbols=2)
    entry = visium_perturbmap.entry(tmp_path / "geo")
    slide = read(entry)
    assert set(slide.obs["sample"]) == {"KP_1", "KP_2"}
    assert list(slide.var_names[-2:]) == [f"{gene}-1" for gene in tissue.genes[:2]]
    assert slide.X[:, -2:].nnz == 0
    assert slide.uns["provenance"]["repeated_symbols"] == "2"
    assert_holds(slide[:, :-2], tissue, atol=2.0)
    for section in ("KP_1", "KP_2"):
        n = (slide.obs["sample"] == section).sum()
        assert filters(slide)[f"{section}: spots not listed as off tissue"][:2] == [n + 3, n]
    assert not any("joined by barcode" in note for note in notes(slide))
    one = read(entry, samples=["KP_2"])
    assert list(one.obs_names) == list(slide.obs_names[slide.obs["sample"] == "KP_2"])


def test_perturbmap_annotation_in_another_order_is_joined_and_reported(tmp_path):
    tissue = visium_perturbmap.write(tmp_path, n_sections=1)
    edit.reverse_rows(tmp_path / visium_perturbmap.FILES[2])
    slide = read(visium_perturbmap.entry(tmp_path))
    assert_holds(slide, tissue, atol=2.0)
    (note,) = [note for note in notes(slide) if "spot_annotation" in note and "order" in note]
    assert "by position, as the authors of Celcomen do, labels would be mixed up" in note


def test_perturbmap_off_tissue_list_without_header(tmp_path):
    tissue = visium_perturbmap.write(tmp_path, n_sections=1)
    path = tmp_path / visium_perturbmap.FILES[3]
    edit.write_text(path, "\n".join(pd.read_csv(path)["barcode"]) + "\n")
    assert_holds(read(visium_perturbmap.entry(tmp_path)), tissue, atol=2.0)


@pytest.mark.parametrize("um_per_pixel", [0.12028, 0.18])
def test_cosmx_flat_files(tmp_path, um_per_pixel):
    tissue = cosmx_flat.write(tmp_path / "S1", seed=5, um_per_pixel=um_per_pixel)
    slide = read(cosmx_flat.entry(tmp_path / "S1"))
    assert_holds(slide, tissue)
    assert filters(slide) == {
        "S1: features that are genes": [92, 92, 14, 12],
        "S1: rows that are cells": [92, 90, 12, 12],
    }
    assert f"S1: one pixel is {um_per_pixel:g} um, as {cosmx_flat.POSITIONS} says in pixels and millimetres" in notes(
        slide
    )


@pytest.mark.parametrize(
    ("corner", "um_per_pixel"),
    [((4200, 4100), 0.12028), ((5400, 3600), 0.18), ((4200, 3600), None), ((5400, 4100), None)],
)
def test_cosmx_pixel_is_told_by_the_camera_that_holds_the_cells_or_asked_for(tmp_path, corner, um_per_pixel):
    tissue = cosmx_flat.write(tmp_path / "S1", um_per_pixel=um_per_pixel or 0.12028)
    (tmp_path / "S1" / cosmx_flat.POSITIONS).unlink()

    def place(table):
        table.loc[0, ["CenterX_local_px", "CenterY_local_px"]] = corner
        return table

    edit.edit_csv(tmp_path / "S1" / cosmx_flat.METADATA, place)
    if um_per_pixel:
        slide = read(cosmx_flat.entry(tmp_path / "S1"))
        assert_holds(slide, tissue)
        assert any(f"one pixel is {um_per_pixel} um, as of the camera with" in n for n in notes(slide))
        return
    with pytest.raises(InputError, match=r"tell how large a pixel is; set unit_um, 0\.12028 for the"):
        read(cosmx_flat.entry(tmp_path / "S1"))
    assert_holds(read(cosmx_flat.entry(tmp_path / "S1"), unit_um=0.12028), tissue)


def write_fields(folder, sides_um, swapped=False):
    """4 x 12 fields of view, the side of a pixel along x and y as given; a minus runs the other way on the stage."""
    x, y = (grid.ravel() * 4256.0 for grid in np.meshgrid(np.arange(4), np.arange(12)))
    stage = [x * sides_um[0] / 1000, y * sides_um[1] / 1000]
    table = {"fov": range(1, 49), "x_global_px": x, "y_global_px": y}
    table |= dict(zip(("x_global_mm", "y_global_mm"), stage[:: -1 if swapped else 1], strict=True))
    pd.DataFrame(table).to_csv(folder / cosmx_flat.POSITIONS, index=False)


def test_cosmx_axes_may_run_the_other_way_on_the_stage(tmp_path):
    tissue = cosmx_flat.write(tmp_path / "S1")
    write_fields(tmp_path / "S1", (0.12028, -0.12028))
    assert_holds(read(cosmx_flat.entry(tmp_path / "S1")), tissue)


@pytest.mark.parametrize(
    ("sides_um", "swapped", "words"),
    [
        ((0.12028, 0.14), False, "do not lie in pixels as they do in millimetres"),
        ((0.12028, 0.12028), True, "do not lie in pixels as they do in millimetres"),
        ((0.3, 0.3), False, r"a pixel is 0\.3 um, but those of CosMx are 0\.12 to 0\.18 um"),
    ],
)
def test_cosmx_fields_that_tell_no_pixel_are_refused(tmp_path, sides_um, swapped, words):
    cosmx_flat.write(tmp_path / "S1")
    write_fields(tmp_path / "S1", sides_um, swapped)
    with pytest.raises(InputError, match=words):
        read(cosmx_flat.entry(tmp_path / "S1"))


def test_merscope_keeps_ids_of_nineteen_digits_apart(tmp_path):
    tissue = merscope.write(tmp_path / "region_0", seed=6)
    slide = read(merscope.entry(tmp_path / "region_0"))
    assert_holds(slide, tissue)
    assert filters(slide) == {"region_0: features that are genes": [90, 90, 14, 12]}


def test_dense_tables_are_read_in_blocks(tmp_path, monkeypatch):
    from tissue_counterfactuals.sources import text_tables

    tissue = merscope.write(tmp_path / "a")
    monkeypatch.setattr(text_tables, "_BLOCK_BYTES", 400)
    assert_holds(read(merscope.entry(tmp_path / "a")), tissue)


@pytest.mark.parametrize("zarr_format", [3, 2])
@pytest.mark.parametrize("polygons", [False, True])
def test_spatialdata_places_from_shapes(tmp_path, polygons, zarr_format):
    tissue = spatialdata.write(tmp_path / "s.zarr", seed=7, polygons=polygons, zarr_format=zarr_format)
    slide = read(spatialdata.entry(tmp_path / "s.zarr"))
    assert_holds(slide, tissue)
    assert set(slide.obs["sample"]) == {"cells"}
    assert "cells: coordinates are the centres of cells in the coordinate system 'global'" in notes(slide)


def test_spatialdata_places_from_obsm_and_another_layer(tmp_path):
    tissue = spatialdata.write(tmp_path / "s.zarr", obsm=True)

    def move(data):
        data.layers["counts"] = data.X.copy()
        data.X = data.X.log1p()

    edit.edit_anndata(tmp_path / "s.zarr/tables/table", move)
    slide = read(spatialdata.entry(tmp_path / "s.zarr"), layer="counts")
    assert_holds(slide, tissue)
    assert notes(slide) == ["cells: coordinates are obsm['spatial']"]


def test_an_array_that_a_spatialdata_table_has_not_is_not_replaced_by_shapes(tmp_path):
    spatialdata.write(tmp_path / "s.zarr", obsm=True)
    sentence = r"no array of coordinates 'spatail' in obsm \(key spatial\), it has spatial;"
    entry = spatialdata.entry(tmp_path / "s.zarr")
    with pytest.raises(InputError, match=sentence):
        read(entry, spatial="spatail")
    # Before anything is planned, too.
    defaults = {"control_domain": "a", "target_domains": ["b"]}
    with pytest.raises(InputError, match=rf"^config: datasets.mine: file .*{sentence}"):
        load_config({"datasets": {"mine": defaults | entry | {"spatial": "spatail"}}})


@pytest.mark.parametrize("cell_area", [None, np.nan, 20.0])
def test_dense_tissue_in_pixels_does_not_pass_for_micrometres(tmp_path, cell_area):
    """Neighbours 4.3 um apart are 20 pixels apart, which loose tissue may be in micrometres."""
    spatialdata.write(tmp_path / "s.zarr")
    spatialdata.scale_shapes(tmp_path / "s.zarr", 0.5)

    def set_area(data):
        data.obs = data.obs.drop(columns="cell_area")
        if cell_area is not None:
            data.obs["cell_area"] = cell_area

    edit.edit_anndata(tmp_path / "s.zarr/tables/table", set_area)
    words = (
        r"cells lie 20\.\d um from their nearest neighbour" if cell_area == 20 else "in what unit .* 'global' .* is;"
    )
    with pytest.raises(InputError, match=words):
        read(spatialdata.entry(tmp_path / "s.zarr"))
    assert read(spatialdata.entry(tmp_path / "s.zarr"), unit_um=spatialdata.UM_PER_PIXEL).n_obs


def axes(names, unit="unit"):
    return [{"name": name, "type": "space", "unit": unit} for name in names]


@pytest.mark.parametrize("system", ["global", "microns", "by unit"])
def test_spatialdata_transformations(tmp_path, system):
    """Scale by 0.4 and 0.6, then a quarter turn and a shift, written out by hand, on axes (y, x)."""
    tissue = spatialdata.write(tmp_path / "s.zarr")
    pixels = tissue.places_um / spatialdata.UM_PER_PIXEL
    output = {
        "name": "aligned" if system == "by unit" else system,
        "axes": axes("yx", "micrometer" if system == "by unit" else "unit"),
    }
    ends = {"input": {"name": "yx", "axes": axes("yx")}, "output": output}
    moved = {
        "type": "sequence",
        "transformations": [
            {"type": "scale", "scale": [0.6, 0.4]} | ends,
            {"type": "affine", "affine": [[0, 1, 5.0], [-1, 0, 7.0], [0, 0, 1]]} | ends,
            {"type": "translation", "translation": [100.0, 1000.0]} | ends,
        ],
    } | ends
    other = {"type": "identity", "input": ends["input"], "output": {"name": "global", "axes": axes("yx")}}
    chosen = [moved] if system == "global" else [other, moved]
    spatialdata.set_transformation(tmp_path / "s.zarr", chosen)
    x, y = 0.4 * pixels[:, 0], 0.6 * pixels[:, 1]
    tissue.places_um = np.column_stack([-y + 7 + 1000, x + 5 + 100])
    if system != "global":
        # Then nothing else needs to tell the unit.
        edit.edit_anndata(
            tmp_path / "s.zarr/tables/table", lambda data: data.obs.drop(columns="cell_area", inplace=True)
        )
    assert_holds(read(spatialdata.entry(tmp_path / "s.zarr")), tissue)


def test_spatialdata_with_two_tables_asks_which(tmp_path):
    spatialdata.write(tmp_path / "s.zarr", seed=1, name="first")
    tissue = spatialdata.write(tmp_path / "s.zarr", seed=1, name="second")
    with pytest.raises(InputError, match="holds the tables first, second; name one of them in path"):
        read(spatialdata.entry(tmp_path / "s.zarr"))
    assert_holds(read(spatialdata.entry(tmp_path / "s.zarr/tables/second")), tissue)


def test_spatialdata_with_a_lost_chunk_is_refused(tmp_path):
    spatialdata.write(tmp_path / "s.zarr")
    spatialdata.FILES[0](tmp_path / "s.zarr").unlink()
    with pytest.raises(InputError, match=r"1 of 1 chunks of X/data are missing; fetch the store"):
        read(spatialdata.entry(tmp_path / "s.zarr"))


def test_spatialdata_raster_region_needs_centroids(tmp_path):
    spatialdata.write(tmp_path / "s.zarr")
    zarr.open_group(tmp_path / "s.zarr/tables/table", mode="r+").attrs["region"] = "cells"
    (tmp_path / "s.zarr/shapes/cells").rename(tmp_path / "s.zarr/shapes/others")
    with pytest.raises(InputError, match=r"is neither shapes nor points of the store; write the centroids"):
        read(spatialdata.entry(tmp_path / "s.zarr"))


@pytest.mark.parametrize("spacing_um", [4.0, 10.0, 30.0])
def test_xenium_pixels_are_told_by_the_size_of_the_cells(tmp_path, spacing_um):
    """Dense tissue: neighbours 4 um apart are 19 pixels apart, which loose tissue may be in micrometres."""
    path = tmp_path / "a/cells.csv.gz"
    xenium.write(tmp_path / "a")

    def as_tissue(table):
        for column in ("x_centroid", "y_centroid"):
            table[column] = table[column].astype(float) * spacing_um / 10
        return table.assign(cell_area=spacing_um**2)

    edit.edit_csv(path, as_tissue)
    assert read(xenium.entry(tmp_path / "a")).n_obs == 90
    edit.scale_columns(path, ["x_centroid", "y_centroid"], 1 / xenium.UM_PER_PIXEL)
    with pytest.raises(InputError, match=r"cells.csv.gz: cells lie .* are possible.*; set unit_um"):
        read(xenium.entry(tmp_path / "a"))
    # What the user says is taken at its word.
    for unit_um in (xenium.UM_PER_PIXEL, 1.0):
        assert read(xenium.entry(tmp_path / "a"), unit_um=unit_um).n_obs == 90


@pytest.mark.parametrize("change", [edit.truncate, edit.web_page])
@pytest.mark.parametrize(
    "name",
    [
        "cells.parquet",
        "cell_feature_matrix/matrix.mtx.gz",
        "cell_feature_matrix/barcodes.tsv.gz",
        "cell_feature_matrix/features.tsv.gz",
    ],
)
def test_other_forms_of_a_bundle_are_not_half_read(tmp_path, name, change):
    xenium.write(tmp_path / "a", matrix="mtx", cells="parquet")
    change(tmp_path / "a" / name)
    with pytest.raises(InputError, match=rf"^file .*{name}: .*fetch .*\.$"):
        read(xenium.entry(tmp_path / "a"))


@pytest.mark.parametrize("n_bytes", [1, 2, 3, 40, 400])
def test_no_cut_through_a_table_goes_unseen(tmp_path, n_bytes):
    """Also not one that leaves a number a number, or whole lines."""
    merscope.write(tmp_path / "a")
    path = tmp_path / "a/cell_by_gene.csv"
    whole = path.read_bytes()
    path.write_bytes(whole[:-n_bytes])
    with pytest.raises(InputError, match="cut short"):
        read(merscope.entry(tmp_path / "a"))
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:60]))
    with pytest.raises(InputError, match=r"no row for 31 of the 90 ids of .*cell_metadata"):
        read(merscope.entry(tmp_path / "a"))


# --- labels and faults ------------------------------------------------------------------------------------------


def test_labels_under_other_names_for_each_sample(tmp_path):
    xenium.write(tmp_path / "both/left", seed=1)
    xenium.write(tmp_path / "both/right", seed=2)
    tables = []
    for name in ("left", "right"):
        table = pd.read_csv(tmp_path / f"both/{name}/labels.csv")
        tables.append(table.rename(columns={"cell_type": "cluster"}).assign(section=name))
    tables[1]["cluster"] += " of the right"
    pd.concat(tables).to_csv(tmp_path / "all.tsv", sep="\t", index=False)
    columns = {"cell_type": "cluster", "domain": "domain", "sample": "section"}
    slide = read(
        {"source": "xenium", "path": tmp_path / "both"},
        columns=columns,
        labels=tmp_path / "all.tsv",
    )
    right = slide.obs["sample"] == "right"
    assert slide.obs["cell_type"].str.endswith("of the right").to_numpy().tolist() == right.tolist()


def test_labels_of_samples_that_share_their_ids_are_not_mixed_up(tmp_path):
    first = visium.write(tmp_path / "pair/a", seed=1)
    second = visium.write(tmp_path / "pair/b", seed=2)
    entry = {"source": "visium", "path": tmp_path / "pair"}
    with pytest.raises(InputError, match=r"is a cell of sample 'a' \('a_[ACGT]{16}-1', \.\.\.\)"):
        read(entry, labels=tmp_path / "pair/a/labels.csv")
    tables = []
    for name in ("a", "b"):
        table = pd.read_csv(tmp_path / "pair" / name / "labels.csv")
        tables.append(table.assign(Barcode=f"{name}_" + table["Barcode"]))
    pd.concat(tables).to_csv(tmp_path / "all.csv", index=False)
    slide = read(entry, labels=tmp_path / "all.csv")
    for name, tissue in (("a", first), ("b", second)):
        own = slide[(slide.obs["sample"] == name).to_numpy()]
        assert_holds(own, tissue, prefix=f"{name}_", atol=2.0)


def test_a_label_column_in_other_letters_is_not_taken_for_absent(tmp_path):
    xenium.write(tmp_path / "a")
    table = pd.read_csv(tmp_path / "a/labels.csv")
    table.rename(columns={"cell_type": "Cell Type"}).to_csv(tmp_path / "labels.csv", index=False)
    entry = {"source": "xenium", "path": tmp_path / "a", "labels": tmp_path / "labels.csv"}
    with pytest.raises(InputError, match="no column .cell_type., and .Cell Type. is much like it; name it"):
        read(entry)
    slide = read(entry, columns={"cell_type": "Cell Type"})
    assert slide.obs["cell_type"].nunique() == table["cell_type"].nunique() > 1


def test_a_missing_file_of_labels_is_told_before_the_run(tmp_path):
    xenium.write(tmp_path / "a", labels=False)
    entry = xenium.entry(tmp_path / "a") | {"experiments": ["celcomen_spleen"]}
    with pytest.raises(InputError, match=r"datasets\.a\.labels: there is no file '.*labels\.csv'"):
        load_config({"datasets": {"a": entry}})


def test_a_download_is_called_as_its_data_set_and_not_as_what_its_link_leads_to(tmp_path):
    tissue = xenium.write(tmp_path / "cache/0123abcd", labels=False)
    folder = tmp_path / "results/downloads/glioblastoma"
    folder.mkdir(parents=True)
    files = {}
    for role, name in (("matrix", "cell_feature_matrix.h5"), ("cells", "cells.csv.gz")):
        files[role] = folder / f"Xenium_V1_{name}"
        files[role].symlink_to(tmp_path / "cache/0123abcd" / name)
    dataset = {"path": None, "files": "glioblastoma", "columns": {}}
    slide = READERS["xenium"].open(files, dataset, None)
    assert_holds(slide, tissue, labels=False)
    assert set(slide.obs["sample"]) == {"glioblastoma"}
    assert slide.uns["provenance"]["source"] == "glioblastoma"


def test_labels_that_fit_nothing_are_refused(tmp_path):
    xenium.write(tmp_path / "a")
    edit.edit_csv(tmp_path / "a/labels.csv", lambda t: t.assign(cell_id="x_" + t["cell_id"]))
    with pytest.raises(InputError, match=r"none of its ids \('x_cell_\d+', \.\.\.\) is a cell of sample 'a'"):
        read(xenium.entry(tmp_path / "a"))
    with pytest.raises(InputError, match=r"there is no column 'kind' \(key columns\.cell_type\)"):
        read({"source": "xenium", "path": tmp_path / "a"}, columns={"cell_type": "kind"})


def test_a_table_that_lacks_many_cells_is_refused_and_few_are_counted(tmp_path):
    xenium.write(tmp_path / "a")
    path = tmp_path / "a/cells.csv.gz"
    edit.drop_rows(path, 5)
    slide = read(xenium.entry(tmp_path / "a"))
    assert filters(slide)["a: cells that stand in cells.csv.gz"] == [90, 85, 12, 12]
    edit.drop_rows(path, 20)
    with pytest.raises(InputError, match=r"no row for 25 of the 90 ids of .*\(28%, .* cut short"):
        read(xenium.entry(tmp_path / "a"))


@pytest.mark.parametrize("column", ["array_row", "array_col"])
def test_positions_that_make_no_lattice_are_refused(tmp_path, column):
    visium.write(tmp_path / "a")

    def mix(table):
        table[column] = table[column].to_numpy()[::-1]
        return table

    edit.edit_csv(tmp_path / "a/spatial/tissue_positions.csv", mix)
    with pytest.raises(InputError, match="do not make the hexagonal lattice of Visium"):
        read(visium.entry(tmp_path / "a"))


def test_planning_reads_no_counts_and_imports_nothing_slow(tmp_path, root):
    import subprocess
    import sys

    visium_perturbmap.write(tmp_path)
    code = (
        "import sys; from tissue_counterfactuals.sources import READERS; r = READERS['visium_perturbmap']; "
        f"print(r.samples(r.locate({str(tmp_path)!r}), {{}})); print([m for m in ('anndata', 'scanpy', 'pyarrow', "
        "'pandas') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(root / "workflow")}
    )
    assert run.stdout.splitlines() == ["['KP_1', 'KP_2']", "[]"], run.stderr


@pytest.mark.parametrize("layout", LAYOUTS)
def test_same_files_same_slide(tmp_path, layout):
    module = LAYOUTS[layout]
    module.write(tmp_path / "a")
    first, second = (read(module.entry(tmp_path / "a")) for _ in range(2))
    assert first.uns["provenance"] == second.uns["provenance"]
    assert len(first.uns["provenance"]["sha256"]) == 64
    assert (first.X != second.X).nnz == 0


# --- how many cells, before anything is read --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet", "mtx"])
def test_cells_and_genes_are_told_without_counts_and_cells_no_further_than_asked(tmp_path, kind):
    for name, n_cells in (("a", 90), ("b", 60)):
        if kind.startswith("csv"):
            (tmp_path / name).mkdir()
            for file in ("cell_metadata", "cell_by_gene"):
                table = pd.DataFrame({"EntityID": np.arange(n_cells), "fov": 1, "GENE1": 0, name: 0, "GENE0": 0})
                table.to_csv(tmp_path / name / f"{file}.{kind}", index=False)
        else:
            matrix = "mtx" if kind == "mtx" else "h5"
            xenium.write(tmp_path / name, matrix=matrix, cells="parquet", tissue=make_tissue(n_cells))
    reader = READERS["merscope" if kind.startswith("csv") else "xenium"]
    files = reader.locate(tmp_path)
    assert reader.adapter.cells(files, {}, 1000) == {"a": 90, "b": 60}
    # Neither ids nor controls, nor what one sample alone has.
    genes = ["GENE1", "GENE0"] if kind.startswith("csv") else make_tissue().genes
    assert reader.genes(files, {"samples": None}) == genes
    assert ("a" in reader.genes(files, {"samples": ["a"]})) == kind.startswith("csv")
    # A header says it at once.
    assert reader.adapter.cells(files, {}, 70) == {"a": 90 if kind == "parquet" else 70, "b": 60}


def test_cells_of_several_regions_are_counted_apart(tmp_path):
    store = tmp_path / "two.zarr"
    spatialdata.write(store, obsm=True)
    table = anndata.io.read_zarr(store / "tables/table")
    table.obs["region"] = pd.Categorical(["left"] * 70 + ["right"] * 19 + [None])
    table.uns = {}
    table.write_zarr(store / "tables/table")
    attributes = {"region": ["right", "left", "none"], "region_key": "region", "instance_key": "instance"}
    zarr.open_group(store / "tables/table", mode="r+").attrs.update(attributes)
    reader = READERS["spatialdata"]
    assert reader.adapter.cells(reader.locate(store), {}, 1) == {"right": 19, "left": 70, "none": 0}


# --- what belongs to another slide or sample --------------------------------------------------------------------


def test_cosmx_labels_of_another_slide_are_refused(tmp_path):
    """Fields and cells have the same numbers on every slide: only the id's first number tells them apart."""
    tissue = cosmx_flat.write(tmp_path / "S1")

    def call(slide):
        def edited(table):
            ids = [f"c_{slide}_{cell}" for cell in tissue.cells]
            return table.assign(cell_id=ids)

        edit.edit_csv(tmp_path / "S1/labels.csv", edited)

    edit.edit_csv(
        tmp_path / "S1" / cosmx_flat.METADATA,
        lambda table: table.assign(cell="c_1_" + table["fov"].astype(str) + "_" + table["cell_ID"].astype(str)),
    )
    entry = cosmx_flat.entry(tmp_path / "S1")
    assert_holds(read(entry), tissue)  # ids without a slide
    call(2)
    with pytest.raises(
        InputError, match=r"are of slide 2, those of sample 'S1' of slide 1, and every slide numbers its"
    ):
        read(entry)
    edit.edit_csv(
        tmp_path / "S1/labels.csv",
        lambda table: table.assign(cell_id=table["cell_id"].str[:2] + "1" + table["cell_id"].str[3:]),
    )
    assert_holds(read(entry), tissue)


def test_cosmx_slides_on_top_of_each_other_are_told_by_their_number(tmp_path):
    tissue = cosmx_flat.write(tmp_path / "S1")
    number = dict(zip(tissue.cells, np.random.default_rng(0).integers(1, 3, len(tissue.cells)), strict=True))

    def two_slides(table):
        return table.assign(slide_ID=[number[f"{f}_{c}"] for f, c in zip(table["fov"], table["cell_ID"], strict=True)])

    edit.edit_csv(tmp_path / "S1" / cosmx_flat.METADATA, two_slides)
    with pytest.raises(
        InputError, match="values of the column 'slide_ID' stand among each other, .* a file, or a region"
    ):
        read(cosmx_flat.entry(tmp_path / "S1"))


def test_sections_in_one_region_of_a_store_are_told_by_a_column(tmp_path):
    tissue = spatialdata.write(tmp_path / "s.zarr", obsm=True)
    halves = np.random.default_rng(0).integers(0, 2, len(tissue.cells)).astype(str)
    edit.edit_anndata(tmp_path / "s.zarr/tables/table", lambda data: data.obs.insert(0, "patient", halves))
    with pytest.raises(InputError, match="values of the column 'patient' stand among each other"):
        read(spatialdata.entry(tmp_path / "s.zarr"))


def test_a_sample_whose_matrix_is_missing_is_told(tmp_path):
    xenium.write(tmp_path / "runs/A")
    xenium.write(tmp_path / "runs/B", seed=1)
    (tmp_path / "runs/notes").mkdir()
    entry = xenium.entry(tmp_path / "runs") | {"labels": None}
    assert read(entry).obs["sample"].nunique() == 2
    (tmp_path / "runs/B/cell_feature_matrix.h5").unlink()
    with pytest.raises(InputError, match=r"the file cell_feature_matrix.h5.* of sample 'B', .* is missing; fetch it"):
        read(entry)


def test_slides_that_spaceranger_aggr_put_together_are_refused(tmp_path):
    visium.write(tmp_path / "run")
    path = tmp_path / "run/spatial/tissue_positions.csv"

    def two(table):
        second = table[table["in_tissue"] == "1"].iloc[:40].copy()
        second["barcode"] = second["barcode"].str.replace("-1", "-2")
        second["pxl_row_in_fullres"] = second["pxl_row_in_fullres"].astype(int) + 12
        return pd.concat([table, second])

    edit.edit_csv(path, two)
    matrix = tmp_path / "run/filtered_feature_bc_matrix.h5"
    with h5py.File(matrix, "r+") as file:
        names = file["matrix/barcodes"][:]
        spots = pd.read_csv(path)
        second = spots[spots["barcode"].str.endswith("-2")]["barcode"].str.replace("-2", "-1").tolist()
        kept = [name.decode() for name in names if name.decode() not in second]
        renamed = dict(zip(kept, (s.replace("-1", "-2") for s in second), strict=False))
        del file["matrix/barcodes"]
        file["matrix/barcodes"] = np.array([renamed.get(n.decode(), n.decode()) for n in names], "S")
    with pytest.raises(
        InputError, match=r"spots share their row and column of the array with another .*aggr.*own folder"
    ):
        read(visium.entry(tmp_path / "run") | {"labels": None})


def test_a_doubled_symbol_is_the_same_gene_in_every_sample(tmp_path):
    for name in "AB":
        visium.write(tmp_path / "runs" / name)
        with h5py.File(tmp_path / "runs" / name / "filtered_feature_bc_matrix.h5", "r+") as file:
            features = file["matrix/features"]
            genes = np.flatnonzero(features["feature_type"][:] == b"Gene Expression")[:3]
            symbols, ids = features["name"][:], features["id"][:].astype("S24")
            symbols[genes[:2]] = b"TBCE"
            ids[genes] = [b"ENSG00000284770.2", b"ENSG00000285053.1", b"ENSG00000000001.7"]
            if name == "B":
                ids[genes] = [b"ENSG00000285053.1", b"ENSG00000284770.2", b"ENSG00000000001.8"]
            features["name"][...] = symbols
            del features["id"]
            features["id"] = ids
    slide = read(visium.entry(tmp_path / "runs") | {"labels": None})
    assert not {"TBCE", "TBCE-1"} & {*slide.var_names}
    assert symbols[genes[2]].decode() in slide.var_names  # another version of the annotation is the same gene
    dropped = filters(slide)["genes with one id in all samples"]
    assert dropped[2] - dropped[3] == 2
    # Some tools write the symbol in the place of the id.
    with h5py.File(tmp_path / "runs/B/filtered_feature_bc_matrix.h5", "r+") as file:
        del file["matrix/features/id"]
        file["matrix/features/id"] = file["matrix/features/name"][:]
    assert "TBCE-1" in read(visium.entry(tmp_path / "runs") | {"labels": None}).var_names


# --- stores that other versions write ---------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["data", "indices"])
def test_a_lost_chunk_of_a_sparse_matrix_is_refused(tmp_path, part):
    spatialdata.write(tmp_path / "s.zarr", obsm=True)
    (chunk,) = (tmp_path / "s.zarr/tables/table/X" / part / "c").iterdir()
    chunk.unlink()
    with pytest.raises(InputError, match=rf"1 of 1 chunks of X/{part} are missing; fetch the store again"):
        read(spatialdata.entry(tmp_path / "s.zarr"))


def test_lost_names_of_genes_are_refused(tmp_path):
    spatialdata.write(tmp_path / "s.zarr", obsm=True)
    table = zarr.open_group(tmp_path / "s.zarr/tables/table", mode="r")
    chunk = tmp_path / "s.zarr/tables/table/var" / table["var"].attrs["_index"] / "c/0"
    chunk.unlink()
    with pytest.raises(InputError, match=r"the gene symbol '' at place 0 says that there is none \(1 such in all\)"):
        read(spatialdata.entry(tmp_path / "s.zarr"))


def test_a_table_that_annotates_nothing_is_one_sample(tmp_path):
    tissue = spatialdata.write(tmp_path / "s.zarr", obsm=True)
    attributes = zarr.open_group(tmp_path / "s.zarr/tables/table", mode="r+").attrs
    attributes.update(region=None, region_key=None, instance_key=None)
    slide = read(spatialdata.entry(tmp_path / "s.zarr"))
    assert_holds(slide, tissue)
    assert set(slide.obs["sample"]) == {"s"}


def test_geometries_in_geoarrow_are_told(tmp_path):
    spatialdata.write(tmp_path / "s.zarr")
    path = tmp_path / "s.zarr/shapes/cells/shapes.parquet"
    table = pa.parquet.read_table(path)
    points = pa.array([{"x": 1.0, "y": 2.0}] * len(table))
    table = table.set_column(table.schema.get_field_index("geometry"), "geometry", points)
    pa.parquet.write_table(table, path)
    with pytest.raises(
        InputError, match="geometries are stored as struct<x: double, y: double>, but well-known binary"
    ):
        read(spatialdata.entry(tmp_path / "s.zarr"))


def test_obsm_in_another_unit_than_the_shapes_is_told(tmp_path):
    tissue = spatialdata.write(tmp_path / "s.zarr", obsm=True)
    group = zarr.open_group(tmp_path / "s.zarr/shapes/cells", mode="r+")
    steps = group.attrs["coordinateTransformations"]
    for step in steps:
        step["output"]["name"] = "microns"
    group.attrs["coordinateTransformations"] = steps
    assert_holds(read(spatialdata.entry(tmp_path / "s.zarr")), tissue)

    def shrink(data):
        data.obsm["spatial"] *= 0.6

    edit.edit_anndata(tmp_path / "s.zarr/tables/table", shrink)
    with pytest.raises(
        InputError, match=r"cells lie 1.667 times as far apart in the shapes of 'cells', in the .*'microns'"
    ):
        read(spatialdata.entry(tmp_path / "s.zarr"))
    assert_holds(read(spatialdata.entry(tmp_path / "s.zarr"), unit_um=1 / 0.6), tissue, atol=1e-6)


def test_proteins_beside_genes_need_be_no_counts(tmp_path):
    tissue = spatialdata.write(tmp_path / "s.zarr", obsm=True)

    def add_proteins(data):
        n = len(data)
        proteins = anndata.AnnData(
            sp.csr_matrix(np.full((n, 1), 0.5, np.float32)), obs=data.obs[[]], var=pd.DataFrame(index=["CD3 protein"])
        )
        both = anndata.concat([data, proteins], axis=1)
        data.var["feature_types"] = "Gene Expression"
        both.obs, both.obsm, both.uns = data.obs, data.obsm, data.uns
        both.var["feature_types"] = ["Gene Expression"] * data.n_vars + ["Protein Expression"]
        return both

    edit.edit_anndata(tmp_path / "s.zarr/tables/table", add_proteins)
    assert_holds(read(spatialdata.entry(tmp_path / "s.zarr")), tissue)


@pytest.mark.parametrize("kind", ["category", "string"])
def test_names_of_any_form_are_told_before_the_run(tmp_path, kind):
    tissue = spatialdata.write(tmp_path / "s.zarr", obsm=True)

    def name(data):
        data.var.index = data.var.index.astype(kind)
        data.obs.index = data.obs.index.astype(kind)

    with anndata.settings.override(allow_write_nullable_strings=True):
        edit.edit_anndata(tmp_path / "s.zarr/tables/table", name)
    entry = {"columns": {}} | spatialdata.entry(tmp_path / "s.zarr")
    reader = READERS["spatialdata"]
    files = reader.locate(entry["path"])
    assert reader.genes(files, entry) == tissue.genes
    assert reader.adapter.cells(files, entry, 10) == {"cells": len(tissue.cells)}
    assert_holds(read(entry), tissue)


def test_a_store_may_lie_in_a_folder_called_tables(tmp_path):
    tissue = spatialdata.write(tmp_path / "tables/s.zarr", obsm=True)
    assert_holds(read(spatialdata.entry(tmp_path / "tables/s.zarr")), tissue)
