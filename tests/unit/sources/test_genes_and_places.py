"""What is a gene, and where cells can stand: rules of all layouts."""

import json
import time

import anndata
import numpy as np
import pandas as pd
import pytest

from layouts import edit, h5ad, merscope, xenium
from slides import list_filters, read_h5ad, small_slide
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.simulate import simulate_tissue
from tissue_counterfactuals.sources import READERS
from tissue_counterfactuals.sources.genes import are_genes, tell_left_out
from tissue_counterfactuals.sources.places import (
    check_places,
    may_tell_sections,
    nearest_distance,
)
from tissue_counterfactuals.sources.tenx import read_10x

NO_GENES = [
    *("Blank-1", "blank12", "BLANK_0006", "NegPrb3", "Negative01", "SystemControl7", "FalseCode12"),
    *("NegControlProbe_00042", "NegControlCodeword_0500", "UnassignedCodeword_0001", "negprobe"),
    *("DeprecatedCodeword_0042", "antisense_ADCY4", "Intergenic_Region_12", "ERCC-00002"),
    *("slide_ID_numeric", "Slide_ID", "nCount_RNA", "nFeature_RNA", "n_counts", "fov", "cell_ID"),
    *("total_counts", "transcript_count", "volume", "center_x", "Run_Tissue_name", "Barcode"),
]
GENES = [
    *("NEGR1", "ERCC1", "MAX", "MINDY1", "PCTP", "NUMB", "CELA1", "SLIT2", "mCherry"),
    *("HLA-A", "VOLT", "Blankenship", "y", "z", "run", "CENPX", "SAMPLEX", "DEPRECATED_ENSG00000061455"),
]  # fmt: skip


def test_genes_are_told_from_controls_and_columns_about_cells():
    assert not are_genes(NO_GENES).any(), np.array(NO_GENES)[are_genes(NO_GENES)]
    assert are_genes(GENES).all(), np.array(GENES)[~are_genes(GENES)]
    kinds = ["Gene Expression", "Antibody Capture", "Gene Expression"]
    assert are_genes(["A", "B", "Blank-1"], kinds).tolist() == [True, False, False]
    assert are_genes(["A", "B"], ["gene", "gene"]).all()
    assert tell_left_out(["A", "B"], np.array([True, True])) == []
    many = tell_left_out([f"Blank-{i}" for i in range(10)], np.zeros(10, bool))
    assert many[0].endswith("Blank-7 and 2 more")


def test_an_h5ad_keeps_its_genes_in_place_when_others_are_left_out(tmp_path):
    tissue = h5ad.write(tmp_path)
    path = tmp_path / h5ad.FILES[0]

    def change(data):
        data.var["feature_types"] = "Gene Expression"
        data.var.loc["GENE5", "feature_types"] = "Antibody Capture"
        data.var_names = ["Blank-1", *data.var_names[1:]]

    edit.edit_anndata(path, change)
    slide = read_h5ad(path)
    kept = [i for i in range(12) if i not in (0, 5)]
    assert list(slide.var_names) == [f"GENE{i}" for i in kept]
    np.testing.assert_array_equal(slide.X.toarray(), tissue.counts[:, kept])
    assert list_filters(slide).query("filter == 'features that are genes'").iloc[0, 3:].tolist() == [12, 10]
    assert "left out because they are no genes: Blank-1, GENE5" in json.loads(slide.uns["provenance"]["notes"])


def test_a_matrix_without_genes_is_refused(tmp_path):
    xenium.write(tmp_path / "a", labels=False)
    path = tmp_path / "a/cell_feature_matrix.h5"
    edit.edit_10x(path, lambda m: edit.replace(m["features"], "feature_type", np.array(["Peaks"] * 15, "S")))
    with pytest.raises(InputError, match="no feature of the type Gene Expression .it has Peaks."):
        read_10x(path)


@pytest.mark.parametrize("column", ["constant", "sum of the others", "also of the metadata"])
def test_an_unknown_column_that_can_be_no_gene_is_refused(tmp_path, column):
    merscope.write(tmp_path)
    table = pd.read_csv(tmp_path / "cell_by_gene.csv", dtype={"cell": str})
    genes = table.filter(like="GENE")
    if column == "constant":
        table["mine"] = 3
    elif column == "sum of the others":
        table[genes.columns] += 1
        table["mine"] = table.filter(like="GENE").sum(axis=1)
    else:
        table["mine"] = np.arange(len(table)) % 3
        edit.edit_csv(tmp_path / "cell_metadata.csv", lambda t: t.assign(mine="2"))
    table.to_csv(tmp_path / "cell_by_gene.csv", index=False)
    files = READERS["merscope"].locate(tmp_path)
    dataset = {"columns": {}, "path": str(tmp_path)}
    with pytest.raises(InputError, match=r"column 'mine' (holds|also stands in).*no gene; remove it"):
        READERS["merscope"].open(files, dataset, None)
    edit.drop_column(tmp_path / "cell_by_gene.csv", "mine")
    assert READERS["merscope"].open(files, dataset, None).n_vars == 12


# --- places -----------------------------------------------------------------------------------------------------


def scattered(n, spacing_um, seed=0):
    """Cells at random, `spacing_um` from their nearest neighbour (median)."""
    side = np.sqrt(n * np.pi / np.log(2)) * spacing_um
    return np.random.default_rng(seed).uniform(0, side, (n, 2))


@pytest.mark.parametrize("um", [3.5, 5.0, 13.0, 20.0])
def test_tissues_pass_and_their_pixels_do_not(um):
    check_places(scattered(400, um), "file a")
    for pixel in (0.12028, 0.108) + ((0.2125,) if um > 6 else ()):
        with pytest.raises(InputError, match=r"^file a: cells lie [\d.]+ um from .*; set unit_um"):
            check_places(scattered(400, um) / pixel, "file a")
        check_places(scattered(400, um) / pixel, "file a", unit_given=True)
    with pytest.raises(InputError, match="set unit_um"):
        check_places(scattered(400, um) / 1000, "file a")


@pytest.mark.parametrize(
    ("pitch", "right"), [(100, True), (2, True), (16, True), (137, False), (290, False), (0.1, False)]
)
def test_spots_are_known_by_their_pitch(pitch, right):
    grid = np.stack(np.meshgrid(np.arange(12), np.arange(12)), -1).reshape(-1, 2) * float(pitch)
    if right:
        check_places(grid, "file a")
        return
    with pytest.raises(InputError, match=f"1 if they are right, {100 / pitch:.4g} if these are the"):
        check_places(grid, "file a")


def test_a_density_that_no_tissue_has_is_refused():
    """Cells that were each written twice, a little apart: their nearest neighbour says nothing of the unit."""
    twin = np.random.default_rng(1).normal(0, 3, (300, 2))
    right = scattered(300, 12)
    check_places(np.vstack([right, right + twin]), "file a")
    pixels = scattered(300, 12) / 0.12
    doubled = np.vstack([pixels, pixels + twin])
    assert 2.5 < nearest_distance(doubled) < 25
    message = r"^file a: cells stand [\d,]+ to a square millimetre \(median\), where 240 to 60,000 .*set unit_um to the"
    with pytest.raises(InputError, match=message):
        check_places(doubled, "file a")
    check_places(doubled, "file a", unit_given=True)
    # Denser than lymph nodes, and as regular as no tissue.
    rng = np.random.default_rng(2)
    grid = np.stack(np.meshgrid(np.arange(30), np.arange(30)), -1).reshape(-1, 2) * 3.6
    with pytest.raises(InputError, match=r"cells stand 63,000 to a square millimetre"):
        check_places(grid + rng.uniform(-0.5, 0.5, grid.shape), "file a")


def sections(offset_um, n=150):
    """Two sections of a tissue, beside each other or one on the other."""
    places = np.vstack([scattered(n, 8, seed=1), scattered(n, 8, seed=2) + [offset_um, 0]])
    return places, np.repeat([0, 1], n)


def test_sections_on_top_of_each_other_are_told_by_a_column(tmp_path):
    side = np.ptp(sections(0)[0][:, 0])
    for offset in (0, side / 4):
        places, codes = sections(offset)
        with pytest.raises(InputError, match="values of the column 'slice' stand among each other"):
            check_places(places, "file a", unit_given=True, sections={"slice": codes})
    # Beside each other, also where they touch; one section in three parts; a column of one value; missing values.
    for offset in (side, 10 * side):
        places, codes = sections(offset)
        check_places(places, "file a", sections={"slice": codes})
    places = scattered(300, 8)
    third = np.digitize(places[:, 0], np.quantile(places[:, 0], [1 / 3, 2 / 3]))
    for codes in (third, np.zeros(300, int), np.full(300, -1), np.where(third == 1, -1, third)):
        check_places(places, "file a", sections={"batch": codes})
    places[:150] = places[150:]
    with pytest.raises(InputError, match="50% of the cells stand exactly where another one does"):
        check_places(places, "file a", unit_given=True)


def test_names_of_columns_that_may_tell_sections():
    told = (
        "sample",
        "Section_ID",
        "slice",
        "library_id",
        "donor.id",
        "slide",
        "orig.ident",
        "SampleID",
        "sampleid",
        "fov",
    )
    assert all(map(may_tell_sections, (*told, "samples", "PatientID", "slideIDs", "run", "roi", "region", "Slide_ID")))
    # Seurat's ident holds clusters.
    other = (
        "array_row",
        "domain",
        "cell_type",
        "ident",
        "condition",
        "samples_n",
        "score",
        "id",
        "",
        "rod",
        "valid",
        "truncated",
    )
    assert not any(map(may_tell_sections, other))


@pytest.mark.parametrize("n_fields", [25, 130])
def test_fields_of_view_with_coordinates_of_their_own_are_refused(tmp_path, n_fields):
    """As squidpy reads CosMx: local pixels in `spatial`, those on the slide in `spatial_fov`."""
    rng = np.random.default_rng(0)
    field = np.repeat(np.arange(n_fields), 60)
    local = rng.uniform(0, [5472, 3648], (len(field), 2))
    slide = small_slide(n_cells=len(field), n_genes=3)
    slide.obs["fov"] = pd.Categorical(field.astype(str))
    slide.obsm["spatial"] = local / 20
    slide.obsm["spatial_fov"] = (local + np.column_stack([field % 10 * 5472, field // 10 * 3648])) / 20
    slide.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(InputError, match=r"column 'fov' stand among .* are obsm\['spatial_fov'\] in squidpy"):
        read_h5ad(tmp_path / "a.h5ad")
    assert read_h5ad(tmp_path / "a.h5ad", spatial="spatial_fov").n_obs == len(field)


def test_sections_of_a_named_sample_are_told_apart_too(tmp_path):
    places, codes = sections(2)
    slide = small_slide(n_cells=len(places), n_genes=5)
    slide.obs["donor"], slide.obs["orig.ident"] = "d", pd.Categorical.from_codes(codes, ["s1", "s2"])
    slide.obsm["spatial"] = places
    slide.write_h5ad(tmp_path / "a.h5ad")
    columns = {"sample": "donor"}
    with pytest.raises(
        InputError, match=r"'orig.ident' stand among .*, or it under keep_columns if it tells something"
    ):
        read_h5ad(tmp_path / "a.h5ad", columns=columns)
    assert read_h5ad(tmp_path / "a.h5ad", columns=columns, keep_columns=["orig.ident"]).n_obs == len(places)
    assert read_h5ad(tmp_path / "a.h5ad", columns={"sample": "orig.ident"}).n_obs == len(places)


def grid(n, pitch, hexagonal=False):
    rows, columns = (part.ravel() for part in np.mgrid[:n, :n])
    x = columns + rows % 2 / 2 if hexagonal else columns
    return pitch * np.column_stack([x, rows * (3**0.5 / 2 if hexagonal else 1)])


@pytest.mark.parametrize("pitch", [4.0, 7.3, 13.7, 17.0])
@pytest.mark.parametrize("hexagonal", [True, False])
def test_a_lattice_in_pixels_is_no_lattice_of_spots_or_bins(pitch, hexagonal):
    with pytest.raises(
        InputError, match=f"Visium, of bins of Visium HD {2 / pitch:.4g} of 2" if not hexagonal else "Visium"
    ):
        check_places(grid(20, pitch, hexagonal), "file a")
    check_places(grid(20, pitch, hexagonal), "file a", unit_given=True)
    for right in (100.0,) if hexagonal else (2.0, 8.1, 16.0):
        check_places(grid(20, right, hexagonal), "file a")


def test_bins_whose_file_tells_pixels_are_not_taken_for_larger_bins(tmp_path):
    """Bins of 8 um in pixels of 0.5 um lie 16 pixels apart."""
    slide = small_slide(n_cells=400, n_genes=5)
    slide.obsm["spatial"] = grid(20, 16.0)
    scales = {"spot_diameter_fullres": 16.0, "microns_per_pixel": 0.5}
    slide.uns["spatial"] = {"run": {"scalefactors": scales}}
    slide.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(
        InputError, match="the coordinates are in pixels; set unit_um to 0.5, the microns_per_pixel there"
    ):
        read_h5ad(tmp_path / "a.h5ad")
    read = read_h5ad(tmp_path / "a.h5ad", unit_um=0.5)
    assert np.ptp(read.obsm["spatial"][:, 0]) == pytest.approx(19 * 8)


def test_the_area_of_cells_tells_the_unit_of_an_h5ad(tmp_path):
    """Neighbours 5 um apart are 23 pixels of Xenium apart, which loose tissue may be in micrometres."""
    slide = small_slide(n_cells=400, n_genes=5)
    slide.obsm["spatial"] = scattered(400, 5.0) / 0.2125
    slide.write_h5ad(tmp_path / "a.h5ad")
    read_h5ad(tmp_path / "a.h5ad")
    slide.obs["cell_area"] = 25.0
    slide.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(InputError, match="so the coordinates are not in the unit that they were taken for"):
        read_h5ad(tmp_path / "a.h5ad")


@pytest.mark.parametrize("overlaid", [True, False])
def test_an_h5ad_of_two_sections_without_a_sample_column(tmp_path, overlaid):
    tissue = simulate_tissue(n_cells=800, n_genes=30, n_slides=2, seed=3)
    data = anndata.AnnData(tissue.X, obs=tissue.obs[["cell_type", "domain"]].copy(), var=tissue.var[[]])
    data.obs["section"] = pd.Categorical(tissue.obs["sample"].astype(str))
    data.obsm["spatial"] = tissue.obsm["spatial"].copy()
    for k, section in enumerate(data.obs["section"].cat.categories):
        own = (data.obs["section"] == section).to_numpy()
        data.obsm["spatial"][own] -= data.obsm["spatial"][own].min(axis=0)
        data.obsm["spatial"][own] += 0 if overlaid else k * 5000
    data.write_h5ad(tmp_path / "a.h5ad")
    if overlaid:
        with pytest.raises(InputError, match="column 'section' stand among each other"):
            read_h5ad(tmp_path / "a.h5ad")
        columns = {"sample": "section"}
        assert read_h5ad(tmp_path / "a.h5ad", columns=columns).n_obs == 800
    else:
        assert read_h5ad(tmp_path / "a.h5ad").n_obs == 800


def test_half_of_the_cells_at_one_point_are_refused_in_no_time():
    places = np.vstack([np.zeros((50_000, 2)), scattered(50_000, 8)])
    started = time.process_time()
    with pytest.raises(InputError, match="50% of the cells"):
        check_places(places, "file a")
    assert time.process_time() - started < 2
