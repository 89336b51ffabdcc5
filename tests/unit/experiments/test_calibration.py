"""Every p value and interval of the experiments on simulated nulls, at the shipped settings where that is cheap.

A test at level 0.05 may reject in 5 of 100 nulls; how many of a limited number is bounded by the binomial distribution.
Statistics that do not keep their level are here too: their rates are the reason why they are shown as published, or as
ranges, and not as p values. Longer runs are written up in tests/bench/README.md.
"""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from slides import true_forces
from tissue_counterfactuals import config, gene_sets, protocols
from tissue_counterfactuals.experiments import (
    celcomen_glioblastoma,
    celcomen_knockout,
    celcomen_perturbmap,
    celcomen_recovery,
    force_statistics,
)
from tissue_counterfactuals.experiments.perturbmap_lesions import Lesion, Tissue
from tissue_counterfactuals.experiments.perturbmap_question import Question
from tissue_counterfactuals.experiments.simulated_tissues import sample_tissues
from tissue_counterfactuals.models.celcomen_statistics import scale_cells
from tissue_counterfactuals.neighbors import knn_graph
from tissue_counterfactuals.simulate.field import simulate_field

LEVEL = 0.05


def shipped(section):
    """The settings that a configuration gets which says nothing."""
    data = {"source": "simulated", "control_domain": "domain_0", "target_domains": ["domain_1"]}
    return config.load_config({"datasets": {"d": data}})["celcomen"][section]


def keeps_its_level(p_values, level=LEVEL):
    """Not more rejections than chance allows in one of a thousand runs of this test."""
    p_values = np.asarray(p_values)
    assert np.isfinite(p_values).all()
    rejected = int((p_values <= level).sum())
    return rejected <= stats.binom.ppf(0.999, len(p_values), level)


def is_not_idle(p_values, level=LEVEL):
    """And not fewer: it can reject."""
    rejected = int((np.asarray(p_values) <= level).sum())
    return rejected >= stats.binom.ppf(0.001, len(p_values), level)


def symmetric(rng, n_genes, n=2):
    return tuple(m + m.T for m in rng.normal(size=(n, n_genes, n_genes)))


# --- agreement of forces (Fig. 6) -------------------------------------------------------------------------------


def test_agreement_against_permuted_genes():
    """Unrelated forces of genes that are loud or silent in both samples alike."""
    p_values = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        scale = np.exp(0.5 * rng.normal(size=25))
        a, b = (m * np.outer(scale, scale) for m in symmetric(rng, 25))
        null = force_statistics.random_agreement(a, b, "permuted", "upper_triangle", 59, seed)
        observed = force_statistics.spearman(*(force_statistics.entries(m) for m in (a, b)))
        p_values.append(force_statistics.empirical_p(observed, null))
    assert keeps_its_level(p_values)
    assert is_not_idle(p_values)


@pytest.mark.parametrize(("draws", "least", "most"), [("own", 0.05, 0.14), ("one", 0.35, 0.7)])
def test_the_published_test_of_hold_outs_does_not_keep_its_level(draws, least, most):
    """Four hold-outs against four random draws: hold-outs share samples; with one draw for all, half is significant."""
    rejected = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        samples = rng.normal(size=(4, 66))
        rest = [np.delete(samples, i, 0).mean(axis=0) for i in range(4)]
        observed = np.array([force_statistics.spearman(*pair) for pair in zip(samples, rest, strict=True)])
        random = np.array(
            [force_statistics.spearman(rng.permutation(a), b) for a, b in zip(samples, rest, strict=True)]
        )
        random = random if draws == "own" else np.repeat(random[:1], 4)
        rejected.append(force_statistics.rank_test(observed, random) <= LEVEL)
    assert least < np.mean(rejected) < most


# --- localisation (Fig. 3b) -------------------------------------------------------------------------------------


def localized(seed, n_genes=240):
    """Forces whose strength follows expression, classes too; where genes act has nothing to do with their class."""
    rng = np.random.default_rng(seed)
    mean = rng.exponential(size=n_genes)
    place = stats.rankdata(mean) / n_genes
    secreted = rng.random(n_genes) < 0.15 + 0.4 * place
    membrane = rng.random(n_genes) < 0.3
    labels = {"secreted": secreted, "membrane": membrane, "cytoplasmic": ~(secreted | membrane)}
    inter, intra = symmetric(rng, n_genes)
    return inter * np.outer(0.5 + place, 0.5 + place), intra, pd.DataFrame(labels), mean


@pytest.mark.parametrize("statistic", ["strength", "signed", "tails"])
def test_localization_of_genes(statistic):
    settings = shipped("glioblastoma")["localization"]
    p_values = []
    for seed in range(70):
        inter, intra, classes, mean = localized(seed)
        values = force_statistics.gene_differences(inter, intra, statistic == "signed")
        if statistic == "tails":
            values = force_statistics.gene_tails(inter, intra)
        found = force_statistics.localization_of_genes(values, classes, mean, settings["n_bins"], 199, seed)
        p_values += found["p_value"].tolist()
    assert keeps_its_level(p_values)


def test_localization_where_expression_still_differs_within_a_bin():
    """Values and classes that both follow expression closely: labels are exchangeable but for that trend."""
    settings, n_genes = shipped("glioblastoma")["localization"], 480
    p_values = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        mean = rng.exponential(size=n_genes)
        place = stats.rankdata(mean) / n_genes
        secreted = rng.random(n_genes) < 0.1 + 0.8 * place
        labels = {"secreted": secreted, "membrane": np.zeros(n_genes, bool), "cytoplasmic": ~secreted}
        values = np.exp(3.5 * place) + rng.normal(size=n_genes)
        found = force_statistics.localization_of_genes(
            values, pd.DataFrame(labels), mean, settings["n_bins"], 199, seed
        )
        p_values.append(found["p_value"].iloc[0])
    assert keeps_its_level(p_values)
    assert is_not_idle(p_values)


def test_localization_of_entries_as_published_does_not_keep_its_level():
    p_values = []
    for seed in range(40):
        inter, intra, classes, _ = localized(seed, 100)
        own = np.random.default_rng(seed).normal(size=100)
        entries = force_statistics.entry_differences(inter + np.add.outer(own, own) / 2, intra)
        p_values += force_statistics.localization_of_entries(entries, classes)["p_value"].tolist()
    assert np.mean(np.array(p_values) <= LEVEL) > 0.3


def test_intervals_of_class_means():
    covered = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 3, 60)
        classes = pd.DataFrame({c: labels == i for i, c in enumerate(gene_sets.LOCALIZATIONS)})
        rows = celcomen_glioblastoma.class_means(rng.normal(size=60) + labels, classes)
        covered += [row["low"] <= i <= row["high"] for i, row in enumerate(rows)]
    assert 0.93 < np.mean(covered) < 0.97
    # Student's own, at another spread, of values that lie evenly about their mean.
    half = 3 * rng.normal(size=30)
    values, labels = np.concatenate([half, -half]), np.tile(np.arange(30) % 3, 2)
    classes = pd.DataFrame({c: labels == i for i, c in enumerate(gene_sets.LOCALIZATIONS)})
    for i, row in enumerate(celcomen_glioblastoma.class_means(values, classes)):
        expected = stats.ttest_1samp(values[labels == i], 0).confidence_interval(0.95)
        assert (row["low"], row["high"]) == pytest.approx(tuple(expected), rel=1e-6)


# --- knock-out (Fig. 3d, e) -------------------------------------------------------------------------------------


@pytest.mark.parametrize("skewed", [False, True])
def test_intervals_over_sites(skewed):
    """From the fewest sites that get one; an effect may be as skewed as an exponential, which Student's t misses."""
    n, covered, by_t = force_statistics.LEAST_VALUES, [], []
    rng = np.random.default_rng(0)
    quantile = stats.t.ppf(0.975, n - 1)
    for _ in range(3000):
        values = rng.exponential(size=n) - 1 if skewed else rng.normal(size=n)
        low, high = force_statistics.mean_interval(values)
        covered.append(low <= 0 <= high)
        by_t.append(abs(values.mean()) <= quantile * values.std(ddof=1) / np.sqrt(n))
    # 0.4 % is the standard error of these rates.
    assert 0.925 < np.mean(covered) < 0.97
    assert (np.mean(by_t) < 0.915) == skewed


def test_ranks_among_placebos():
    """Each gene of simulated tissues in turn among its placebos: each rank is equally likely.

    Scored on one gene's signature, as before, that gene was the lowest nearly always.
    """
    settings = {
        "radius_um": 15, "target_sum": 1e6, "min_counts_per_cell": 1, "crop_um": None, "min_cells_per_gene": 10,
        "knockout": {"n_cells": 20},
    }  # fmt: skip
    switches = protocols.resolve("corrected")
    ranks = []
    for seed in (1, 2):
        slide = simulate_field(n_cells=400, n_genes=60, depth=120, seed=seed)
        tissue = celcomen_glioblastoma.prepare(slide, settings, switches)
        graph = celcomen_glioblastoma.contacts(tissue, settings)
        field = celcomen_knockout.ExactField(tissue, graph, *true_forces(slide), switches)
        effects = {}

        def effect_of(gene, effects=effects, arguments=(tissue, graph, field), seed=seed):
            if gene not in effects:
                effects[gene], _ = celcomen_knockout.knock_out_effect(*arguments, gene, settings, switches, seed)
            return effects[gene]

        known = np.asarray((tissue.X > 0).mean(axis=0)).ravel()
        # A gene that nearly all cells express has no signature.
        some = set(tissue.var_names[known < 0.95][:24])
        for gene in sorted(some):
            candidates = [g for g in celcomen_knockout.placebo_genes(tissue, gene) if g in some]
            table = celcomen_knockout.compare_with_placebo(gene, candidates, 3, effect_of)
            ranks.append(table[table["role"] == "gene"].set_index("group")["rank"])
    ranks = pd.DataFrame(ranks)
    assert len(ranks) >= 40
    for group in ("knocked_out", "neighbours_0", "neighbours_1"):
        lowest = int((ranks[group] == 1).sum())
        low, high = stats.binom.ppf([0.001, 0.999], len(ranks), 1 / 4)
        assert low <= lowest <= high, group


def test_enrichment_after_knock_outs_without_meaning():
    """Sets of genes that go together, and knock-outs of genes that go with none, by forces fitted to such tissue.

    GSEA's own p value, which takes genes for independent, was at most 0.05 in more than a third of these sets.
    """
    settings = {
        "radius_um": 15, "target_sum": 1e6, "min_counts_per_cell": 1, "crop_um": None, "min_cells_per_gene": 10,
        "epochs": 1, "learning_rate": 0.05, "ridge": 0.1, "knockout": {"n_cells": 20},
        "enrichment": {"min_size": 5, "max_size": 500, "n_permutations": 200},
    }  # fmt: skip
    switches, tables = protocols.resolve("corrected"), []
    for seed in (1, 2):
        slide, rng = simulate_field(n_cells=400, n_genes=64, depth=300, seed=seed), np.random.default_rng(seed)
        genes, together = slide.var_names, np.kron(np.eye(4), np.ones(10))
        rate = rng.normal(0.3, 0.3, 64) + rng.normal(size=(400, 4)) @ np.hstack([np.zeros((4, 24)), together])
        slide.X = sparse.csr_matrix(rng.poisson(np.exp(rate)).astype(np.float32))
        tissue = celcomen_glioblastoma.prepare(slide, settings, switches)
        graph = celcomen_glioblastoma.contacts(tissue, settings)
        fit = celcomen_glioblastoma.fit(tissue, graph, settings, switches, 0)
        field = celcomen_knockout.ExactField(tissue, graph, fit.inter, fit.intra, switches)
        changes = {
            gene: celcomen_knockout.knock_out_effect(tissue, graph, field, gene, settings, switches, seed)[1]
            for gene in genes[:24]
        }
        sets = {f"S{k}": list(genes[24 + 10 * k : 34 + 10 * k]) for k in range(4)}
        for gene, own in changes.items():
            alike = [g for g in celcomen_knockout.placebo_genes(tissue, gene) if g in changes][:19]
            everything = sets | {celcomen_knockout.OWN_SIGNATURE.format(gene=gene): list(genes[:9])}
            arguments = [changes[g] for g in alike], everything, gene, settings["enrichment"], seed
            table = celcomen_knockout.enrich({"exact": own, "generation": own}, *arguments)
            tables.append(table[table["term"].isin(sets)])
    table = pd.concat(tables)
    exact = table[table["method"] == "exact"]
    assert len(exact) == 2 * 24 * 4 * 3
    for level in (LEVEL, 0.2, 0.5):
        assert keeps_its_level(exact["p_value"], level)
        assert is_not_idle(exact["p_value"], level)
    # Other genes' generated changes were not made.
    assert table.loc[table["method"] == "generation", ["p_value", "q_value"]].isna().all(axis=None)


def test_over_representation_of_clusters_without_meaning():
    genes = [f"g{i}" for i in range(200)]
    rejected, any_q = 0, []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        sets = {f"S{k}": list(rng.choice(genes, 25, replace=False)) for k in range(10)}
        found = gene_sets.over_representation(rng.choice(genes, 40, replace=False), genes, sets)
        rejected += int((found["p_value"] <= LEVEL).sum())
        any_q.append(found["q_value"].min())
    # Sets that share no gene with the cluster have no row and count as p = 1.
    assert rejected <= stats.binom.ppf(0.999, 1000, LEVEL)
    assert keeps_its_level(any_q)


# --- simulation (Fig. 2c) ---------------------------------------------------------------------------------------


def test_tests_against_noise_where_estimates_know_nothing():
    """Estimates of other tissues: the shipped simulation, each truth compared with what was inferred for another."""
    settings = shipped("simulation")
    made = list(sample_tissues(settings["n_genes"], settings["n_cells"], range(60), protocols.resolve("corrected")))
    of = force_statistics.entries
    p_values = {"wilcoxon": [], "t": [], "mann_whitney": []}
    for shift in range(1, 60, 2):
        rows = []
        for i, one in enumerate(made):
            truth = of(made[(i + shift) % len(made)].truth["inter"])
            noise = of(stats.spearmanr(one.noise).statistic)
            rows.append([force_statistics.spearman(v, truth) for v in (of(one.fitted["inter"]), noise)])
        estimate, noise = np.array(rows).T
        p_values["wilcoxon"].append(stats.wilcoxon(estimate, noise).pvalue)
        p_values["t"].append(stats.ttest_rel(estimate, noise).pvalue)
        p_values["mann_whitney"].append(stats.mannwhitneyu(estimate, noise).pvalue)
    for name, values in p_values.items():
        assert keeps_its_level(values), name


def test_the_p_value_of_a_correlation_over_six_pairs_and_over_all_entries():
    """Each pair once: near its level. Both triangles and the shared diagonal, as published: a third is significant."""
    pairs, entries = [], []
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        a, b = symmetric(rng, 4)
        pairs.append(stats.spearmanr(force_statistics.entries(a), force_statistics.entries(b)).pvalue)
        for matrix in (a, b):
            np.clip(matrix, -1, 1, out=matrix)
            np.fill_diagonal(matrix, 1)
        entries.append(stats.spearmanr(a.ravel(), b.ravel()).pvalue)
    assert 0.04 < np.mean(np.array(pairs) <= LEVEL) < 0.08
    assert np.mean(np.array(entries) <= LEVEL) > 0.25


# --- recovery ---------------------------------------------------------------------------------------------------


def test_intervals_of_forces():
    """On cells drawn from the field itself, the share of pairs of genes whose interval holds the true force."""
    settings = shipped("recovery") | {"tissues": 1, "n_genes": [8], "n_cells": [1500]}
    switches = protocols.of_step(protocols.resolve("corrected"), "inference")
    inter, intra = celcomen_recovery.chain_forces("inter", 0.5)
    covered = []
    for seed in range(20):
        data, graph = celcomen_recovery.simulate_expression(inter, intra, 1500, settings, [seed])
        found = celcomen_recovery.estimate("gaussian", data["field"], graph, settings, switches)
        for forces, truth in (("inter", 2 * inter), ("intra", 2 * intra)):
            error = found["error"][forces]
            covered += list(force_statistics.entries(np.abs(found[forces] - truth) <= 1.96 * error))
    # Fifteen pairs, both kinds, twenty tissues; pairs of a tissue are not independent.
    assert 0.92 < np.mean(covered) < 0.98


# --- Perturb-map (Fig. 4) ---------------------------------------------------------------------------------------


def lesions_without_effect(seed, protocol="corrected", sections="ABC", wild=3, lost=1, n_genes=30, spots=10):
    """A question about lesions of some sections, so many wild-type ones and so many that have lost a gene in each.

    Genes go up and down together, over spots and from lesion to lesion; the lost gene takes part as the others do, and
    where it is lost no other gene changes. As run these are counts, and what is wild type is the last lesion.
    """
    switches = protocols.resolve(protocol)
    of_lost = np.asarray if switches["experimental_scale"] == "matched" else np.expm1
    rng = np.random.default_rng(seed)
    level, loadings = rng.normal(2.5, 0.4, n_genes), 0.5 * rng.normal(size=(3, n_genes))

    def lesion():
        programmes = rng.normal(size=3) + rng.normal(size=(spots, 3))
        return np.maximum(level + programmes @ loadings + 0.4 * rng.normal(size=(spots, n_genes)), 0.05)

    tissues, without, means, as_lost = [], [], [], []
    for section in sections:
        those = [lesion() for _ in range(lost)]
        for cells in those:
            cells[:, -1] = 0
        mean_lost = np.mean([scale_cells(of_lost(c), "l2").mean(axis=0) for c in those], axis=0)
        for _ in range(wild):
            cells = lesion()
            own = Lesion(section, len(tissues) + 1, "KP_1", np.arange(spots))
            tissues.append(Tissue(own, cells, knn_graph(rng.random((spots, 2)), 6)))
            without.append(mean_lost)
            means.append(scale_cells(cells, "l2").mean(axis=0))
            as_lost.append(scale_cells(of_lost(cells), "l2").mean(axis=0))
    shared = switches["wild_type"] == "last_lesion"
    observed = [a - (means[-1] if shared else b) for a, b in zip(without, means, strict=True)]
    genes = pd.Index([f"g{i}" for i in range(n_genes)])
    settings = {"draws": 19, "generation_epochs": 5, "generation_learning_rate": 0.001}
    return Question("g", genes, tissues, observed, as_lost, dict.fromkeys(sections, lost), switches, settings), loadings


def test_controls_of_knock_outs_without_effect():
    """Other genes keep their level. Permuted genes do not, and wild-type lesions not quite: neither has a p value."""
    p_values = {"wild_type_lesion": [], "random_gene": [], "permuted": []}
    for seed in range(40):
        asked, loadings = lesions_without_effect(seed)
        # What a fit finds in such tissue: forces along the programmes.
        intra = 0.03 * loadings.T @ loadings
        forces = SimpleNamespace(inter=intra / 8, intra=intra - 1.2 * np.eye(len(asked.genes)))
        rows = celcomen_perturbmap.answer(asked, forces.inter, forces.intra, seed, tuple(p_values), ("field",))
        medians = pd.DataFrame(rows).groupby(["control", "draw"])["rho"].median()
        for control, own in p_values.items():
            null = medians[control].to_numpy()
            own.append(force_statistics.empirical_p(medians["observed", 0], null))
    for control in celcomen_perturbmap.CALIBRATED:
        assert keeps_its_level(p_values[control]), control
        assert np.mean(np.array(p_values[control]) <= 0.5) > 0.25, control
    assert not keeps_its_level(p_values["permuted"])


@pytest.mark.parametrize("protocol", protocols.PROTOCOLS)
def test_wild_type_lesions_against_generated_knock_outs_without_effect(protocol):
    """One section, as run; as many ways to take lesions for those without the gene as an experiment gets draws.

    Their range is near its level but somewhat narrow (9 of 100 at 0.05), so that it is not given as a p value.
    """
    assert "wild_type_lesion" not in celcomen_perturbmap.CALIBRATED
    p_values = []
    for seed in range(40):
        asked, loadings = lesions_without_effect(seed, protocol, "A", 7, 2, n_genes=12)
        intra = 0.03 * loadings.T @ loadings
        forces = SimpleNamespace(inter=intra / 8, intra=intra - 1.2 * np.eye(len(asked.genes)))
        control = "wild_type_lesion"
        rows = celcomen_perturbmap.answer(asked, forces.inter, forces.intra, seed, (control,), ("generation",))
        medians = pd.DataFrame(rows).fillna({"rho": 0.0}).groupby(["control", "draw"])["rho"].median()
        null = medians[control].to_numpy()
        p_values.append(force_statistics.empirical_p(medians["observed", 0], null))
    assert min(p_values) <= 0.1
    for level in (LEVEL, 0.2, 0.5):
        assert keeps_its_level(p_values, level), level
    assert np.mean(np.array(p_values) <= 0.5) > 0.25
