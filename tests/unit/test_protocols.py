"""Switches of the two protocols."""

import pytest

from tissue_counterfactuals import metrics, protocols
from tissue_counterfactuals.errors import InputError


def test_every_switch_differs_between_the_protocols():
    corrected, as_run = protocols.resolve("corrected"), protocols.resolve("as_run")
    assert corrected.keys() == as_run.keys() == protocols.SWITCHES.keys()
    for name, switch in protocols.SWITCHES.items():
        assert corrected[name] != as_run[name]
        assert {corrected[name], as_run[name]} <= set(switch.values)


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


def test_each_step_gets_its_own_switches_and_all_are_given_out():
    values = protocols.resolve("corrected")
    steps = {switch.step for switch in protocols.SWITCHES.values()}
    assert {"training", "counterfactual", "metrics", "inference", "generation"} <= steps
    of_steps = [protocols.of_step(values, step) for step in steps]
    assert sum(map(len, of_steps)) == len(values)


def test_metrics_and_protocols_agree_on_the_metric_switches():
    ours = {
        name: {"corrected": switch.corrected, "as_run": switch.as_run}
        for name, switch in protocols.SWITCHES.items()
        if switch.step == "metrics"
    }
    assert ours == metrics.SWITCHES


def test_the_switches_of_the_papers_do_not_share_names():
    assert len(protocols.SWITCHES) == sum(len(p.SWITCHES) for p in protocols.PAPERS.values())


@pytest.mark.parametrize("paper", protocols.PAPERS)
def test_the_table_of_deviations_names_every_switch_and_says_why(paper):
    table = protocols.deviations(paper)
    assert {switch.name for switch in protocols.PAPERS[paper].SWITCHES} <= set(table["name"])
    assert (table["why"].str.len() > 20).all()
    assert not table["name"].duplicated().any()
