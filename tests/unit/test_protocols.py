"""Switches of the two protocols."""

import pytest

from tissue_counterfactuals import protocols
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.protocols import cellina


def test_every_switch_differs_between_the_protocols_and_has_both_values():
    for switch in protocols.SWITCHES.values():
        assert switch.corrected != switch.as_run
        assert {switch.corrected, switch.as_run} <= set(switch.values)
        assert len(set(switch.values)) == len(switch.values)


def test_cellinas_switches_have_the_values_of_the_paper_and_of_the_authors_code():
    expected = {
        "donor_features": ("log1p", "raw_counts"),
        "donor_domain": ("target_only", "any"),
        "node_renormalization": ("none", "totals"),
        "node_scaling": ("counts", "counts_plus_one"),
        "latent": ("mean", "sample"),
        "brain_unit": ("by_extent", "pixels"),
        "hyperparameters": ("configured", "published"),
        "restore": ("best", "last"),
        "monitor": ("reconstruction", "current_beta"),
        "lfc": ("natural_pseudocount_1", "log2_epsilon"),
        "pca_fit": ("log", "counts"),
        "rmse_counts": ("mean", "sum"),
        "variable_genes": ("without_held_out", "all_cells"),
        "gat_edges": ("nearest", "transposed"),
        "gat_field": ("three_hops", "one_hop"),
        "gat_inputs": ("log1p", "log_counts"),
        "gat_cutoff": ("applied", "none"),
        "gat_new_edges": ("to_focal", "both_ways"),
        "gat_altered_inputs": ("as_trained", "raw_counts"),
        "scgen_difference": ("seen_cells", "all_cells"),
        "mintflow_cells": ("seen_cells", "all_cells"),
    }
    corrected, as_run = protocols.resolve("corrected"), protocols.resolve("as_run")
    assert {s.name: (corrected[s.name], as_run[s.name]) for s in cellina.SWITCHES} == expected


def test_overrides_change_corrected_and_never_as_run():
    overrides = {"lfc": "log2_epsilon"}
    assert protocols.resolve("corrected", overrides)["lfc"] == "log2_epsilon"
    assert protocols.resolve("as_run", {"lfc": "natural_pseudocount_1"})["lfc"] == "log2_epsilon"


def test_unknown_names_and_values_are_refused():
    with pytest.raises(InputError, match="protocols holds 'paper'"):
        protocols.resolve("paper")
    with pytest.raises(InputError, match=r"switches\.log is no switch"):
        protocols.resolve("corrected", {"log": "x"})
    with pytest.raises(InputError, match=r"switches\.lfc is 'log10'; allowed are"):
        protocols.resolve("corrected", {"lfc": "log10"})


@pytest.mark.parametrize(
    ("step", "names"),
    [
        ("metrics", {"lfc", "pca_fit", "rmse_counts"}),
        (
            "training",
            {"hyperparameters", "restore", "monitor", "variable_genes", "mintflow_cells"}
            | {"gat_edges", "gat_field", "gat_inputs", "gat_cutoff"},
        ),
        (
            "counterfactual",
            {"donor_features", "donor_domain", "latent", "node_renormalization", "node_scaling"}
            | {"gat_new_edges", "gat_altered_inputs", "scgen_difference"},
        ),
        ("graph", {"brain_unit"}),
    ],
)
def test_a_step_reads_its_own_switches_and_no_other(step, names):
    """So that changing a metric trains no model again, and a metric's switch reaches the metric."""
    as_run = protocols.resolve("as_run")
    assert protocols.of_step(as_run, step) == {name: as_run[name] for name in names}


def test_the_switches_of_the_papers_do_not_share_names():
    assert len(protocols.SWITCHES) == sum(len(p.SWITCHES) for p in protocols.PAPERS.values())


@pytest.mark.parametrize("paper", protocols.PAPERS)
def test_the_table_of_deviations_names_every_switch_and_says_why(paper):
    table = protocols.deviations(paper)
    assert {switch.name for switch in protocols.PAPERS[paper].SWITCHES} <= set(table["name"])
    assert (table["why"].str.len() > 20).all()
    assert not table["name"].duplicated().any()
