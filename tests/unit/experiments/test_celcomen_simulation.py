"""The simulation of Figure 2c: as published, mended, and each of its switches at both values."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tissue_counterfactuals import config, protocols
from tissue_counterfactuals.experiments import celcomen_simulation as simulation
from tissue_counterfactuals.experiments.simulated_tissues import (
    generate_tissues,
    infer_side_by_side,
    lattice,
    sample_tissues,
    zero_one_forces,
)
from tissue_counterfactuals.models.celcomen import fit_interactions

STEPS = ("inference", "generation", "celcomen_simulation")


def switches_of(protocol, **changes):
    values = protocols.resolve(protocol)
    return {k: v for step in STEPS for k, v in protocols.of_step(values, step).items()} | changes


def settings_with(n_simulations=6, **changes):
    grid = {
        "n_simulations": 4,
        "usual_n_genes": 8,
        "usual_n_cells": 900,
        "n_genes": [4, 24],
        "n_cells": [100, 900],
        "noise": [0, 2],
        "dropout": [0, 0.5],
    }
    sizes = {"n_genes": 4, "n_cells": 100, "epochs": 2000, "learning_rate": 0.1}
    return {"n_simulations": n_simulations, **sizes, "grid": grid} | changes


@pytest.fixture(scope="module")
def published():
    """The first 30 simulations of the paper, in full."""
    return simulation.simulate("as_run", settings_with(30), switches_of("as_run"))


@pytest.fixture(scope="module")
def mended():
    return simulation.simulate("corrected", settings_with(), switches_of("corrected"))


# --- as published -----------------------------------------------------------------------------------------------


def medians(table, entries):
    """Of each quantity, and of noise over all quantities, constant simulations left out."""
    own = table[table["entries"] == entries]
    found = own[own["source"] == "estimate"].groupby("quantity")["spearman"].median().to_dict()
    return found | {"noise": own[own["source"] == "noise"]["spearman"].median()}


def test_the_published_medians_are_met(published):
    found = medians(published, "all")
    assert found["noise"] == pytest.approx(0.40, abs=0.05)
    assert found["inter"] == pytest.approx(0.75, abs=0.05)
    assert 0.57 <= found["intra"] <= 0.80
    assert 0.77 <= found["expression"] <= 0.88


def test_the_shared_diagonal_makes_up_what_noise_achieves(published):
    found = medians(published, "upper_triangle")
    assert abs(found["noise"]) < 0.2
    assert found["inter"] < 0.7


def test_about_half_of_the_published_fits_are_constant_and_dropped(published):
    fits = published.query("source == 'estimate' and entries == 'all' and quantity == 'inter'")
    assert 0.3 < (fits["status"] == "constant").mean() < 0.7
    assert (fits["spearman"].isna() == (fits["status"] == "constant")).all()


def test_as_run_steps_of_all_tissues_at_once_are_those_of_each_alone():
    switches = switches_of("as_run")
    rng = np.random.default_rng(0)
    tissues = rng.normal(size=(3, 100, 4))
    tissues /= np.linalg.norm(tissues, axis=2, keepdims=True)
    seeds = (0, 5, 9)
    for changes in (
        {},
        {"force_range": "signed", "loss_unit": "cell", "first_forces": "independent"},
        {"neighbour_number": "graph", "pair_sum": "unordered", "temperature": "1"},
    ):
        found = infer_side_by_side(tissues, lattice(100), seeds, 40, 0.1, switches | changes)
        for tissue, seed, forces in zip(tissues, seeds, found, strict=True):
            alone = fit_interactions(
                [(tissue, lattice(100))],
                "as_run",
                epochs=40,
                learning_rate=0.1,
                seed=seed,
                switches=changes,
            )
            np.testing.assert_allclose(forces["inter"], alone.inter, atol=1e-10)
            np.testing.assert_allclose(forces["intra"], alone.intra, atol=1e-10)


def test_true_forces_are_those_of_the_published_draws():
    np.random.seed(3)  # noqa: NPY002 - the code draws from NumPy's global generator
    share = stats.uniform.rvs(size=1)[0]
    pairs = np.zeros(1)
    while pairs.mean() in (0, 1):
        pairs = stats.binom.rvs(1, share, size=6)
    forces = zero_one_forces(np.random.RandomState(3), 4)
    np.testing.assert_array_equal(forces[np.triu_indices(4, 1)], pairs)
    np.testing.assert_array_equal(forces, forces.T)
    np.testing.assert_array_equal(np.diag(forces), 1)


def test_inside_the_lattice_the_six_nearest_stand_around_a_cell():
    graph = lattice(100).toarray()
    assert (graph.sum(axis=1) == 6).all()
    assert np.flatnonzero(graph[55]).tolist() == [44, 45, 54, 56, 64, 65]
    # Ties along the border are not mutual.
    assert (graph != graph.T).mean() == pytest.approx(0.014, abs=0.003)


def test_generated_tissues_have_no_mean_and_half_their_values_negative():
    found = list(generate_tissues(4, 100, range(5), settings_with(), switches_of("as_run")))
    assert np.median([np.linalg.norm(one.tissue.mean(axis=0)) for one in found]) < 0.01
    assert np.mean([(one.tissue < 0).mean() for one in found]) == pytest.approx(0.5, abs=0.1)
    for one in found:
        np.testing.assert_array_equal(one.truth["inter"], one.truth["intra"])


# --- mended -----------------------------------------------------------------------------------------------------


def recovery(table, panel):
    own = table[(table["panel"] == panel) & table["headline"] & (table["source"] == "estimate")]
    return own.groupby(["quantity", panel])["pearson"].mean()


def test_recovery_grows_with_cells_and_falls_with_genes_noise_and_dropout(mended):
    for quantity in ("inter", "intra"):
        by_cells = recovery(mended, "n_cells")[quantity]
        assert by_cells[900] > by_cells[100] + 0.1
        for knob, little, much in (("n_genes", 4, 24), ("noise", 0, 2), ("dropout", 0, 0.5)):
            found = recovery(mended, knob)[quantity]
            assert found[little] > found[much] + 0.1


def test_both_kinds_of_forces_are_recovered_and_told_apart(mended):
    own = mended[(mended["panel"] == "n_genes") & (mended["n_genes"] == 4) & mended["headline"]]
    assert own[own["source"] == "estimate"]["pearson"].min() > 0.6
    clean = mended[(mended["panel"] == "noise") & (mended["noise"] == 0) & mended["headline"]]
    means = clean.groupby(["quantity", "source"])["pearson"].mean()
    for quantity in ("inter", "intra"):
        assert means[quantity, "estimate"] > 0.7
        assert abs(means[quantity, "cross"]) < 0.3
        assert abs(means[quantity, "noise"]) < 0.3


def test_the_same_seeds_give_the_same_rows(mended):
    settings = settings_with(3)
    settings["grid"] |= {"n_simulations": 2}
    again = simulation.simulate("corrected", settings, switches_of("corrected"))
    same = mended[(mended["seed"] < 2) | ((mended["panel"] == "paper") & (mended["seed"] < 3))]
    pd.testing.assert_frame_equal(same.reset_index(drop=True), again)
    assert not mended.duplicated(simulation.KEY).any()


# --- switches ---------------------------------------------------------------------------------------------------


def test_true_forces_are_shared_or_independent():
    for values, source in (("as_run", "generated"), ("corrected", "sampled")):
        for shared in (True, False):
            switches = switches_of(values, true_forces="shared" if shared else "independent")
            if source == "generated":
                one = next(generate_tissues(24, 64, [1], settings_with(epochs=2), switches))
            else:
                one = next(sample_tissues(24, 64, [1], switches))
            inter, intra = (m[np.triu_indices(24, 1)] for m in one.truth.values())
            # 276 pairs of genes: four standard errors of a correlation of 0.
            agreement = np.corrcoef(inter, intra)[0, 1]
            assert agreement == pytest.approx(1) if shared else abs(agreement) < 0.24


def test_compared_entries_choose_the_headline():
    settings = settings_with(2, epochs=3)
    for value in ("all", "upper_triangle"):
        table = simulation.simulate("as_run", settings, switches_of("as_run", compared_entries=value))
        assert set(table.loc[table["headline"], "entries"]) == {value}


def test_constant_forces_fail_or_are_dropped(published):
    switches = switches_of("as_run", constant_forces="failure")
    failing = simulation.simulate("as_run", settings_with(8), switches)
    dropping = published[published["seed"] < 8]
    constant = (failing["status"] == "constant").to_numpy()
    assert 0 < constant.sum() < len(failing)
    np.testing.assert_array_equal(constant, dropping["status"] == "constant")
    assert (failing[constant][["spearman", "pearson", "p_value"]] == [0, 0, 1]).all(axis=None)
    assert dropping[constant][["spearman", "pearson", "p_value"]].isna().all(axis=None)


def test_an_inference_that_refuses_is_a_failure_with_its_reason():
    settings = settings_with(2, n_genes=30, n_cells=16)
    settings["grid"] |= {"n_genes": [4], "n_cells": [64], "noise": [0], "dropout": [0]}
    table = simulation.simulate("corrected", settings, switches_of("corrected"))
    failed = table[(table["panel"] == "paper") & (table["source"] == "estimate")]
    failed = failed[failed["quantity"] != "expression"]
    assert (failed["status"] == "failed").all()
    assert failed["reason"].str.contains("linear combinations").all()
    assert (failed["spearman"] == 0).all()
    tests = simulation.compare_with_noise(table)
    assert tests.query("quantity == 'inter'")["n_failed"].tolist() == [2] * 4


def test_simulated_tissues_are_sampled_or_generated():
    settings = settings_with(2, epochs=20)
    generated = simulation.simulate(
        "corrected",
        settings,
        switches_of("corrected", simulated_tissue="generated", log_partition="paper"),
    )
    assert set(generated["panel"]) == {"paper"}
    # The corrected generation starts from the same noise.
    as_run = simulation.simulate("as_run", settings, switches_of("as_run", true_forces="independent"))
    noise = [t[t["source"] == "noise"]["spearman"].to_numpy() for t in (generated, as_run)]
    np.testing.assert_array_equal(*noise)


# --- tests against noise, and files -----------------------------------------------------------------------------


def test_tests_are_those_of_scipy_on_the_pairs(published):
    found = simulation.compare_with_noise(published)
    assert len(found) == 3 * 2 * 2
    row = found.query("quantity == 'inter' and entries == 'all' and statistic == 'rho'").squeeze()
    own = published.query("quantity == 'inter' and entries == 'all'").set_index("seed")
    estimate = own[own["source"] == "estimate"]["spearman"].dropna()
    noise = own[own["source"] == "noise"]["spearman"][estimate.index]
    assert row["n_pairs"] == len(estimate) == 30 - row["n_constant"]
    assert row["wilcoxon_p"] == stats.wilcoxon(estimate, noise).pvalue
    assert row["t_p"] == stats.ttest_rel(estimate, noise).pvalue
    assert row["mann_whitney_p"] == stats.mannwhitneyu(estimate, noise).pvalue
    assert row["median_estimate"] == estimate.median()
    assert row["wilcoxon_p"] < 0.01


def test_files_hold_the_tables_and_say_where_they_come_from(tmp_path):
    outputs = {
        "correlations": tmp_path / "correlations.tsv",
        "tests": tmp_path / "tests.tsv",
        "provenance": tmp_path / "provenance.json",
    }
    settings = settings_with(3, epochs=5)
    contents = []
    for _ in range(2):
        simulation.run("as_run", settings, switches_of("as_run"), outputs)
        contents.append([path.read_bytes() for path in outputs.values()])
    assert contents[0] == contents[1]
    table = pd.read_csv(outputs["correlations"], sep="\t")
    assert list(table) == simulation.COLUMNS
    assert set(table["kind"]) == {"simulated"}
    assert set(table["protocol"]) == {"as_run"}
    manifest = json.loads(outputs["provenance"].read_text())
    assert manifest["switches"]["chart"] == "angles"
    assert manifest["seeds"] == ["0 to 2"]


def test_the_default_settings_are_those_of_the_paper():
    loaded = config.load_config(
        {
            "datasets": {
                "tissue": {
                    "source": "simulated",
                    "experiments": ["cellina"],
                    "control_domain": "domain_0",
                    "target_domains": ["domain_1"],
                }
            }
        }
    )
    settings = loaded["celcomen"]["simulation"]
    paper = {
        "n_simulations": 100,
        "n_genes": 4,
        "n_cells": 100,
        "epochs": 2000,
        "learning_rate": 0.1,
    }
    assert {key: settings[key] for key in paper} == paper
    assert settings.keys() == settings_with().keys()
    assert settings["grid"].keys() == settings_with()["grid"].keys()
