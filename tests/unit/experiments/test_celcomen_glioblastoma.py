"""Experiment 3: crop, localisation and knock-out."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.lines import Line2D
from scipy import sparse, stats

from drawings import PROVENANCE, panel, png_size, texts, words_outside
from slides import true_forces
from tissue_counterfactuals import gene_sets, protocols
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.experiments import celcomen_glioblastoma as tumour
from tissue_counterfactuals.experiments import celcomen_knockout as knockout
from tissue_counterfactuals.experiments import force_clusters, force_statistics
from tissue_counterfactuals.models.celcomen_counterfactual import counterfactual
from tissue_counterfactuals.models.celcomen_interventions import KnockOut
from tissue_counterfactuals.results.figures import figure_celcomen_3, figure_celcomen_7
from tissue_counterfactuals.simulate.field import simulate_field
from tissue_counterfactuals.slide import write_slide

GENE = "gene_04"
SETTINGS = {
    "min_counts_per_cell": 20,
    "target_sum": 1e6,
    "crop_um": None,
    "min_cells_per_gene": 20,
    "radius_um": 15,
    "epochs": 20,
    "learning_rate": 0.05,
    "ridge": 0.0,
    "localization": {"n_bins": 5, "n_permutations": 500},
    "knockout": {
        "gene": GENE,
        "n_cells": 10,
        "n_placebo": 2,
        "epochs": 10,
        "learning_rate": None,
    },
    "enrichment": {
        "gene_sets": ["hallmark"],
        "min_size": 15,
        "max_size": 500,
        "n_permutations": 50,
    },
}
CORRECTED, AS_RUN = (protocols.resolve(p) for p in ("corrected", "as_run"))


@pytest.fixture(scope="module")
def slide():
    return simulate_field(n_cells=600, n_genes=40, depth=500, seed=1)


@pytest.fixture(scope="module")
def tissue(slide):
    return tumour.prepare(slide, SETTINGS, CORRECTED)


@pytest.fixture(scope="module")
def graph(tissue):
    return tumour.contacts(tissue, SETTINGS)


# --- preparation ------------------------------------------------------------------------------------------------


def test_crop_is_open_and_normalisation_is_per_cell(slide):
    x, y = slide.obsm["spatial"].T
    edge = np.sort(x)[200]
    crop = [edge, np.sort(x)[400], y.min() - 1, y.max() + 1]
    cropped = tumour.prepare(slide, SETTINGS | {"crop_um": crop}, AS_RUN)
    assert cropped.n_obs == 199
    whole = tumour.prepare(slide, SETTINGS, AS_RUN)
    np.testing.assert_array_equal(cropped.X.toarray(), whole[cropped.obs_names].X.toarray())
    counts = slide[cropped.obs_names].X.toarray()
    expected = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e6)
    np.testing.assert_allclose(cropped.X.toarray(), expected, rtol=1e-5)


def test_cells_with_few_counts_go(slide):
    counts = np.asarray(slide.X.sum(axis=1)).ravel()
    least = int(np.median(counts))
    assert tumour.prepare(slide, SETTINGS | {"min_counts_per_cell": least}, AS_RUN).n_obs == (counts >= least).sum()
    with pytest.raises(InputError, match=r"no cell has 1000000 counts, the richest has \d+; lower"):
        tumour.prepare(slide, SETTINGS | {"min_counts_per_cell": 1000000}, AS_RUN)


def test_empty_crop_is_refused(slide):
    with pytest.raises(InputError, match=r"the crop 6500 < x < 7000, .* holds no cell; cells lie at x"):
        tumour.prepare(slide, SETTINGS | {"crop_um": [6500, 7000, 8000, 8500]}, AS_RUN)


def test_several_samples_are_refused():
    two = simulate_field(n_cells=100, n_genes=5, n_samples=2)
    with pytest.raises(InputError, match=r"of 2 samples \(sample_0, sample_1, ...\).*name it under"):
        tumour.prepare(two, SETTINGS, AS_RUN)


# --- localisation -----------------------------------------------------------------------------------------------


def random_forces(rng, n_genes):
    return tuple(m + m.T for m in rng.normal(size=(2, n_genes, n_genes)))


def random_classes(rng, n_genes, weights=None):
    labels = rng.choice(gene_sets.LOCALIZATIONS, n_genes)
    return pd.DataFrame({c: labels == c for c in gene_sets.LOCALIZATIONS})


def test_planted_localisation_is_found():
    rng = np.random.default_rng(0)
    classes = random_classes(rng, 60)
    inter, intra = random_forces(rng, 60)
    secreted = classes["secreted"].to_numpy()
    inter[secreted] *= 1.6
    inter[:, secreted] *= 1.6
    values = force_statistics.gene_differences(inter, intra)
    found = force_statistics.localization_of_genes(values, classes, rng.random(60), 5, 500, 0)
    found = found.set_index(["first", "second"])
    assert found.loc[("secreted", "cytoplasmic"), "p_value"] < 0.01
    assert found.loc[("secreted", "cytoplasmic"), "difference"] > 0.5
    assert found.loc[("membrane", "cytoplasmic"), "p_value"] > 0.05
    # Signs hide strength.
    signed = force_statistics.gene_differences(inter, intra, signed=True)
    assert abs(np.corrcoef(values, signed)[0, 1]) < 0.5


def test_tails_are_of_the_strongest_pairs_and_of_nothing_else(monkeypatch):
    rng = np.random.default_rng(1)
    inter, intra = random_forces(rng, 60)
    classes = random_classes(rng, 60)
    # Five in a hundred pairs, all of secreted genes, act far more between cells; all others of them slightly less.
    secreted = classes["secreted"].to_numpy()
    few = np.triu(rng.random((60, 60)) < 0.12, 1)
    few = (few | few.T) & secreted[:, None]
    inter = np.where(few | few.T, 3 * np.abs(inter).max(), 0.8 * inter)
    values = force_statistics.gene_tails(inter, intra)
    found = force_statistics.localization_of_genes(values, classes, rng.random(60), 5, 500, 0)
    row = found.set_index(["first", "second"]).loc[("secreted", "cytoplasmic")]
    assert row["p_value"] < 0.01
    assert row["difference"] > 0.5
    # By hand, of three pairs: the upper third and the lower third of their differences.
    a, b = np.zeros((3, 3)), np.zeros((3, 3))
    for matrix, pair in ((a, (0, 1)), (b, (1, 2))):
        matrix[pair] = matrix[pair[::-1]] = 1
    shares = np.array([0.5, 0.0, -0.5])
    with monkeypatch.context() as patch:
        patch.setattr(force_statistics, "TAIL", 1 / 3)
        np.testing.assert_allclose(force_statistics.gene_tails(a, b), shares / shares.std())
        # The diagonal is nobody's pair, and forces that are all the same have no tails.
        np.testing.assert_allclose(force_statistics.gene_tails(a + 9 * np.eye(3), b), shares / shares.std())
    assert not force_statistics.gene_tails(np.ones((4, 4)), np.eye(4)).any()
    # It is strength that is brought to unit spread: signs decide nothing.
    forces = np.random.default_rng(0).normal(size=(2, 20, 20)) + [[[0]], [[2]]]
    inter, intra = forces + forces.transpose(0, 2, 1)
    np.testing.assert_allclose(
        force_statistics.gene_tails(inter, intra), force_statistics.gene_tails(np.abs(inter), np.abs(intra))
    )


def test_null_p_values_are_uniform_even_where_expression_differs_between_classes():
    """Classes differ in expression and the value follows expression; the test as run takes that for an effect."""
    p_genes, p_entries = [], []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        mean = rng.random(60)
        secreted = rng.random(60) < 0.2 + 0.6 * mean
        classes = pd.DataFrame({"secreted": secreted, "membrane": np.zeros(60, bool), "cytoplasmic": ~secreted})
        values = np.floor(mean * 10) + rng.normal(size=60)
        found = force_statistics.localization_of_genes(values, classes, mean, 20, 199, seed)
        p_genes.append(found["p_value"].iloc[0])
        entries = values[:, None] + rng.normal(size=(60, 60))
        p_entries.append(force_statistics.localization_of_entries(entries, classes)["p_value"].iloc[0])
    assert stats.kstest(p_genes, "uniform").pvalue > 0.001
    assert np.mean(np.array(p_genes) < 0.05) < 0.12
    assert np.mean(np.array(p_entries) < 0.05) > 0.8


def test_entries_as_run():
    rng = np.random.default_rng(3)
    inter, intra = random_forces(rng, 12)
    classes = random_classes(rng, 12)
    z = force_statistics.entry_differences(inter, intra)
    assert z.mean() == pytest.approx(0, abs=1e-12)
    assert z.std() == pytest.approx(1)
    found = force_statistics.localization_of_entries(z, classes).iloc[0]
    a, b = (z[classes[c].to_numpy()].ravel() for c in ("secreted", "cytoplasmic"))
    assert found["p_value"] == pytest.approx(stats.mannwhitneyu(a, b).pvalue)
    assert (found["n_first"], found["n_second"]) == (len(a), len(b))


def test_a_gene_of_both_lists_counts_in_both_but_not_against_itself():
    classes, source = gene_sets.localize(pd.Index(["CD44", "FN1", "STAT1", "MX1"]))
    assert "GO:0005615" in source
    assert classes.loc["CD44"].tolist() == [True, True, False]
    assert classes.loc["MX1"].tolist() == [False, False, True]
    found = force_statistics.localization_of_genes(np.arange(4.0), classes, np.arange(4.0), 1, 9, 0).set_index(
        ["first", "second"]
    )
    assert found.loc[("secreted", "membrane"), "n_first"] == (classes["secreted"] & ~classes["membrane"]).sum()
    with pytest.raises(InputError, match=r"none of its 2 genes \(the first is 'gene_0'\)"):
        gene_sets.localize(pd.Index(["gene_0", "gene_1"]))
    # C3 and F3 are spelled as in man, and nothing else of a mouse is.
    with pytest.raises(InputError, match=r"the symbols of its 4 genes \(the first is 'C3'\) are those of mouse"):
        gene_sets.localize(pd.Index(["C3", "F3", "Fos", "Vegfa"]))
    with pytest.raises(InputError, match=r"'localization' holds 'nuclear' for gene 'b'"):
        gene_sets.localize(pd.Index(["a", "b"]), pd.Series(["secreted", "nuclear"]))


# --- knock-out --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_one_cell_as_run_is_the_authors_draw(tissue, graph, seed):
    cells = knockout.knocked_out_cells(tissue, GENE, graph, SETTINGS, AS_RUN, seed)
    expressing = np.flatnonzero(tissue[:, GENE].X.toarray().ravel() > 0)
    np.random.seed(seed)  # noqa: NPY002
    np.testing.assert_array_equal(cells, np.random.choice(expressing, size=1))  # noqa: NPY002


def test_many_cells_are_far_from_each_other(tissue, graph):
    cells = knockout.knocked_out_cells(tissue, GENE, graph, SETTINGS, CORRECTED, 0)
    assert 3 <= len(cells) <= SETTINGS["knockout"]["n_cells"]
    assert (tissue[cells, GENE].X.toarray() > 0).all()
    places = tissue.obsm["spatial"][cells]
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    assert distance[~np.eye(len(cells), dtype=bool)].min() > 4 * SETTINGS["radius_um"]


def test_gene_that_cannot_be_knocked_out(tissue, graph):
    absent = SETTINGS | {"knockout": SETTINGS["knockout"] | {"gene": "IFITM3"}}
    with pytest.raises(InputError, match=r"the gene to knock out, 'IFITM3', is not among its 40 gen"):
        knockout.knocked_out_cells(tissue, "IFITM3", graph, absent, CORRECTED, 0)
    silent = tissue.copy()
    silent.X = sparse.csr_matrix(silent.X.multiply(silent.var_names != GENE))
    with pytest.raises(InputError, match=r"no cell of the crop expresses 'gene_04'"):
        knockout.knocked_out_cells(silent, GENE, graph, SETTINGS, CORRECTED, 0)
    alone = sparse.csr_array(graph.shape, dtype=np.float32)
    with pytest.raises(InputError, match=r"no cell that expresses 'gene_04' has a neighbour"):
        knockout.knocked_out_cells(tissue, GENE, alone, SETTINGS, CORRECTED, 0)


def test_groups_are_rings(tissue):
    cells = np.array([5, 300])
    group, nearest = knockout.group_cells(tissue, cells, 15)
    places = tissue.obsm["spatial"]
    distance = np.linalg.norm(places[:, None] - places[cells][None], axis=2)
    np.testing.assert_array_equal(nearest, distance.argmin(axis=1))
    least = distance.min(axis=1)
    assert set(np.flatnonzero(group == 0)) == {5, 300}
    np.testing.assert_array_equal(group == 1, (least > 0) & (least < 15))
    np.testing.assert_array_equal(group == 2, (least >= 15) & (least < 30))


def test_signature_finds_planted_partners(tissue):
    planted = tissue.copy()
    values = planted.X.toarray()
    values[::2, planted.var_names.get_loc(GENE)] = 0
    on = values[:, planted.var_names.get_loc(GENE)] > 0
    partners = ["gene_10", "gene_20", "gene_30"]
    for name in partners:
        values[:, planted.var_names.get_loc(name)] = 5.0 * on + 1
    planted.X = sparse.csr_matrix(values)
    found = knockout.signature(planted, GENE, np.ones(planted.n_obs, bool))
    assert set(found[:3]) == set(partners)
    assert GENE not in found
    assert len(found) == 24
    with pytest.raises(InputError, match=r"of 5 cells express 'gene_04'"):
        knockout.signature(planted, GENE, np.isin(np.arange(len(on)), np.flatnonzero(on)[:5]))


def test_sites_are_the_unit():
    values = np.array([1.0, 2.0, 4.0, 6.0, 9.0])
    group, nearest = np.array([0, 1, 1, 1, 3]), np.array([0, 0, 0, 1, 1])
    found = knockout.by_site(values, group, nearest).set_index("group")
    # The first site's two neighbours have mean 3, the second's has 6.
    assert found.loc["neighbours_0", "effect"] == pytest.approx(4.5)
    assert found.loc["neighbours_0", ["n_cells", "n_sites"]].tolist() == [3, 2]
    # Two sites are too few for an interval.
    assert found[["low", "high"]].isna().all(axis=None)
    assert found.loc["neighbours_1", "n_cells"] == 0


def test_an_interval_over_sites_is_that_of_their_means():
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1, 3], [12, 24, 50])
    nearest = np.concatenate([np.arange(12), np.arange(24) // 2, rng.integers(0, 12, 50)])
    values = rng.normal(size=86)
    found = knockout.by_site(values, group, nearest).set_index("group")
    by_site = values[12:36].reshape(12, 2).mean(axis=1)
    expected = force_statistics.mean_interval(by_site)
    assert tuple(found.loc["neighbours_0", ["low", "high"]]) == pytest.approx(expected)
    # The rest is one population: its cells are no sites.
    assert np.isnan(found.loc["rest", "low"])


def test_an_interval_is_student_s_but_where_values_are_skewed():
    even = np.random.default_rng(0).normal(size=6)
    even = np.concatenate([even, -even]) + 3
    expected = stats.ttest_1samp(even, 0).confidence_interval(0.95)
    assert force_statistics.mean_interval(even) == pytest.approx(tuple(expected), rel=1e-6)
    low, high = force_statistics.mean_interval(np.exp(even))
    mean = np.exp(even).mean()
    assert high - mean > 1.3 * (mean - low)
    lower, higher = force_statistics.mean_interval(-np.exp(even))
    assert (-higher, -lower) == pytest.approx((low, high))
    assert force_statistics.mean_interval(np.ones(10)) == (1, 1)


def test_a_class_of_few_genes_has_a_mean_and_no_interval():
    values = np.random.default_rng(0).normal(size=30)
    sizes = dict(zip(gene_sets.LOCALIZATIONS, (9, 10, 0), strict=True))
    classes = pd.DataFrame({name: np.arange(30) < n for name, n in sizes.items()})
    rows = {row["class"]: row for row in tumour.class_means(values, classes)}
    few, enough, none = (rows[name] for name in sizes)
    assert few["mean"] == pytest.approx(values[:9].mean())
    assert np.isnan([few["low"], few["high"], none["low"]]).all()
    assert (enough["low"], enough["high"]) == pytest.approx(force_statistics.mean_interval(values[:10]))


@pytest.fixture(scope="module")
def truth(slide, tissue):
    return true_forces(slide)


@pytest.fixture(scope="module")
def effects(tissue, graph, truth):
    """Of the exact counterfactual and of generation, and the group of each cell."""
    cells = knockout.knocked_out_cells(tissue, GENE, graph, SETTINGS, CORRECTED, 0)
    group, _ = knockout.group_cells(tissue, cells, SETTINGS["radius_um"])
    place = tissue.var_names.get_loc(GENE)
    exact = knockout.ExactField(tissue, graph, *truth, CORRECTED).effect(cells, place)
    generated = counterfactual(sparse.csr_array(tissue.X), graph, *truth, [KnockOut(cells, [place])], epochs=10).effect
    return exact, generated, group


def test_effect_decays_with_distance(effects):
    *both, group = effects
    for effect in both:
        size = np.linalg.norm(effect, axis=1)
        by_group = [size[group == number].mean() for number in range(4)]
        assert by_group[0] > by_group[1] > by_group[2] > by_group[3]
        assert by_group[3] < by_group[1] / 5


def test_an_effect_has_the_signs_of_the_forces(effects, tissue, truth):
    """Without a gene its partners go down where they push each other up, and up where they push down."""
    exact, _, group = effects
    place = tissue.var_names.get_loc(GENE)
    for forces, cells in zip(truth[::-1], (group == 0, group == 1), strict=True):
        partners = np.flatnonzero(forces[place])
        partners = partners[partners != place]
        strength = forces[place, partners]
        change = exact[cells][:, partners].mean(axis=0)
        assert len(partners) >= 2
        strongest = np.argmax(np.abs(strength))
        assert np.sign(change[strongest]) == -np.sign(strength[strongest])


def test_unscaled_cells_lose_by_generation_what_the_field_says(tissue, graph):
    """Score of the signature, as drawn in Fig. 3d: to a thousandth, where the gene is lost and around."""
    switches = CORRECTED | {"scale": "none"}
    fit = tumour.fit(tissue, graph, SETTINGS, switches, 0)
    forces = fit.inter, fit.intra
    cells = knockout.knocked_out_cells(tissue, GENE, graph, SETTINGS, switches, 0)
    group, _ = knockout.group_cells(tissue, cells, SETTINGS["radius_um"])
    place = tissue.var_names.get_loc(GENE)
    marks = knockout.signature(tissue, GENE, group == 3)
    columns = tissue.var_names.get_indexer(marks)
    effects = (
        knockout.ExactField(tissue, graph, *forces, switches).effect(cells, place),
        counterfactual(
            sparse.csr_array(tissue.X),
            graph,
            *forces,
            [KnockOut(cells, [place])],
            switches=switches,
        ).effect,
    )
    exact, generated = (
        [knockout.scores(effect, columns)[group == number].mean() for number in (0, 1)] for effect in effects
    )
    assert abs(exact[0]) > 0.1
    assert generated == pytest.approx(exact, rel=1e-3)


def test_without_forces_between_cells_nothing_leaves_the_cell(tissue, graph, truth):
    cells = np.array([7])
    effect = knockout.ExactField(tissue, graph, np.zeros_like(truth[0]), truth[1], CORRECTED).effect(cells, 4)
    assert np.abs(effect[7]).max() > 0
    np.testing.assert_allclose(np.delete(effect, 7, axis=0), 0, atol=1e-12)


def test_ranking_is_against_the_rest():
    effect = np.array([[1.0, 2, 3], [4, 5, 6], [1, 1, 1], [3, 3, 3]])
    found = knockout.rank_genes(effect, np.array([0, 1, 3, 3]), pd.Index(["a", "b", "c"]), "b")
    assert found.index.tolist() == ["a", "c"]
    assert found["knocked_out"].tolist() == [-1, 1]
    assert found["neighbours_0"].tolist() == [2, 4]
    assert "neighbours_1" not in found
    every = knockout.rank_genes(effect, np.arange(4), pd.Index(["a", "b", "c"]), "b")
    assert every.columns.tolist() == list(knockout.GROUPS[:3])


def test_prerank_finds_a_planted_set_and_says_when_it_cannot():
    genes = pd.Index([f"g{i:02d}" for i in range(80)])
    values = pd.Series(np.random.default_rng(0).normal(size=80), index=genes)
    values.iloc[:20] -= 2
    sets = {"DOWN": list(genes[:20]), "OTHER": list(genes[30:60])}
    found = gene_sets.prerank(values, sets, n_permutations=200, seed=1)
    assert found["term"].iloc[0] == "DOWN"
    assert found["normalized_enrichment"].iloc[0] < -1.5
    assert "p_value" not in found
    shuffled = values.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(found, gene_sets.prerank(shuffled, sets, n_permutations=200, seed=1))
    none = gene_sets.prerank(values, {"X": ["y"]})
    assert none["status"].tolist() == ["not applicable: no gene set holds 15 to 500 of the 80 genes"]
    flat = gene_sets.prerank(values * 0, sets)
    assert flat["status"].str.contains("all genes have the same value").all()


def test_an_enrichment_is_ranked_among_those_of_other_knock_outs():
    found = pd.DataFrame({"term": ["A", "B", "C", "-"], "normalized_enrichment": [-3.0, 1.0, 2.0, np.nan]})
    others = [found.assign(normalized_enrichment=[2.0, -1.5 if i < 9 else 0.5, 1.0, np.nan]) for i in range(19)]
    # One other has no set C, so that too few have it.
    others[0] = others[0].drop(index=2)
    table = gene_sets.rank_among(found, others).set_index("term")
    assert table["p_value"].dropna().to_dict() == pytest.approx({"A": 1 / 20, "B": 10 / 20})
    assert table["q_value"].dropna().to_dict() == pytest.approx({"A": 2 / 20, "B": 10 / 20})
    assert table["smallest_p"].dropna().to_dict() == pytest.approx({"A": 1 / 20, "B": 1 / 20})
    for few in (others[:18], []):
        assert gene_sets.rank_among(found, few)[["p_value", "q_value", "smallest_p"]].isna().all(axis=None)


def test_a_real_crop_of_another_shape_is_told_with_both_numbers(slide, capsys):
    graph = tumour.contacts(slide, SETTINGS)
    entry = {"kind": "real", "source": "xenium", "files": "glioblastoma_xenium"}
    table = tumour.compare_crop(entry, slide, graph).set_index("quantity")
    assert (table["step"] == "crop").all()
    assert table["found"].to_dict() == {
        "cells": slide.n_obs,
        "genes": slide.n_vars,
        "edges": graph.nnz,
    }
    assert table["expected"].to_dict() == {"cells": 1781, "genes": 480, "edges": 7724}
    assert set(table["verdict"]) == {"differs"}
    assert "7,724 were published" in capsys.readouterr().out
    simulated = tumour.compare_crop(entry | {"kind": "simulated"}, slide, graph)
    assert set(simulated["verdict"]) == {"not compared"}


# --- the whole step ---------------------------------------------------------------------------------------------

FIT = ("diagnostics", "forces", "manifest", "shapes")
KNOCKOUT = ("cells", "signature", "trajectories", "placebo", "changes", "enrichment", "diagnostics")


@pytest.fixture(scope="module")
def results(slide, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tumour")
    write_slide(slide, folder / "slide.h5ad")
    made = {}
    for protocol in protocols.PROTOCOLS:
        switches = protocols.resolve(protocol)
        fit = {n: folder / f"{protocol}.fit_{n}" for n in FIT} | {"forces": folder / f"{protocol}.npz"}
        entry = {"name": "toy", "kind": "simulated", "label": "Toy"}
        entry |= {"source": "simulated_field", "files": None}
        tumour.run(folder / "slide.h5ad", entry, protocol, [0, 1], SETTINGS, switches, fit)
        files = {n: folder / f"{protocol}.{n}.tsv" for n in ("classes", "tests")}
        tumour.localization(fit["forces"], fit["manifest"], SETTINGS["localization"], switches, files)
        files |= {n: folder / f"{protocol}.{n}.tsv" for n in KNOCKOUT}
        tumour_files = folder / "slide.h5ad", fit["forces"], fit["manifest"]
        knockout.run(*tumour_files, SETTINGS, switches, {n: files[n] for n in KNOCKOUT})
        made[protocol] = files | {"manifest": fit["manifest"], "forces": fit["forces"]}
    return made


def read(files, name):
    return pd.read_csv(files[name], sep="\t")


@pytest.mark.parametrize(("protocol", "chosen"), [("corrected", "genes"), ("as_run", "entries")])
def test_localization_test_is_a_switch(results, protocol, chosen):
    tests = read(results[protocol], "tests")
    assert set(tests["statistic"]) == {"entries", "genes", "genes_signed", "tails"}
    assert set(tests.loc[tests["chosen"], "statistic"]) == {chosen}
    assert set(tests["classes_from"]) == {"column localization of the slide"}
    assert set(tests["seed"]) == {0, 1}
    # Permutation p values are multiples of 1/501; Mann-Whitney's are not.
    steps = tests["p_value"] * 501
    whole = np.abs(steps - steps.round()) < 1e-3
    assert whole[tests["statistic"] != "entries"].all()
    assert not whole[tests["statistic"] == "entries"].any()
    # Entries share genes: an interval that takes them for independent is not given.
    means = read(results[protocol], "classes").set_index("statistic")
    assert means.loc["entries", ["low", "high"]].isna().all(axis=None)
    genes = means.loc["genes"]
    enough = genes["n_genes"] >= force_statistics.LEAST_VALUES
    for end in ("low", "high"):
        assert (genes[end].notna() == enough).all()


@pytest.mark.parametrize("protocol", protocols.PROTOCOLS)
def test_trajectories_begin_before_anything_happened(results, protocol):
    tracks = read(results[protocol], "trajectories")
    start = tracks[(tracks["epoch"] == 0) & (tracks["method"] == "generation")]
    assert set(start["group"]) == set(knockout.GROUPS)
    outside = start[start["group"] != "knocked_out"]
    np.testing.assert_allclose(outside["effect"].dropna(), 0, atol=1e-12)
    as_run = tracks["z_as_run"].notna()
    assert (tracks["epoch"][as_run] >= 5).all()
    one_seed = tracks[as_run & (tracks["seed"] == 0)]["z_as_run"]
    assert one_seed.mean() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("protocol", "n_cells"), [("corrected", 10), ("as_run", 1)])
def test_knockout_cells_is_a_switch(results, protocol, n_cells):
    cells = read(results[protocol], "cells")
    n = (cells[cells["seed"] == 0]["group"] == "knocked_out").sum()
    assert n == 1 if protocol == "as_run" else 3 <= n <= n_cells


def test_placebo_and_exact_are_of_the_gaussian_field(results):
    placebo = read(results["corrected"], "placebo")
    assert placebo.groupby("seed")["gene"].nunique().tolist() == [3, 3]
    assert set(placebo["role"]) == {"gene", "placebo"}
    assert set(placebo["n_ranked"]) == {3}
    ranks = placebo.groupby(["seed", "group"])["rank"].apply(sorted)
    assert (ranks.str.len() == 3).all()
    assert ranks.loc[0, "knocked_out"] == [1, 2, 3]
    lowest = placebo.query("seed == 0 and group == 'knocked_out'").set_index("rank")["effect"]
    assert lowest[1] < lowest[2] < lowest[3]
    # The gene's own row is the effect that stands in the table of the field.
    tracks = read(results["corrected"], "trajectories").query("method == 'exact' and seed == 0")
    own = placebo.query("seed == 0 and role == 'gene'").set_index("group")["effect"]
    pd.testing.assert_series_equal(own, tracks.set_index("group")["effect"])
    reason = read(results["as_run"], "placebo")["status"]
    assert reason.str.startswith("not applicable: only the gaussian").all()
    assert set(read(results["corrected"], "changes")["method"]) == {"generation", "exact"}
    assert set(read(results["as_run"], "changes")["method"]) == {"generation"}


def test_nothing_to_enrich_is_said(results):
    terms = read(results["corrected"], "enrichment")
    reason = terms.loc[terms["term"] == "-", "status"]
    assert (reason == "not applicable: no gene set holds 15 to 500 of the 39 genes").all()
    # The signature of 24 genes is a set of its own; found in the same tissue, it has a score and no p value.
    own = terms[terms["term"] != "-"]
    assert set(own["term"]) == {f"SIGNATURE_OF_{GENE}"}
    assert set(own["status"]) == {"ok"}
    assert own["normalized_enrichment"].notna().all()
    assert own[["p_value", "q_value"]].isna().all(axis=None)


@pytest.mark.parametrize("protocol", protocols.PROTOCOLS)
def test_figures_are_drawn(results, protocol, tmp_path, monkeypatch):
    files = results[protocol]
    figure_celcomen_3.draw_files(files, tmp_path / "3.png")
    names = ("classes", "tests", "cells", "trajectories", "placebo", "enrichment", "diagnostics")
    tables = {n: read(files, n).query("seed == 0") for n in names}
    ranked = tables["enrichment"].assign(p_value=0.05, q_value=0.05, smallest_p=0.025)
    ranked = figure_celcomen_3.compose(tables | {"enrichment": ranked}, "T [simulated]", PROVENANCE)
    assert any("other knock-outs, at least 0.025;" in text for text in texts(ranked))
    figure = figure_celcomen_3.compose(tables, "T [simulated]", PROVENANCE)
    said = " ".join(texts(figure))
    assert "no p value: too few exact" in said
    for text in ("knock-out of gene_04", "collapsed to zero", "gene means", "T [simulated]"):
        assert text in said
    assert words_outside(figure) == []
    drawn = {
        "members": tmp_path / "m",
        "enrichment": tmp_path / "e",
        "matrices": tmp_path / "m.npz",
    }
    settings = {"n_clusters": 3, "gene_sets": ["hallmark"], "min_size": 5, "max_size": 500}
    switches = protocols.resolve(protocol)
    force_clusters.run(files["forces"], files["manifest"], settings, switches, drawn)
    figure_celcomen_7.draw_files(drawn | {"manifest": files["manifest"]}, tmp_path / "7.png")
    assert png_size(tmp_path / "3.png")[0] == 1800
    assert png_size(tmp_path / "7.png")[0] == 1725
    # What is drawn are the numbers of the tables.
    bars = panel(figure, "b  where genes act").containers
    classes = read(files, "classes").query("seed == 0")
    heights = [patch.get_height() for container in bars for patch in container]
    assert sorted(heights) == pytest.approx(sorted(classes["mean"]))
    tracks = read(files, "trajectories").query("seed == 0 and method == 'generation'")
    own = tracks[tracks["group"] == "neighbours_0"]
    column = "knocked_out" if protocol == "as_run" else "effect"
    (curves,) = [
        a for a in figure.axes if a.get_xlabel() == "epoch" and np.allclose(a.lines[0].get_ydata(), own[column])
    ]
    assert curves.lines[0].get_xdata().tolist() == own["epoch"].tolist()
    published = [line for line in figure.findobj(Line2D) if line.get_gid() == "as_published"]
    if protocol == "as_run":
        # The z-scored table from epoch 5 on, group by group, as drawn in the paper.
        drawn = np.concatenate([line.get_ydata() for line in published])
        assert len(published) == 4
        assert drawn.mean() == pytest.approx(0, abs=1e-5)
        assert drawn.std() == pytest.approx(1, abs=1e-5)
        assert "as published, not valid:" in said
    else:
        assert not published
        exact = read(files, "trajectories").query("seed == 0 and method == 'exact'")
        lines = [line for line in figure.findobj(Line2D) if line.get_gid() == "exact"]
        assert sorted(line.get_ydata()[0] for line in lines) == sorted(exact["effect"].dropna())
        # Titles that stand side by side do not touch.
        figure.canvas.draw()
        titles = [a._left_title.get_window_extent() for a in figure.axes if a.get_xlabel() == "epoch"]
        assert len(titles) == 4
        assert all(a.x1 < b.x0 for a, b in pairwise(sorted(titles, key=lambda box: box.x0)))
        assert "rank" in said
        assert "entries share genes" in said
    record = json.loads(files["manifest"].read_text())
    assert record["kind"] == "simulated"
    # The first seed of the run, which need not be the smallest.
    (tmp_path / "m.json").write_text(json.dumps(record | {"seeds": [1, 0]}))
    shown = []
    monkeypatch.setattr(figure_celcomen_3.style, "save", lambda figure, _: shown.append(figure))
    figure_celcomen_3.draw_files(files | {"manifest": tmp_path / "m.json"}, tmp_path / "3.png")
    bars = panel(shown[0], "b  where genes act").containers
    heights = [patch.get_height() for container in bars for patch in container]
    assert sorted(heights) == pytest.approx(sorted(read(files, "classes").query("seed == 1")["mean"]))
    assert "seed 1" in shown[0].get_suptitle()


def test_a_slide_too_large_to_generate_is_refused(slide, results, tmp_path, monkeypatch):
    monkeypatch.setattr(knockout, "_MOST_ENTRIES", 1000)
    write_slide(slide, tmp_path / "slide.h5ad")
    files = results["corrected"]
    with pytest.raises(InputError, match=r"600 cells x 40 genes are too many to generate; set"):
        knockout.run(*(tmp_path / "slide.h5ad", files["forces"], files["manifest"], SETTINGS, CORRECTED, {}))


def test_snapshots_hold_what_is_drawn_alone(slide, results, tmp_path, monkeypatch):
    """Of a crop as large as is let through, all genes in ten snapshots of two generations were 32 GB."""
    made = []

    def watched(*given, **keys):
        made.append((counterfactual(*given, **keys), counterfactual(*given, **keys | {"columns": None})))
        return made[-1][0]

    monkeypatch.setattr(knockout, "counterfactual", watched)
    write_slide(slide, tmp_path / "slide.h5ad")
    files, outputs = results["as_run"], {n: tmp_path / n for n in KNOCKOUT}
    knockout.run(tmp_path / "slide.h5ad", files["forces"], files["manifest"], SETTINGS, AS_RUN, outputs)
    signature = read(outputs, "signature").query("seed == 0")["gene"]
    few, whole = made[0]
    for generation in (few.edited, few.twin):
        first, *rest = [h["expression"].shape for h in generation.history if "expression" in h]
        assert first == generation.expression.shape
        assert set(rest) == {(first[0], len(signature))}
    columns = tumour.prepare(slide, SETTINGS, AS_RUN).var_names.get_indexer(signature)
    group, nearest = np.arange(600) % 4, np.arange(600) % 20
    one, other = (knockout.trajectories(done, columns, group, nearest) for done in (few, whole))
    pd.testing.assert_frame_equal(one, other)


def test_effect_as_run_counts_drift_as_effect(tissue, graph):
    """Against the start even a cell far from the knock-out has changed; against the twin it has not."""
    rng = np.random.default_rng(0)
    inter, intra = (np.abs(m + m.T) / 2 for m in rng.normal(size=(2, 40, 40)))
    found = {}
    for against in ("against_start", "against_twin"):
        done = counterfactual(
            sparse.csr_array(tissue.X),
            graph,
            inter,
            intra,
            [KnockOut([3], [4])],
            epochs=5,
            protocol="as_run",
            switches={"knockout_effect": against, "angles": "arctangent"},
        )
        group, _ = knockout.group_cells(tissue, np.array([3]), 15)
        found[against] = np.abs(done.effect[group == 3]).mean()
    assert found["against_start"] > 100 * found["against_twin"]


def test_forces_of_the_fit_do_not_see_the_order_of_cells(tissue, graph):
    order = np.random.default_rng(0).permutation(tissue.n_obs)
    one = tumour.fit(tissue, graph, SETTINGS, CORRECTED, 0)
    two = tumour.fit(tissue[order].copy(), graph[order][:, order], SETTINGS, CORRECTED, 0)
    np.testing.assert_allclose(one.inter, two.inter, rtol=1e-6, atol=1e-8)
    assert replace(one, history=[]).inter.shape == (40, 40)
