"""The experiment on recovery of independent forces, from settings to tables and figure."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from drawings import PROVENANCE, png_size, texts
from tissue_counterfactuals import protocols
from tissue_counterfactuals.config import load_config
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.experiments import celcomen_recovery as recovery
from tissue_counterfactuals.results.figures import figure_celcomen_recovery as figure

SMALL = {"tissues": 2, "n_genes": [8], "n_cells": [600, 2400], "chain_cells": 10000, "epochs": 60}
SWITCHES = protocols.of_step(protocols.resolve("corrected"), "inference")


def settings_of(**changes):
    config = load_config(
        {
            "datasets": {"d": {"source": "simulated", "control_domain": "domain_0", "target_domains": ["domain_1"]}},
            "celcomen": {"recovery": SMALL | changes},
        }
    )
    return config["celcomen"]["recovery"]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recovery")
    paths = {name: folder / name for name in ("recovery", "chains", "provenance")}
    recovery.run(settings_of(), SWITCHES, [0], paths)
    return paths


@pytest.fixture(scope="module")
def found(tables):
    return pd.read_csv(tables["recovery"], sep="\t")


@pytest.fixture(scope="module")
def chains(tables):
    return pd.read_csv(tables["chains"], sep="\t")


def test_every_method_is_scored_on_every_kind_of_data(found, chains):
    # Methods x kinds of data x forces x tissues (x numbers of cells).
    assert len(found) == 5 * 3 * 2 * 2 * 2
    assert len(chains) == 5 * 3 * 2 * 2
    assert (found["kind"] == "simulated").all()
    assert set(found["protocol"]) == {"as_run", "corrected", "none"}


def test_the_gaussian_field_tells_both_kinds_apart_and_coexpression_does_not(found):
    field = found[(found["data"] == "field") & (found["n_cells"] == 2400)]
    mean = field.groupby(["forces", "method"])[["recovery", "cross_talk", "covered"]].mean()
    for forces, least in (("inter", 0.85), ("intra", 0.95)):
        gaussian = mean.loc[forces, "gaussian"]
        assert gaussian["recovery"] > least
        assert abs(gaussian["cross_talk"]) < 0.2
        assert gaussian["covered"] > 0.85
    assert mean.loc[("inter", "spatial_coexpression"), "cross_talk"] > 0.25
    assert mean.loc[("inter", "coexpression"), "cross_talk"] > 0.7
    assert mean.loc[("inter", "gaussian"), "recovery"] > mean.loc[("inter", "as_run"), "recovery"]


def test_a_chain_has_a_third_force_for_all_but_the_gaussian_field(chains):
    field = chains[chains["data"] == "field"]
    ratio = field.groupby(["forces", "method"])["spurious"].mean()
    for forces, rival in (("inter", "spatial_coexpression"), ("intra", "coexpression")):
        assert abs(ratio[forces, "gaussian"]) < 0.2
        assert ratio[forces, rival] > abs(ratio[forces, "gaussian"])
    assert ratio["intra", "coexpression"] > 0.4


def test_of_a_chain_that_is_not_seen_nothing_is_said(chains):
    np.testing.assert_array_equal(chains["spurious"].notna(), chains["real_found"])
    assert not chains["real_found"].all()


@pytest.mark.parametrize(("pair", "seen"), [((0, 2), True), ((0, 5), False), ((3, 4), False)])
def test_a_chain_is_seen_above_all_pairs_with_a_gene_outside_it_as_the_words_say(
    monkeypatch, found, chains, pair, seen
):
    """However large the force 1-3, which is what the figure is about."""
    forces = np.zeros((recovery.CHAIN_GENES,) * 2)
    for place, value in (((0, 1), 0.4), ((1, 2), 0.4), (pair, 0.6)):
        forces[place] = forces[place[::-1]] = value
    made = {"inter": forces, "intra": forces}
    monkeypatch.setattr(recovery, "_each_method", lambda *_: [({"method": "as_run"}, made)])
    rows = recovery._chain(settings_of(chain_cells=60), SWITCHES, "inter", 0, 0)
    assert {row["real_found"] for row in rows} == {seen}
    drawn = " ".join(" ".join(texts(figure.compose(found, chains, PROVENANCE))).split())
    caption = (Path(__file__).parents[3] / "workflow/report/figure_celcomen_recovery.rst").read_text("utf-8")
    assert "exceed in size all pairs with a gene outside the chain" in drawn
    assert "exceed every pair with a gene outside the chain in size" in caption


def test_the_same_settings_give_the_same_bytes(tmp_path):
    small = settings_of(tissues=1, n_cells=[300], chain_cells=300)
    for name in ("one", "other"):
        outputs = {n: tmp_path / f"{name}.{n}" for n in ("recovery", "chains", "provenance")}
        recovery.run(small, SWITCHES, [1], outputs)
    for n in outputs:
        assert (tmp_path / f"one.{n}").read_bytes() == (tmp_path / f"other.{n}").read_bytes()


def test_switches_reach_the_corrected_estimators_and_not_the_one_as_run():
    inter, intra = recovery.chain_forces("inter", 0.8)
    data, graph = recovery.simulate_expression(inter, intra, 400, settings_of(), [0])
    for method, changes in (("gaussian", True), ("mean_field", True), ("as_run", False)):
        plain, other = (
            recovery.estimate(method, data["log_counts"], graph, settings_of(), switches)
            for switches in (SWITCHES, SWITCHES | {"interaction_weights": "row", "centre": "none"})
        )
        assert (np.abs(plain["inter"] - other["inter"]).max() > 1e-6) == changes


def test_agreement_tells_recovery_from_cross_talk_and_counts_constants_as_failures():
    rng = np.random.default_rng(0)
    own, other = rng.normal(size=(2, 60, 60))
    own, other = own + own.T, other + other.T
    assert recovery.agreement(own, own, other)[0] == pytest.approx(1)
    mixed = recovery.agreement(own + other, own, other)
    assert mixed[0] == pytest.approx(np.sqrt(0.5), abs=0.05)
    assert mixed[1] == pytest.approx(np.sqrt(0.5), abs=0.05)
    shared = recovery.agreement(own, own, own + other)
    assert shared[1] == pytest.approx(0, abs=1e-9)
    alone = recovery.agreement(own + rng.normal(size=own.shape), own, other)
    assert abs(alone[1]) < 0.1
    assert recovery.agreement(np.ones((60, 60)), own, other) == (0.0, 0.0, True)


def test_chain_has_two_forces_of_one_kind():
    for forces, empty in (("inter", 1), ("intra", 0)):
        both = recovery.chain_forces(forces, 0.8)
        assert not both[empty].any()
        chain = both[1 - empty]
        assert chain[0, 1] == chain[1, 2] > 0.1
        assert np.count_nonzero(chain) == 4


def test_figure_names_methods_data_kind_and_provenance(found, chains):
    drawn = figure.compose(found, chains, PROVENANCE)
    # Lines may be broken anywhere.
    said = " ".join(" ".join(texts(drawn)).split())
    for label, *_ in figure.STYLES.values():
        assert label in said
    assert PROVENANCE in said
    assert "[simulated]" in said
    assert "n = 2 tissues" in said
    # A row per kind of data and forces; one number of genes, cross-talk and chains.
    assert len(drawn.axes) == 6 * 3


def test_cells_that_a_method_refuses_lose_its_numbers_alone(tmp_path):
    """Of ten cells with a hundredth of a count per gene most genes are never seen."""
    few = settings_of(tissues=1, n_genes=[30], n_cells=[10, 300], counts_per_gene=0.01, dropout=0.99, chain_cells=300)
    paths = {name: tmp_path / name for name in ("recovery", "chains", "provenance")}
    recovery.run(few, SWITCHES, [0], paths)
    figure.draw_files(paths, tmp_path / "figure.png")
    for name, number in (("recovery", "recovery"), ("chains", "force_13")):
        table = pd.read_csv(paths[name], sep="\t")
        failed = table["status"] == "failed"
        assert {*table.loc[failed, "data"]} >= {"log_counts", "normalized"}
        assert table.loc[failed, "reason"].str.len().gt(20).all()
        np.testing.assert_array_equal(table[number].isna(), failed)
    drawn = figure.compose(*(pd.read_csv(paths[name], sep="\t") for name in ("recovery", "chains")), PROVENANCE)
    assert texts(drawn).count("refused the cells") >= 4


def test_figure_is_drawn_from_the_tables(tables, tmp_path):
    figure.draw_files(tables, tmp_path / "figure.png")
    width, height = png_size(tmp_path / "figure.png")
    assert width > 1000
    assert height > 1000


def test_figure_refuses_tables_without_a_column(tables, chains, tmp_path):
    chains.drop(columns="spurious").to_csv(tmp_path / "chains", sep="\t")
    with pytest.raises(InputError, match="chains: column 'spurious' is missing"):
        figure.draw_files(tables | {"chains": tmp_path / "chains"}, tmp_path / "figure.png")
