"""The simulated screen: what is known of it holds in what it gives."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.simulate.screen import CONTROL, simulate_screen
from tissue_counterfactuals.slide import check_slide

SMALL = {"n_cells": 1500, "n_targets": 3, "clones_per_target": 8, "n_genes": 30, "seed": 3}


def test_it_is_a_slide_and_the_same_seed_gives_the_same():
    one, other = simulate_screen(**SMALL), simulate_screen(**SMALL)
    check_slide(one, "screen")
    assert (one.X != other.X).nnz == 0
    assert one.obs.equals(other.obs)
    assert (simulate_screen(**SMALL | {"seed": 4}).X != one.X).nnz > 0


def test_clones_hang_together_lose_one_gene_and_keep_a_call():
    slide = simulate_screen(**SMALL, clone_size=5.0, missed=0.8)
    obs, place = slide.obs, slide.obsm["spatial"]
    members = obs[obs["clone"] >= 0]
    assert members["cell_type"].eq("cancer").all()
    assert members.groupby("clone")["target_true"].nunique().eq(1).all()
    assert members.groupby("clone")["target_raw"].apply(lambda t: (t != "").any()).all()
    called = members["target_raw"] != ""
    assert (members["target_raw"][called] == members["target_true"][called]).all()
    # Of five members one keeps its call, and of the others a fifth.
    assert 0.25 < called.mean() < 0.5
    # Two guides for each target and four controls, one for each clone.
    guides = members[called].groupby("target_true")["guide_raw"].nunique()
    assert guides.to_dict() == {CONTROL: 4, "KO1": 2, "KO2": 2, "KO3": 2}
    assert members[called].groupby("clone")["guide_raw"].nunique().eq(1).all()
    # Cells that show a guide are perturbed, and so are recipients that one may reach.
    shown, cancer = (obs["target_raw"] != "").to_numpy(), (obs["cell_type"] == "cancer").to_numpy()
    reached = cKDTree(place[shown]).query(place)[0] <= 45
    expected = np.where(np.where(cancer, shown, reached), "perturbed", "control")
    assert (obs["domain"] == expected).all()
    for _, own in obs.reset_index()[obs["clone"].to_numpy() >= 0].groupby("clone"):
        assert np.linalg.norm(place[own.index] - place[own.index[0]], axis=1).max() < 120


def test_without_spill_over_no_recipient_changes_and_with_it_only_those_beside_a_loss():
    assert not simulate_screen(**SMALL).obsm["simulation_change"].any()
    slide = simulate_screen(**SMALL, spillover=1.0)
    change = np.abs(slide.obsm["simulation_change"]).sum(axis=1)
    lost = ~slide.obs["target_true"].isin(["", CONTROL]).to_numpy()
    distance, _ = cKDTree(slide.obsm["spatial"][lost]).query(slide.obsm["spatial"])
    recipient = (slide.obs["cell_type"] == "T cells").to_numpy()
    assert not change[~recipient].any()
    assert not change[distance > 45].any()
    assert (change[recipient & (distance < 20)] > 0).all()


def test_the_change_is_what_recipients_show():
    """Deep counts: near a loss against elsewhere, the log ratio of the means follows the true change."""
    told = {
        "n_cells": 6000,
        "depth": 5000,
        "region_effect": 0.0,
        "spillover": 1.5,
        "clone_size": 6.0,
    }
    slide = simulate_screen(**told, n_targets=2, clones_per_target=60, n_genes=40, seed=1)
    recipient = (slide.obs["cell_type"] == "T cells").to_numpy()
    share = slide.X.toarray() / slide.X.sum(axis=1).A
    for name in ("KO1", "KO2"):
        carrier = (slide.obs["target_true"] == name).to_numpy()
        distance, _ = cKDTree(slide.obsm["spatial"][carrier]).query(slide.obsm["spatial"])
        near = recipient & (distance < 25)
        change = slide.obsm["simulation_change"][near].mean(axis=0)
        far = recipient & ~slide.obsm["simulation_change"].any(axis=1)
        seen = np.log(share[near].mean(axis=0) / share[far].mean(axis=0))
        assert np.corrcoef(seen, change)[0, 1] > 0.8


def test_segmentation_spill_carries_the_carriers_own_change_into_recipients():
    """A loss that acts on nobody else looks like spill-over where counts leak."""
    told = {
        "n_cells": 6000,
        "depth": 2000,
        "region_effect": 0.0,
        "autonomous": 2.0,
        "clone_size": 6.0,
    }
    found = {}
    for spill in (0.0, 0.3):
        slide = simulate_screen(**told, spill=spill, n_targets=2, clones_per_target=60, seed=1)
        recipient = (slide.obs["cell_type"] == "T cells").to_numpy()
        share = slide.X.toarray() / slide.X.sum(axis=1).A
        means = []
        for name in ("KO1", "KO2"):
            carrier = (slide.obs["target_true"] == name).to_numpy()
            distance, _ = cKDTree(slide.obsm["spatial"][carrier]).query(slide.obsm["spatial"])
            means.append([np.log(share[m].mean(axis=0)) for m in (recipient & (distance < 25), carrier)])
        (near1, own1), (near2, own2) = means
        found[spill] = np.corrcoef(near1 - near2, own1 - own2)[0, 1]
    assert found[0.3] > 0.8
    assert abs(found[0.0]) < 0.5


def test_lost_genes_that_are_measured_are_gone_from_their_carriers_and_follow_what_others_secrete():
    knobs = SMALL | {"n_cells": 6000, "depth": 3000, "region_effect": 0.0, "missed": 0.0, "autonomous": 0.0}
    plain, slide = (simulate_screen(**knobs, measured=m) for m in (False, True))
    assert list(slide.var_names[-3:]) == ["KO1", "KO2", "KO3"]
    assert slide.obs.equals(plain.obs)
    share = slide.X.toarray() / slide.X.sum(axis=1).A
    tumour = (slide.obs["cell_type"] == "cancer").to_numpy()
    for place, name in enumerate(("KO1", "KO2", "KO3")):
        lost = (slide.obs["target_true"] == name).to_numpy()
        own, elsewhere = (share[m, place - 3].mean() for m in (lost, tumour & ~lost))
        assert own < 0.02 * elsewhere
        # The ligands that its loss raises are high in cells that have little of it by themselves.
        others = tumour & (slide.obs["target_true"] == "").to_numpy()
        raised = np.log(share[lost, :8].mean(axis=0) / share[others, :8].mean(axis=0))
        little = share[others, place - 3] < np.median(share[others, place - 3])
        by_itself = np.log(share[others][little, :8].mean(axis=0) / share[others][~little, :8].mean(axis=0))
        assert np.corrcoef(raised, by_itself)[0, 1] > 0.8
    with pytest.raises(InputError, match=r"n_genes is 14; with 3 lost genes among them at least 15"):
        simulate_screen(**knobs | {"n_genes": 14}, measured=True)


def test_clones_that_find_no_room_are_refused():
    with pytest.raises(InputError, match="more cells or fewer clones"):
        simulate_screen(n_cells=500)


def test_a_lost_gene_is_kept_by_the_carriers_of_other_guides():
    knobs = SMALL | {"n_cells": 6000, "depth": 3000, "region_effect": 0.0, "missed": 0.0, "autonomous": 0.0}
    slide = simulate_screen(**knobs, measured=True, signal_change=0.0)
    share = slide.X.toarray() / slide.X.sum(axis=1).A
    free = ((slide.obs["cell_type"] == "cancer") & (slide.obs["target_true"] == "")).to_numpy()
    for place, name in enumerate(("KO1", "KO2", "KO3")):
        others = (~slide.obs["target_true"].isin(["", CONTROL, name])).to_numpy()
        assert share[others, place - 3].mean() > 0.5 * share[free, place - 3].mean()
