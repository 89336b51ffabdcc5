"""The tables of Perturb-FISH, fixtures of the exact layout with all its traps."""

import json

import numpy as np
import pytest

from layouts import edit, perturb_fish
from tissue_counterfactuals.config import load_config
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.experiments.screen_question import read_screen
from tissue_counterfactuals.sources import READERS
from tissue_counterfactuals.sources.prepare import prepare_slide


def open_tables(folder, samples=None):
    raw = {"experiments": ["celcomen_spleen"]} | perturb_fish.entry(folder)
    dataset = load_config({"datasets": {"tissue": raw}})["datasets"]["tissue"]
    reader = READERS["perturb_fish"]
    files = reader.locate(dataset["path"])
    assert reader.samples(files, dataset) == ["tumour"]
    return reader.open(files, dataset, samples)


@pytest.fixture(scope="module")
def tissue(tmp_path_factory):
    folder = tmp_path_factory.mktemp("perturb_fish")
    return perturb_fish.write(folder), open_tables(folder)


def test_every_cell_has_its_counts_place_type_and_domain(tissue):
    made, slide = tissue
    kept = np.flatnonzero(made.kept)
    assert list(slide.obs_names) == [made.cells[i] for i in kept]
    assert list(slide.var_names) == made.genes
    assert (slide.X.toarray() == made.counts[kept]).all()
    assert np.allclose(slide.obsm["spatial"], made.places_um[kept])
    assert (slide.obs["cell_type"].astype(str) == made.cell_type[kept]).all()
    assert (slide.obs["domain"].astype(str) == made.domain[kept]).all()
    assert slide.obs["area_um2"].between(90, 190).all()


def test_cells_beside_a_cancer_cell_of_several_guides_are_perturbed_though_it_is_left_out(tmp_path):
    made = perturb_fish.write(tmp_path)
    carriers = np.flatnonzero((made.target != "") & (made.cell_type == "cancer"))

    def add_two(table):
        table.iloc[carriers, [32, 34]] = "1"
        return table

    edit.edit_csv(tmp_path / perturb_fish.GUIDES, add_two, header=False)
    obs = open_tables(tmp_path).obs
    t_cells = obs[obs["cell_type"] == "T cells"]
    assert list(t_cells["domain"]) == [made.domain[int(cell) - 1] for cell in t_cells.index]
    assert (t_cells["domain"] == "perturbed").sum() > 10


def test_guides_are_called_by_both_tables_without_noise_and_unused_ones(tissue):
    made, slide = tissue
    kept = np.flatnonzero(made.kept)
    assert (slide.obs["target_raw"] == made.target[kept]).all()
    # The authors' table holds tumour cells alone.
    expected = np.where(made.cell_type == "T cells", "", made.target)[kept]
    assert (slide.obs["target_published"] == expected).all()
    assert (slide.obs["target_raw"] == "MAP2K4").sum() == 1
    filters = json.loads(slide.uns["provenance"]["filters"])
    assert filters[0]["cells_before"] - filters[0]["cells_after"] == len(perturb_fish.SEVERAL)


def test_the_assumed_pixel_and_the_check_of_the_rows_stand_in_the_provenance(tissue, tmp_path):
    _, slide = tissue
    notes = slide.uns["provenance"]["notes"]
    assert "one pixel is taken for 0.108 um" in notes
    assert "all 400 centroids, in a mask of 169973 rows" in notes
    assert "neighbours lie" in notes
    perturb_fish.write(tmp_path, mask_rows=4000)
    assert "in a mask of 4000 rows (the published one has 169973)" in open_tables(tmp_path).uns["provenance"]["notes"]


def test_what_the_reader_gives_is_a_screen_after_preparation_too(tissue):
    _, slide = tissue
    prepared = prepare_slide(slide, n_top_genes=None)
    for column in ("target_raw", "target_published"):
        screen = read_screen(prepared, column)
        assert "MAP2K4" in screen.names
        assert len(screen.carriers) > 50
        # T cells that carry a guide are no recipients.
        assert not (screen.recipient & (screen.code >= 0)).any()
        assert (screen.recipient & (screen.seen > 0)).any()


def test_another_section_is_refused(tmp_path):
    perturb_fish.write(tmp_path)
    with pytest.raises(InputError, match="samples names 'other', which is no section; there are tumour"):
        open_tables(tmp_path, ["tumour", "other"])
