"""Modules of genes: a case whose answer is known, values of Hotspot's own package, and level under the null."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from tissue_counterfactuals.experiments.gene_modules import (
    FEWEST_CELLS,
    autocorrelation,
    local_correlation,
    module_of_cells,
    modules,
    neighbor_weights,
    standardize,
)


@pytest.fixture(scope="module")
def known():
    """800 cells in five latent dimensions; genes 0 to 14 follow the first of them, 15 to 29 the second."""
    rng, n, g = np.random.default_rng(0), 800, 60
    latent = rng.normal(size=(n, 5))
    rate = np.full((n, g), np.exp(0.5))
    rate[:, :15] *= np.exp(0.8 * latent[:, :1])
    rate[:, 15:30] *= np.exp(0.8 * latent[:, 1:2])
    return latent, rng.poisson(rate).astype(float)


def analysed(latent, counts):
    weights = neighbor_weights(latent, 30)
    values = standardize(sparse.csc_array(counts), counts.sum(axis=1))
    table = autocorrelation(sparse.csr_array(counts), weights, pd.Index(range(counts.shape[1])))
    return weights, values, table.set_index("gene")


def test_statistics_are_those_of_hotspotsc(known):
    """Recorded from hotspotsc 1.1.3 (danb, 30 unweighted neighbours, the same cells)."""
    weights, values, table = analysed(*known)
    theirs = {0: 30.36935, 7: 33.50694, 20: 28.104244, 45: 14.38783}
    assert table.loc[[*theirs], "z"].tolist() == pytest.approx([*theirs.values()], abs=1e-4)
    assert table.loc[7, "strength"] == pytest.approx(0.352657, abs=1e-6)
    z = local_correlation(values, weights)
    assert z[0, [1, 7, 20]].tolist() == pytest.approx([13.856005, 15.284656, -9.434043], abs=1e-5)
    found = modules(z, 5)
    # Their modules: genes 0 to 14; 17 and 13 of the genes that only depth moves; 15 to 29 in three pieces and the rest
    # alone.
    assert np.bincount(found).tolist() == [10, 17, 15, 7, 6, 5]


def test_many_genes_take_little_more_memory_than_what_is_asked_for():
    counts = sparse.random_array((4000, 2000), density=0.05, rng=np.random.default_rng(0), format="csc")
    depth = np.asarray(counts.sum(axis=1)).ravel()
    tracemalloc.start()
    values = standardize(counts, depth)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Eleven times the size of the result, all genes at a time in float64.
    assert peak < 4 * values.nbytes
    # A gene has the same values alone.
    np.testing.assert_array_equal(values[:, [1999]], standardize(counts[:, [1999]], depth))
    # Correlations do not depend on how genes are dealt with either.
    weights = neighbor_weights(np.random.default_rng(1).normal(size=(4000, 2)), 5)
    z = local_correlation(values[:, :600], weights)
    np.testing.assert_allclose(z[:2, 598:], local_correlation(values[:, [0, 1, 598, 599]], weights)[:2, 2:], atol=1e-3)


def test_two_programmes_are_found_and_each_cell_gets_its_own():
    rng, n = np.random.default_rng(1), 900
    group = np.repeat([0, 1, 2], n // 3)
    latent = np.eye(3)[group] * 6 + rng.normal(size=(n, 3))
    rate = np.full((n, 60), 3.0)
    rate[:, :15] *= np.where(group == 0, 3, 1)[:, None]
    rate[:, 15:30] *= np.where(group == 1, 3, 1)[:, None]
    # The third group has no programme; other genes keep the depth the same.
    rate[:, 30:] *= ((60 * 3 - rate[:, :30].sum(axis=1)) / (30 * 3))[:, None]
    counts = rng.poisson(rate).astype(float)
    weights, values, _ = analysed(latent, counts)
    found = modules(local_correlation(values, weights), 10)
    first, second = found[0], found[15]
    assert first != second
    assert (found[:15] == first).all()
    assert (found[15:30] == second).all()
    cells = module_of_cells(values, weights, found)
    assert (cells[group == 0] == first).mean() > 0.98
    assert (cells[group == 1] == second).mean() > 0.98
    assert not (cells[group == 2] == first).any()


def test_without_structure_p_values_are_uniform_and_there_is_no_module():
    rng = np.random.default_rng(2)
    latent = rng.normal(size=(500, 4))
    depth = rng.lognormal(0, 0.4, 500)
    counts = rng.poisson(depth[:, None] * rng.gamma(2, 1, 300)).astype(float)
    weights, values, table = analysed(latent, counts)
    n_small = (table["p_value"] <= 0.05).sum()
    assert stats.binom.ppf(0.001, 300, 0.05) <= n_small <= stats.binom.ppf(0.999, 300, 0.05)
    found = modules(local_correlation(values, weights), 5)
    assert not found.any()
    assert not module_of_cells(values, weights, found).any()


def test_genes_of_few_cells_are_not_tested_and_hardly_any_is_found_without_structure():
    n, significant = 1000, 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        counts = rng.poisson(np.r_[np.full(400, 0.004), np.full(30, 2.0)], (n, 430)).astype(float)
        counts[:, 0] = np.arange(n) < FEWEST_CELLS
        counts[:, 1] = np.arange(n) < FEWEST_CELLS - 1
        _, _, table = analysed(rng.normal(size=(n, 5)), counts)
        seen = (counts > 0).sum(axis=0)
        assert table.loc[range(430), "n_cells"].tolist() == seen.tolist()
        tested = table[["p_value", "fdr"]].notna().all(axis=1)
        assert sorted(table.index[tested]) == [0, *range(400, 430)]
        assert table.loc[~tested, ["p_value", "fdr"]].isna().all(axis=None)
        significant += (table["fdr"] < 0.05).sum()
    # Of all 430 genes about two in each tissue would be.
    assert significant <= 2


def test_two_modules_are_never_joined_and_genes_of_both_are_left_out():
    z = np.full((9, 9), 3.0)
    z[:4, :4] = z[4:8, 4:8] = 9.0
    np.fill_diagonal(z, 0)
    assert modules(z, 4).tolist() == [1, 1, 1, 1, 2, 2, 2, 2, 0]
    assert modules(z, 9).tolist() == [1] * 9
    assert modules(z, 10).tolist() == [0] * 9
    assert modules(np.zeros((1, 1)), 2).tolist() == [0]
