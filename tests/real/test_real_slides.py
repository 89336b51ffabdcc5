"""Real slides through the reader: they are outside the repository, see the fixture `real_data`."""

import anndata
import numpy as np
import pytest

from slides import list_filters, read_h5ad
from tissue_counterfactuals.config import load_config, samples_of
from tissue_counterfactuals.slide import check_slide, read_slide, write_slide
from tissue_counterfactuals.sources.prepare import prepare_slide

COLUMNS = {"cell_type": "cell_type", "domain": "domain", "sample": "sample"}
SLIDES = {
    "merfish_hypothalamus": {"shape": (21_365, 135), "samples": 4, "types": 9, "domains": 6},
    "osmfish_sscortex": {"shape": (4_358, 33), "samples": 1, "types": 7, "domains": 6},
}


@pytest.mark.parametrize("name", SLIDES)
def test_a_real_slide_becomes_a_valid_slide(real_data, tmp_path, name):
    expected = SLIDES[name]
    slide = read_h5ad(real_data / f"{name}.h5ad", columns=COLUMNS)
    check_slide(slide, name)
    assert slide.shape == expected["shape"]
    for label, key in [("sample", "samples"), ("cell_type", "types"), ("domain", "domains")]:
        assert slide.obs[label].nunique() == expected[key]
    whole = anndata.read_h5ad(real_data / f"{name}.h5ad")
    assert (slide.X != whole.X).nnz == 0
    np.testing.assert_array_equal(slide.obsm["spatial"], whole.obsm["spatial"])
    write_slide(slide, tmp_path / "slide.h5ad")
    assert read_slide(tmp_path / "slide.h5ad").shape == expected["shape"]


def test_one_section_of_the_hypothalamus(real_data):
    path = real_data / "merfish_hypothalamus.h5ad"
    dataset = {
        "path": str(path),
        "columns": COLUMNS,
        "control_domain": "niche0_Astrocyte+Endothelial",
        "target_domains": ["niche5_ODMature+Microglia"],
    }
    loaded = load_config({"datasets": {"hypothalamus": dataset}})["datasets"]["hypothalamus"]
    assert len(samples_of("hypothalamus", loaded)) == 4
    whole = anndata.read_h5ad(path)
    section = str(whole.obs["sample"].iloc[-1])
    slide = read_h5ad(path, columns=COLUMNS, samples=[section])
    rows = np.flatnonzero(whole.obs["sample"] == section)
    assert (whole.X[rows] != slide.X).nnz == 0
    assert list(slide.obs_names) == list(whole.obs_names[rows])


def test_filters_on_the_hypothalamus(real_data):
    slide = read_h5ad(real_data / "merfish_hypothalamus.h5ad", columns=COLUMNS)
    prepared = prepare_slide(slide, n_top_genes=50)
    assert prepared.n_vars == 50
    assert list_filters(prepared)["cells_before"].iloc[0] == 21_365
    check_slide(prepared, "hypothalamus")
