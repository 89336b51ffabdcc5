"""Lesions as units of the statistics that Perturb-FISH is judged by."""

import numpy as np

from tissue_counterfactuals.experiments import intervention_statistics as statistics
from tissue_counterfactuals.experiments.perturbmap_effects import lesion_arena, lesion_effects
from tissue_counterfactuals.experiments.perturbmap_lesions import remove_reporters
from tissue_counterfactuals.simulate.lesions import simulate_lesions

KNOBS = {"n_genes": 200, "normal_tissue": 0.0}


def lesions(**knobs):
    return remove_reporters(simulate_lesions(**KNOBS | knobs))


def test_lesions_are_units_and_exchange_labels_within_their_section():
    slide = lesions(seed=1)
    arena = lesion_arena(slide)
    assert arena.target_names == ("Ifngr2", "Jak2", "Tgfbr2")
    # Wild-type lesions of four sections, two of them in two pieces under one label; then those without a gene.
    assert np.bincount(arena.labels).tolist() == [15, 2, 1, 4]
    assert sorted(arena.unit_size)[:2] == [12, 21]
    table = lesion_effects(slide, 99, 0).set_index("target")
    # KP_1 has six ways, KP_2 four, KP_4 fifteen.
    assert table.loc["Tgfbr2", "arrangements"] == 6 * 4 * 15
    assert table.loc["Jak2", "status"] == "not testable: its 1 clones can be placed in 6 ways only"
    # Spots of a lesion touch each other.
    assert (table["clonality"] > 2).all()
    labels = statistics.permuted_labels(arena, statistics.strata(arena), 20, np.random.default_rng(0))
    for section in np.unique(arena.unit_tile[:, 0]):
        own = arena.unit_tile[:, 0] == section
        assert (np.sort(labels[:, own], axis=1) == np.sort(arena.labels[own])).all()


def test_an_effect_is_found_and_none_is_not():
    strong = lesion_effects(lesions(seed=1, knockout_effect=1.0), 199, 0).set_index("target")
    assert strong.loc["Tgfbr2", "p_clones"] <= 0.02
    assert strong.loc["Tgfbr2", "p_joint"] <= 0.02
    assert strong.loc["Tgfbr2", "verdict"] == "effect"
    # Lesions are of many sizes, and few: where nothing happens p is large.
    for seed in range(6):
        nothing = lesion_effects(lesions(seed=seed, knockout_effect=0.0, lesion_effect=0.3), 39, seed)
        assert not (nothing["verdict"] == "effect").any()
        assert nothing.set_index("target").loc["Tgfbr2", "p_clones"] > 0.05
