"""Simulated lesions: the published composition, the lattice, and a knock-out whose truth is known."""

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.stats import spearmanr

from tissue_counterfactuals.simulate import lesions
from tissue_counterfactuals.simulate.lesions import (
    KNOCKOUTS,
    REPORTERS,
    array_spots,
    simulate_lesions,
)
from tissue_counterfactuals.slide import check_slide, read_slide, write_slide

# Spots per label, as published: KP_1 and so on of GSE193460.
PUBLISHED = {
    "KP_1": {"Jak2_1": 21, "Tgfbr2_1": 75, "KP_1-1": 110, "KP_1-2": 75, "KP_1-3": 48, "periphery": 149, "normal": 1425},
    "KP_2": {"Ifngr2_2": 41, "Tgfbr2_2": 62, "KP_2-1": 148, "KP_2-2": 97, "KP_2-3": 35, "periphery": 194,
    "normal": 1295},
    "KP_3": {"Ifngr2_3": 64, "KP_3-1": 133, "KP_3-2": 98, "KP_3-3": 55, "periphery": 148, "normal": 735},
    "KP_4": {"Tgfbr2_4-1": 50, "Tgfbr2_4-2": 37, "KP_4-1": 115, "KP_4-2": 74, "KP_4-3": 38, "KP_4-4": 35,
    "periphery": 104, "normal": 902},
}  # fmt: skip
MEDIAN_COUNTS = {"KP_1": 8005, "KP_2": 8805, "KP_3": 10469, "KP_4": 10375}


def true_knockout_effect(slide, knockout):
    """Change in log rate, (genes,), inside a lesion that has lost the gene altogether, by the mechanism."""
    own, received = (slide.var[f"simulation_{part}_{knockout}"] for part in ("own", "received"))
    knobs = slide.uns["simulation"]
    lost = float(knobs["knockout_effect"]) * (1 - lesions._RESIDUAL)
    return -lost * (own + float(knobs["spread"]) * received).to_numpy()


@pytest.fixture(scope="module")
def slide():
    return simulate_lesions(n_genes=120, seed=3)


@pytest.fixture(scope="module")
def tumours():
    """Sections without normal tissue and with strong effects."""
    return simulate_lesions(n_genes=400, seed=1, knockout_effect=1.5, spread=1.0, normal_tissue=0)


def mean_log_share(slide, spots):
    counts = np.asarray(slide.X[spots].sum(axis=0)).ravel() + 0.5
    return np.log(counts / counts.sum())


def test_it_is_a_slide_in_the_published_composition(slide):
    check_slide(slide, "lesions")
    for section, labels in PUBLISHED.items():
        own = slide.obs.loc[slide.obs["sample"] == section, "domain"].value_counts()
        assert own[own > 0].to_dict() == labels
    assert slide.n_vars == 120 + len(REPORTERS)
    assert {*KNOCKOUTS, *REPORTERS} < set(slide.var_names)


def test_depth_is_that_of_each_section(slide):
    totals = np.asarray(slide.X.sum(axis=1)).ravel()
    for section, median in MEDIAN_COUNTS.items():
        found = np.median(totals[(slide.obs["sample"] == section).to_numpy()])
        assert found == pytest.approx(median, rel=0.06)


def test_spots_lie_on_the_lattice_a_tenth_of_a_millimetre_apart(slide):
    for section in PUBLISHED:
        place = slide.obsm["spatial"][(slide.obs["sample"] == section).to_numpy()]
        distance, _ = cKDTree(place).query(place, k=7)
        assert distance[:, 1:].min() == pytest.approx(100)
        assert (np.isclose(distance[:, 6], 100)).mean() > 0.7
    array = array_spots()
    assert len(array) == 4992
    assert array.index.is_unique
    assert array.index.str.fullmatch("[ACGT]{16}-1").all()


def test_lesions_of_the_first_section_lie_in_the_authors_boxes(slide):
    pixels = slide.obsm["spatial"] * 0.49
    boxes = [
        (2100, 2900, 1500, 1900),
        (2700, 3000, 2500, 3000),
        (1600, 2100, 1500, 1900),
        (800, 1050, 1400, 1550),
        (500, 1400, 1560, 2500),
    ]
    wild = slide.obs["domain"].str.startswith("KP_1-").to_numpy()
    inside = np.zeros(slide.n_obs, int)
    for left, right, lower, upper in boxes:
        x, y = pixels.T
        own = wild & (left < x) & (x < right) & (lower < y) & (y < upper)
        assert own.sum() >= 12
        inside += own
    assert (inside[wild] == 1).all()


def test_the_same_seed_gives_the_same_spots_whatever_else_is_made(slide):
    again = simulate_lesions(n_genes=120, seed=3, n_sections=1)
    first = slide[(slide.obs["sample"] == "KP_1").to_numpy()]
    assert (again.X != first.X).nnz == 0
    assert np.array_equal(again.obsm["spatial"], first.obsm["spatial"])
    other = simulate_lesions(n_genes=120, seed=4, n_sections=1)
    assert (again.X != other.X).nnz > 0


def test_only_tumours_carry_the_vectors(slide):
    vectors = slide[:, list(REPORTERS)].X.sum(axis=1)
    tumour = (slide.obs["cell_type"] == "tumour").to_numpy()
    assert vectors[~tumour].sum() == 0
    assert np.median(np.asarray(vectors)[tumour]) > 10


@pytest.mark.parametrize(("section", "knockout"), [("KP_1", "Tgfbr2"), ("KP_2", "Ifngr2")])
def test_a_lesion_loses_its_gene_and_changes_as_the_truth_says(tumours, section, knockout):
    here = (tumours.obs["sample"] == section).to_numpy()
    lost = here & tumours.obs["domain"].str.startswith(f"{knockout}_").to_numpy()
    wild = here & tumours.obs["domain"].str.startswith("KP_").to_numpy()
    change = mean_log_share(tumours, lost) - mean_log_share(tumours, wild)
    gene = tumours.var_names.get_loc(knockout)
    assert change[gene] < -1
    truth = true_knockout_effect(tumours, knockout)
    others = np.setdiff1d(np.arange(tumours.n_vars), tumours.var_names.get_indexer([*KNOCKOUTS, *REPORTERS]))
    assert truth[others].std() > 0.3
    assert spearmanr(change[others], truth[others]).statistic > 0.6


def test_without_an_effect_only_the_lost_gene_changes():
    slide = simulate_lesions(n_genes=400, seed=1, n_sections=1, knockout_effect=0, lesion_effect=0, normal_tissue=0)
    assert not true_knockout_effect(slide, "Tgfbr2").any()
    lost = (slide.obs["domain"] == "Tgfbr2_1").to_numpy()
    wild = slide.obs["domain"].str.startswith("KP_").to_numpy()
    change = mean_log_share(slide, lost) - mean_log_share(slide, wild)
    assert change[slide.var_names.get_loc("Tgfbr2")] < -1
    strong = simulate_lesions(n_genes=400, seed=1, n_sections=1, lesion_effect=0, normal_tissue=0)
    would_be = true_knockout_effect(strong, "Tgfbr2")
    responding = would_be != 0
    assert abs(spearmanr(change[responding], would_be[responding]).statistic) < 0.2


def test_the_loss_spreads_to_neighbours(tumours):
    """Wild-type spots beside the lost lesion move along what is received, those far from it do not."""
    here = (tumours.obs["sample"] == "KP_2").to_numpy()
    lost = here & (tumours.obs["domain"] == "Tgfbr2_2").to_numpy()
    wild = np.flatnonzero(here & (tumours.obs["domain"] == "KP_2-1").to_numpy())
    distance, _ = cKDTree(tumours.obsm["spatial"][lost]).query(tumours.obsm["spatial"][wild])
    assert distance.min() < 101
    received = -tumours.var["simulation_received_Tgfbr2"].to_numpy()
    responding = received != 0
    far = wild[distance > 700]
    change = mean_log_share(tumours, wild[distance < 101]) - mean_log_share(tumours, far)
    assert spearmanr(change[responding], received[responding]).statistic > 0.2


def test_the_truth_survives_disk_and_lost_genes(tumours, tmp_path):
    part = tumours[:, ::3].copy()
    write_slide(part, tmp_path / "part.h5ad")
    read = read_slide(tmp_path / "part.h5ad")
    assert np.array_equal(true_knockout_effect(read, "Jak2"), true_knockout_effect(tumours, "Jak2")[::3])


@pytest.mark.parametrize("knockout", KNOCKOUTS)
def test_a_lost_gene_is_as_little_active_everywhere_in_its_lesions_and_varies_outside(slide, knockout):
    activity = slide.obs[f"simulation_activity_{knockout}"].to_numpy()
    lost = slide.obs["domain"].str.startswith(f"{knockout}_").to_numpy()
    assert lost.any()
    np.testing.assert_allclose(activity[lost], lesions._RESIDUAL)
    assert activity[~lost].mean() == pytest.approx(1, abs=0.1)
    assert activity[~lost].std() > 0.3
