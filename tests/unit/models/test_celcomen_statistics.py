"""Moments of slides against dense products, interaction weights against sums over edges, and what is refused."""

import numpy as np
import pytest
from scipy import sparse

from celcomen_cells import random_cells, random_graph
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.models import celcomen_statistics
from tissue_counterfactuals.models.celcomen_statistics import (
    interaction_weights,
    scale_cells,
    statistics,
)

N_CELLS, N_GENES = 60, 7


@pytest.fixture
def cells():
    return random_cells(N_CELLS, N_GENES)


@pytest.fixture
def weights():
    return interaction_weights(random_graph(N_CELLS), "gcn")


def assert_same(one, other, rtol=1e-12):
    for field in ("mean", "intra", "inter", "received", "sent", "degree", "n_cells"):
        np.testing.assert_allclose(getattr(one, field), getattr(other, field), rtol, atol=1e-13)


def test_moments_are_the_dense_products(cells, weights):
    found, j = statistics(cells, weights), weights.toarray()
    assert (found.n_cells, found.n_genes) == (N_CELLS, N_GENES)
    np.testing.assert_allclose(found.mean, cells.mean(axis=0))
    np.testing.assert_allclose(found.intra, cells.T @ cells)
    np.testing.assert_allclose(found.inter, cells.T @ j @ cells)
    np.testing.assert_allclose(found.received, cells.T @ j.sum(axis=1))
    np.testing.assert_allclose(found.sent, cells.T @ j.sum(axis=0))
    np.testing.assert_allclose(found.degree, j.sum() / N_CELLS)
    assert found.intra.dtype == found.inter.dtype == np.float64
    # A directed graph gives products that are not symmetric: nothing is averaged away on the quiet.
    assert np.abs(found.inter - found.inter.T).max() > 1e-3


@pytest.mark.parametrize("block", [1, 7, 59, 60, 1000])
def test_blocks_and_sparse_storage_do_not_change_them(cells, weights, block, monkeypatch):
    whole = statistics(cells, weights)
    monkeypatch.setattr(celcomen_statistics, "_BLOCK_ENTRIES", block * N_GENES)
    assert_same(statistics(cells, weights), whole)
    assert_same(statistics(sparse.csr_array(cells), weights), whole)


def test_order_of_cells_does_not_matter_and_order_of_genes_carries_over(cells, weights):
    whole = statistics(cells, weights)
    order = np.random.default_rng(1).permutation(N_CELLS)
    assert_same(statistics(cells[order], weights[order][:, order]), whole)
    genes = np.random.default_rng(2).permutation(N_GENES)
    turned = statistics(cells[:, genes], weights)
    np.testing.assert_allclose(turned.inter, whole.inter[np.ix_(genes, genes)])
    np.testing.assert_allclose(turned.intra, whole.intra[np.ix_(genes, genes)])


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
def test_single_precision_counts_are_summed_in_double(weights, form):
    counts = np.full((N_CELLS, 2), 4099, dtype=np.float32)  # whose squares float32 cannot hold
    found = statistics(form(counts), weights)
    assert (found.intra == N_CELLS * 4099.0**2).all()


def test_stored_zeros_are_no_edges(cells):
    graph = random_graph(N_CELLS)
    zeros = graph.copy()
    zeros.data[:] = 0
    with pytest.raises(InputError, match="the graph has no edge"):
        statistics(cells, zeros)


def test_centred_moments_are_those_of_centred_cells(cells, weights):
    assert_same(statistics(cells, weights).centred(), statistics(cells - cells.mean(axis=0), weights))


def test_dissociated_cells_have_no_neighbours(cells):
    found = statistics(cells)
    assert found.dissociated
    assert not found.inter.any()
    np.testing.assert_allclose(found.intra, cells.T @ cells)


def test_gcn_weights_are_those_of_messages_along_edges():
    adjacency = random_graph(20, 3).tolil()
    adjacency[:, 4] = 0  # nobody lists cell 4
    adjacency = sparse.csr_array(adjacency)
    edges = list(zip(*adjacency.nonzero(), strict=True))  # i lists j; the message goes from i to j
    listed_by = np.zeros(20)
    for _, j in edges:
        listed_by[j] += 1
    expected = np.zeros((20, 20))
    for i, j in edges:
        if listed_by[i]:
            expected[j, i] = 1 / np.sqrt(listed_by[i] * listed_by[j])
    found = interaction_weights(adjacency, "gcn")
    np.testing.assert_allclose(found.toarray(), expected)
    assert listed_by[4] == 0
    assert not found[:, [4]].toarray().any()


def test_other_weights():
    adjacency = random_graph(20, 3)
    dense = adjacency.toarray()
    either = np.maximum(dense, dense.T)
    degree = either.sum(axis=1)
    expected = {
        "adjacency": either,
        "symmetric": either / np.sqrt(np.outer(degree, degree)),
        "row": dense / 3,
    }
    for kind, truth in expected.items():
        found = interaction_weights(adjacency, kind)
        assert isinstance(found, sparse.csr_array)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found.toarray(), truth)


def test_cells_without_neighbours_receive_nothing():
    adjacency = sparse.csr_array(np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=np.float32))
    for kind in ("adjacency", "symmetric", "row", "gcn"):
        found = interaction_weights(adjacency, kind).toarray()
        np.testing.assert_array_equal(found, adjacency.toarray())


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
def test_scales(form):
    cells = np.array([[3.0, 4.0], [0.0, 0.0], [0.0, 0.5]])
    for kind, expected in {
        "none": cells,
        "l2": [[0.6, 0.8], [0, 0], [0, 1]],
        "squared_l2": [[3 / 25, 4 / 25], [0, 0], [0, 2]],
    }.items():
        found = scale_cells(form(cells), kind)
        assert sparse.issparse(found) == (form is sparse.csr_array)
        dense = found.toarray() if sparse.issparse(found) else found
        np.testing.assert_allclose(dense, expected)
        assert dense.dtype == np.float64


def test_scaling_leaves_the_input_alone():
    cells = np.array([[3.0, 4.0]])
    scale_cells(cells, "none")[0, 0] = 7
    scale_cells(cells, "l2")
    np.testing.assert_array_equal(cells, [[3.0, 4.0]])


def spoiled(cells, value):
    cells = cells.copy()
    cells[5, 2] = value
    return cells


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(cells, weights, value, form):
    with pytest.raises(InputError, match=rf"slide 2: .* cell number 5 .* holds {value}"):
        statistics(form(spoiled(cells, value)), weights, name="slide 2")


def test_bad_slides_are_refused(cells, weights):
    with pytest.raises(InputError, match=r"shape \(60, 1\): give cells x genes, at least 2"):
        statistics(cells[:, :1], weights)
    with pytest.raises(InputError, match=r"shape \(60, 60\) for 59 cells"):
        statistics(cells[:59], weights)
    with pytest.raises(InputError, match="no edge: give dissociated cells as"):
        statistics(cells, sparse.csr_array((N_CELLS, N_CELLS)))
    with pytest.raises(InputError, match="negative or not finite"):
        statistics(cells, -weights)
    with pytest.raises(InputError, match=r"is a ndarray: give a sparse matrix"):
        statistics(cells, weights.toarray())
    loop = random_graph(N_CELLS).tolil()
    loop[3, 3] = 1
    with pytest.raises(InputError, match="cell number 3 .* its own neighbour"):
        interaction_weights(sparse.csr_array(loop), "symmetric")
    with pytest.raises(InputError, match="shape \\(60, 59\\) for as many cells"):
        interaction_weights(sparse.csr_array(random_graph(N_CELLS)[:, :59]), "row")
    with pytest.raises(InputError, match="scale is 'l1'; allowed are l2"):
        scale_cells(cells, "l1")
