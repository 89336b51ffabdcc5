"""Quadrature over the spectrum of J, and functions of J, against all eigenvalues and eigenvectors."""

import time

import numpy as np
import pytest
from scipy import sparse

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.models import celcomen_spectrum
from tissue_counterfactuals.models.celcomen_field import GaussianField
from tissue_counterfactuals.models.celcomen_gaussian import fit_gaussian
from tissue_counterfactuals.models.celcomen_spectrum import (
    apply_function,
    bounds,
    pooled,
    spectrum,
    symmetric_part,
)
from tissue_counterfactuals.models.celcomen_statistics import interaction_weights
from tissue_counterfactuals.neighbors import knn_graph
from tissue_counterfactuals.simulate.field import draw_forces


def tissue(n_cells, kind="symmetric", seed=0):
    place = np.random.default_rng(seed).random((n_cells, 2))
    return symmetric_part(interaction_weights(knn_graph(place, 6), kind))


def clique(size, weight=1.0):
    return sparse.csr_array(weight * (np.ones((size, size)) - np.eye(size)) / (size - 1))


def star(leaves):
    graph = np.zeros((leaves + 1, leaves + 1))
    graph[0, 1:] = graph[1:, 0] = 1
    return sparse.csr_array(graph)


def side_by_side(*parts, seed=0):
    """Parts that do not touch, their cells in mixed order."""
    graph = sparse.csr_array(sparse.block_diag(parts, format="csr"))
    order = np.random.default_rng(seed).permutation(graph.shape[0])
    return sparse.csr_array(graph[order][:, order])


def hung_on(large, part):
    """A part whose first cell touches the first cell of a large graph."""
    both = sparse.lil_array(sparse.block_diag([large, part]))
    both[0, large.shape[0]] = both[large.shape[0], 0] = 0.1
    return sparse.csr_array(both)


ISLANDS = {
    "pairs": lambda n, seed: side_by_side(*[clique(2)] * (n // 2), seed=seed),
    "triangles": lambda n, seed: side_by_side(*[clique(3)] * (n // 3), seed=seed),
    "cliques of ten": lambda n, seed: side_by_side(*[clique(10)] * (n // 10), seed=seed),
    "uneven pairs": lambda n, seed: side_by_side(
        *[clique(2, w) for w in np.random.default_rng(seed).random(n // 2)], seed=seed
    ),
    "pairs, triangles and singles": lambda n, seed: side_by_side(
        *[clique(2)] * (n // 6),
        *[clique(3)] * (n // 6),
        sparse.csr_array((n // 6, n // 6)),
        seed=seed,
    ),
    "tissue and pairs": lambda n, seed: side_by_side(tissue(n // 2, seed=seed), *[clique(2)] * (n // 4), seed=seed),
    "tissues and singles": lambda n, seed: side_by_side(
        tissue(n // 2, seed=seed),
        *[tissue(n // 6, seed=seed)] * 2,
        sparse.csr_array((n // 6, n // 6)),
    ),
}


@pytest.fixture
def few_at_once(monkeypatch):
    """Parts of more than 100 cells count as large, so that tests can afford all eigenvalues of what is probed."""
    monkeypatch.setattr(celcomen_spectrum, "_EXACT_UP_TO", 100)


@pytest.fixture(scope="module")
def large():
    """A graph that is large enough to be probed, small enough for all its eigenvalues."""
    graph = tissue(1000)
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
        assert found.weights @ function(found.nodes) == pytest.approx(function(values).mean(), rel=1e-2)


@pytest.fixture
def two_probes(monkeypatch):
    monkeypatch.setattr(celcomen_spectrum, "_MOST_PROBES", 2)


def test_low_moments_are_exact_whatever_the_seed(large, two_probes):
    graph, values, _ = large
    for seed in (0, 1):
        found = spectrum(graph, seed=seed)
        for power in range(1, 5):
            # The two ends, added with 0.01 cells each, are all that is not exact.
            expected = (values**power).mean()
            assert found.weights @ found.nodes**power == pytest.approx(expected, abs=3e-5)


def test_probes_are_seeded(large, two_probes):
    graph = large[0]
    one, again, other = (spectrum(graph, seed=seed) for seed in (3, 3, 4))
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


@pytest.mark.parametrize("name", ISLANDS)
def test_parts_that_do_not_touch_keep_their_eigenvalues(name, few_at_once):
    graph = ISLANDS[name](300, 1)
    values = np.linalg.eigvalsh(graph.toarray())
    found = spectrum(graph)
    assert found.n_cells == len(values)
    assert found.weights.sum() == pytest.approx(1)
    # Of a large part only a sample is seen; without one everything is exact but the ends' hundredths of a cell.
    close = 5e-3 if "tissue" in name else 2e-4
    for power in range(1, 9):
        assert found.weights @ found.nodes**power == pytest.approx((values**power).mean(), abs=close)
    for strength in (-0.45, 0.3, 0.49):
        log_det = np.log(1 - 2 * strength * values).mean()
        assert found.weights @ np.log(1 - 2 * strength * found.nodes) == pytest.approx(log_det, abs=close)
    lowest, highest = bounds(graph)
    assert lowest <= values[0] < lowest + 0.02
    assert highest - 0.02 < values[-1] <= highest
    assert found.nodes[[0, -1]] == pytest.approx([lowest, highest], abs=1e-9)


def test_bounds_hold_whatever_few_cells_stand_apart():
    """Forty tissues with a pair of cells on its own, whose eigenvalue -1 is far below the rest."""
    for seed in range(40):
        lowest, highest = bounds(side_by_side(tissue(810, seed=seed), clique(2), seed=seed))
        assert -1.001 < lowest <= -1
        assert 1 <= highest < 1.01


@pytest.mark.parametrize("kind", ["adjacency", "symmetric", "gcn"])
def test_bounds_hold_where_few_cells_of_a_large_part_own_the_ends(kind, few_at_once):
    """A star or a clique that hangs on a tissue by one edge: eigenvectors that live on few of its cells."""
    for seed in range(10):
        for part, alone in ((star(60), 60**0.5), (24 * clique(25), 24)):
            graph = hung_on(tissue(160, kind, seed), part)
            values = np.linalg.eigvalsh(graph.toarray())
            lowest, highest = bounds(graph)
            assert lowest <= values[0]
            assert values[-1] <= highest
            # Between the ends lies the width of the spectrum, and a hundredth of it is lost at each.
            slack = 0.02 * (highest - lowest)
            assert lowest > values[0] - slack
            assert highest < max(values[-1], alone) + slack


@pytest.mark.parametrize("name", ISLANDS)
def test_no_precision_is_accepted_that_is_not_positive_definite(name, few_at_once):
    graph = ISLANDS[name](300, 2)
    values = np.linalg.eigvalsh(graph.toarray())
    for end in (values[0], values[-1]):
        for beyond in (1 + 1e-9, 1.001, 1.2):
            with pytest.raises(InputError, match="no finite variance"):
                GaussianField(graph, np.diag([0.5 * beyond / end, 0]), np.zeros((2, 2)))
        GaussianField(graph, np.diag([0.5 * 0.96 / end, 0]), np.zeros((2, 2)))


@pytest.mark.parametrize("name", ["pairs, triangles and singles", "cliques of ten"])
def test_forces_on_parts_that_do_not_touch_are_right_within_their_errors(name):
    inter, intra, _ = draw_forces(3, 0, inter_strength=0.7, intra_strength=0.6)
    upper, z = np.triu_indices(3), []
    for seed in range(16):
        graph = ISLANDS[name](900, seed)
        cells = GaussianField(graph, inter, intra).sample(seed)
        fit = fit_gaussian([(cells, graph)], centre="none")
        z.append(
            [
                ((found - truth) / error)[upper]
                for found, truth, error in (
                    (fit.inter, inter, fit.inter_error),
                    (fit.intra, intra, fit.intra_error),
                )
            ]
        )
    # Twelve forces: means over 16 draws within 3.5 standard errors, squares of z near 1.
    assert np.abs(np.mean(z, axis=0)).max() < 3.5 / 4
    assert 0.75 < np.mean(np.square(z)) < 1.3


@pytest.mark.parametrize("steps", [3, 6, 12])
def test_bounds_hold_with_too_few_lanczos_steps(few_at_once, monkeypatch, steps):
    """Ritz values then fall short of the ends; what is proven is that the bounds do not."""
    monkeypatch.setattr(celcomen_spectrum, "_BOUND_STEPS", steps)
    for seed in range(10):
        graph = hung_on(tissue(200, "adjacency", seed), star(12))
        values = np.linalg.eigvalsh(graph.toarray())
        lowest, highest = bounds(graph)
        assert lowest <= values[0]
        assert values[-1] <= highest


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


def test_pooling_loses_nothing_at_the_ends():
    slides = [ISLANDS["uneven pairs"](800, seed) for seed in (0, 1)]
    together = pooled([spectrum(slide) for slide in [*slides, ISLANDS["pairs"](800, 0)]])
    weights = np.concatenate([np.sort(slide.data)[::2] for slide in slides] + [np.ones(400)])
    assert len(together.nodes) < 70
    for power in (2, 4, 6):
        assert together.weights @ together.nodes**power == pytest.approx((weights**power).mean(), abs=5e-5)


def test_many_small_parts_take_no_longer_than_they_should():
    pairs = sparse.kron(sparse.eye_array(100_000), np.array([[0, 1.0], [1, 0]]), format="csr")
    pairs.data[:] = np.repeat(np.random.default_rng(0).random(100_000), 2)
    begun = time.process_time()
    found = spectrum(sparse.csr_array(pairs))
    assert time.process_time() - begun < 5
    assert found.weights @ found.nodes**2 == pytest.approx((pairs.data**2).mean(), rel=1e-6)


def test_functions_of_the_graph_agree_with_eigenvectors(large):
    graph, values, vectors = large
    strength = np.array([-0.45, -0.1, 0.0, 0.3, 0.499])
    block = np.random.default_rng(0).normal(size=(len(values), len(strength)))
    for power in (-0.5, -1.0):
        found = apply_function(graph, lambda j, p=power: (1 - 2 * np.multiply.outer(j, strength)) ** p, block)
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
