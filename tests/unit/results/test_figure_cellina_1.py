"""The schematic says what the configuration says, and changes with it."""

import pytest
import yaml

from drawings import texts
from tissue_counterfactuals.config import load_config
from tissue_counterfactuals.results.figures import figure_cellina_1


def drawn(root, name, protocol="corrected", **changes):
    """Texts of the schematic, in one, and the figure."""
    raw = yaml.safe_load((root / "config/trial.yaml").read_text())
    raw["datasets"][name] |= changes.pop("dataset", {})
    slides = [changes.pop("slide", {"unit_um": "1.0"})]
    raw |= changes
    config = load_config(raw)
    record = {"dataset": name, "label": "Trial", "kind": "simulated", "n_cells": 9, "seeds": [0]}
    record |= {"commit": "a", "config_hash": "b", "config": config, "n_genes": [123, 2000], "slides": slides}
    figure = figure_cellina_1.compose(record, protocol)
    return " ".join(" ".join(texts(figure)).split()), figure


def test_sizes_losses_graph_and_donors_are_those_of_the_run(root):
    model = {"n_hidden": 77, "n_latent": 13, "n_layers": 3, "lambda_adversary": 0.25, "epochs": 41}
    text, _ = drawn(root, "trial", cellina=model, counterfactual={"n_donors": 17})
    for said in (
        "3 × 77",
        "z 13",
        "s 13",
        "domain on z: weight 0.25",
        "at most 41 epochs",
        "17 donors",
        "at most 50, Gaussian of 100",
        "123 to 2,000 genes",
    ):
        assert said in text, said
    assert "of the target domain" in text
    as_run, _ = drawn(root, "trial", "as_run", cellina=model)
    # As run, hyperparameters are the published ones, and donors are of any domain.
    assert "2 × 128" in as_run
    assert "donors of any domain" in as_run


def test_as_run_the_kernel_is_that_of_the_unit_that_the_authors_took(root):
    brain = {"unit_um": "1.0", "unit_um_as_run": "0.109"}
    assert "Gaussian of 917.431 µm" in drawn(root, "trial", "as_run", slide=brain)[0]
    assert "Gaussian of 100 µm" in drawn(root, "trial", "corrected", slide=brain)[0]
    assert "Gaussian of 100 µm" in drawn(root, "trial", "as_run")[0]


@pytest.mark.parametrize("targets", [["domain_1"], ["domain_1", "domain_2"]])
def test_what_is_hidden_is_the_first_type_in_every_target(root, targets):
    changes = {"target_domains": targets, "holdout": {"cell_types": ["type_3", "type_1"]}}
    text, figure = drawn(root, "trial", dataset=changes)
    assert len(figure.findobj(lambda o: getattr(o, "get_gid", lambda: None)() == "hidden")) == len(targets)
    assert "(shown: the first): type_3, type_1" in text
    assert "one model for each slide and held-out type" in text


def test_patients_who_are_left_out_are_named(root):
    text, _ = drawn(root, "trial_patients")
    assert "over the slides of all other patients" in text
    assert "left out together: slide_0, slide_1" in text


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"shifts": ["node"], "n_genes": 30, "share": 0.1, "scale": "counts"},
        "the 30 most changed genes of each type, in 10% of all cells; the change from control to target is multiplied "
            "into counts."),
        ({"shifts": ["node_global"], "cells": "neighbors", "scale": "log"},
        "genes of all types together, in neighbours of these cells; the change from control to target is added to "
            "logarithms."),
        ({"shifts": ["node", "node_global"]},
        "of each type or of all types together, in all cells; the change from control to target is added to logarithms "
            "(Cellina) or multiplied into counts (Cellina-GAT)."),
        ({"shifts": []}, None),
    ],
)  # fmt: skip
def test_altered_neighbours_are_those_that_the_run_asks_about(root, node, said):
    text, _ = drawn(root, "trial", counterfactual={"node": node})
    assert ("Node perturbation" in text) is (said is not None)
    assert said is None or said in text
    if said:
        as_run, _ = drawn(root, "trial", "as_run", counterfactual={"node": node})
        assert f"{said[:-1]}, and cells keep their totals." in as_run


def test_an_equal_budget_is_told_in_steps(root):
    model = {"epochs": 50, "kl_warmup_epochs": 200}
    text, _ = drawn(root, "trial", cellina=model, budget="equal", equal_steps=1500)
    assert "about 1,500 steps, as every method, batches by the rule enough_steps, KL weight rises to 0.25" in text
    assert "epochs" not in text
    own, _ = drawn(root, "trial", cellina=model)
    assert "at most 50 epochs, batches by the rule enough_steps, KL terms rise over 200 epochs" in own


def test_the_form_with_attention_is_drawn_where_it_is_run(root):
    gat = {"n_layers": 4, "n_hidden": 33, "max_neighbors": 21, "lambda_contrastive": 0.5}
    text, _ = drawn(root, "trial", cellina_gat=gat)
    for said in ("one by one at most 21, weights over 0.1", "attention 4 × 33, 4 steps far", "loss of s: weight 0.5"):
        assert said in text, said
    as_run, _ = drawn(root, "trial", "as_run", cellina_gat=gat)
    assert "one by one at most 50 encoder 3 × 128 graph attention 3 × 128, 1 step far" in as_run
    alone, _ = drawn(root, "trial", dataset={"methods": ["no_change", "cellina"]})
    assert "attention" not in alone
    assert "contrastive" not in alone


def test_cellina_gat_alone_has_its_network_and_no_other(root):
    text, _ = drawn(root, "trial", dataset={"methods": ["no_change", "cellina_gat"]})
    assert "graph attention" in text
    assert "mean of its neighbours" not in text
    assert text.count("counts of a cell") == 1
