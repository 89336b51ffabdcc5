"""Quadrature over the spectrum of J, and functions of J, against all eigenvalues and eigenvectors."""

import numpy as np
import pytest
from scipy import sparse

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.models.celcomen_spectrum import (
    apply_function,
    bounds,
    pooled,
    spectrum,
    symmetric_part,
)
from tissue_counterfactuals.models.celcomen_statistics import interaction_weights
from tissue_counterfactuals.neighbors import knn_graph


def tissue(n_cells, kind="symmetric", seed=0):
    place = np.random.default_rng(seed).random((n_cells, 2))
    return symmetric_part(interaction_weights(knn_graph(place, 6), kind))


@pytest.fixture(scope="module")
def large():
    """A graph that is large enough to be probed, small enough for all its eigenvalues."""
    graph = tissue(1500)
    return graph, *np.linalg.eigh(graph.toarray())


def test_a_small_graph_gives_all_its_eigenvalues():
    graph = tissue(300)
    found = spectrum(graph)
    np.testing.assert_allclose(found.nodes, np.linalg.eigvalsh(graph.toarray()), atol=1e-12)
    assert found.weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("strength", [-0.4, 0.1, 0.3, 0.45])
def test_few_nodes_average_log_determinants_and_inverses_of_a_large_graph(large, strength):
    graph, values, _ = large
    found = spectrum(graph)
    assert len(found.nodes) < 70
    for function in (lambda j: np.log(1 - 2 * strength * j), lambda j: j / (1 - 2 * strength * j)):
        assert found.weights @ function(found.nodes) == pytest.approx(
            function(values).mean(), rel=5e-3
        )


def test_low_moments_are_exact_whatever_the_seed(large):
    graph, values, _ = large
    for seed in (0, 1):
        found = spectrum(graph, seed=seed, n_probes=2)
        for power in range(1, 5):
            # The two ends, added with 0.01 cells each, are all that is not exact.
            expected = (values**power).mean()
            assert found.weights @ found.nodes**power == pytest.approx(expected, abs=3e-5)


def test_probes_are_seeded(large):
    graph = large[0]
    one, again, other = (spectrum(graph, seed=seed, n_probes=2) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.nodes, again.nodes)
    np.testing.assert_array_equal(one.weights, again.weights)
    assert not np.array_equal(one.weights, other.weights)


def test_bounds_hold_all_eigenvalues_and_little_else(large):
    graph, values, _ = large
    lowest, highest = bounds(graph)
    assert values[0] - 0.02 < lowest <= values[0]
    assert values[-1] <= highest < values[-1] + 0.02
    found = spectrum(graph)
    assert (found.nodes[0], found.nodes[-1]) == (lowest, highest)


def test_bounds_see_an_eigenvalue_of_very_few_cells():
    # Three pairs of cells on their own have the eigenvalue -1, far below the rest.
    pair = sparse.csr_array(np.array([[0.0, 1.0], [1.0, 0.0]]))
    graph = symmetric_part(sparse.block_diag([tissue(2000), *[pair] * 3], format="csr"))
    lowest, highest = bounds(graph)
    assert lowest == pytest.approx(-1, abs=0.01)
    assert lowest <= -1 + 1e-9
    assert highest >= 1 - 1e-9


def test_dissociated_cells_stand_at_zero():
    found = spectrum(sparse.csr_array((5000, 5000)))
    np.testing.assert_array_equal(found.nodes, [0])
    np.testing.assert_array_equal(found.weights, [1])


def test_pooling_is_the_spectrum_of_slides_side_by_side():
    slides = [tissue(500, seed=0), tissue(700, seed=1)]
    together = pooled([spectrum(slide) for slide in slides])
    values = np.concatenate([np.linalg.eigvalsh(slide.toarray()) for slide in slides])
    assert together.n_cells == 1200
    assert together.weights @ np.log(1 - 0.8 * together.nodes) == pytest.approx(
        np.log(1 - 0.8 * values).mean(), rel=1e-3
    )
    assert together.nodes[0] == pytest.approx(values.min())
    assert together.nodes[-1] == pytest.approx(values.max())


def test_functions_of_the_graph_agree_with_eigenvectors(large):
    graph, values, vectors = large
    strength = np.array([-0.45, -0.1, 0.0, 0.3, 0.499])
    block = np.random.default_rng(0).normal(size=(len(values), len(strength)))
    for power in (-0.5, -1.0):
        found = apply_function(
            graph, lambda j, p=power: (1 - 2 * np.multiply.outer(j, strength)) ** p, block
        )
        gain = (1 - 2 * np.outer(values, strength)) ** power
        expected = vectors @ (gain * (vectors.T @ block))
        np.testing.assert_allclose(found, expected, atol=1e-9 * np.abs(expected).max())


def test_a_directed_graph_counts_with_its_symmetric_part():
    place = np.random.default_rng(0).random((50, 2))
    weights = interaction_weights(knn_graph(place, 6), "gcn")
    assert abs(weights - weights.T).max() > 0.1
    expected = (weights.toarray() + weights.toarray().T) / 2
    np.testing.assert_allclose(symmetric_part(weights).toarray(), expected)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (sparse.csr_array(np.ones((2, 3))), r"shape is \(2, 3\); give a square"),
        (sparse.csr_array(np.diag([0.0, 1.0])), "cell 1 is a neighbour of its own"),
        (sparse.csr_array(np.array([[0, np.nan], [0, 0]])), "weights that are not finite"),
    ],
)
def test_bad_graphs_are_refused(graph, message):
    with pytest.raises(InputError, match=message):
        symmetric_part(graph)
