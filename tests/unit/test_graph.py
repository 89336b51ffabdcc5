"""The graph against a dense brute-force computation, and neighbourhood features against the dense product."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from scipy import sparse
from sklearn.neighbors import BallTree

from tissue_counterfactuals import graph as graphs
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.graph import gaussian_graph, neighborhood_features, slide_graph


def brute_force(coords, bandwidth_um=100.0, max_neighbors=200, cutoff=0.1, excluded=None):
    """Dense graph, one cell and one pair at a time; ties go to the cell that comes first."""
    n = len(coords)
    excluded = np.zeros(n, bool) if excluded is None else excluded
    dense = np.zeros((n, n))
    for v in np.flatnonzero(~excluded):
        others = [u for u in range(n) if u != v and not excluded[u]]
        d2 = {u: float(((coords[u] - coords[v]) ** 2).sum()) for u in others}
        for u in sorted(others, key=lambda u, d2=d2: (d2[u], u))[:max_neighbors]:
            weight = np.exp(-d2[u] / (2 * bandwidth_um**2))
            if weight > cutoff:
                dense[v, u] = weight
    return dense


def assert_graph(graph, dense):
    assert isinstance(graph, sparse.csr_array)
    assert graph.dtype == np.float32
    for row in range(graph.shape[0]):
        columns = graph.indices[graph.indptr[row] : graph.indptr[row + 1]]
        assert (np.diff(columns) > 0).all()
    np.testing.assert_array_equal(graph.toarray() > 0, dense > 0)
    np.testing.assert_allclose(graph.toarray(), dense, rtol=1e-6)


def scattered(n, width, seed=0):
    return np.random.default_rng(seed).random((n, 2)) * width


@pytest.mark.parametrize("max_neighbors", [1, 3, 17, 60, 1000])
@pytest.mark.parametrize("width", [250.0, 2000.0])
def test_random_positions(width, max_neighbors):
    # At 250 um the number of neighbours binds, at 2,000 um the cutoff.
    coords = scattered(200, width)
    graph = gaussian_graph(coords, max_neighbors=max_neighbors)
    assert_graph(graph, brute_force(coords, max_neighbors=max_neighbors))


def test_both_limits_bind():
    counts = np.diff(gaussian_graph(scattered(300, 600.0), max_neighbors=60).indptr)
    assert counts.max() == 60
    assert counts.min() < 60


def test_uneven_density():
    rng = np.random.default_rng(3)
    clumps = rng.normal(0, 10, (150, 2)) + rng.integers(0, 3, (150, 1)) * 400
    coords = np.concatenate([clumps, rng.random((100, 2)) * 1500, [[1e6, 1e6]]])
    assert_graph(gaussian_graph(coords, max_neighbors=40), brute_force(coords, max_neighbors=40))


@pytest.mark.parametrize("max_neighbors", [1, 2, 4, 5, 8, 30])
def test_ties_go_to_the_first_cell(max_neighbors):
    x, y = np.meshgrid(np.arange(14) * 10.0, np.arange(14) * 10.0)
    coords = np.column_stack([x.ravel(), y.ravel()])
    # The order of the cells, not their place in the tissue, decides.
    coords = coords[np.random.default_rng(1).permutation(len(coords))]
    graph = gaussian_graph(coords, max_neighbors=max_neighbors)
    assert_graph(graph, brute_force(coords, max_neighbors=max_neighbors))


@pytest.mark.parametrize("max_neighbors", [3, 20])
def test_many_cells_at_one_place_beside_others(max_neighbors):
    stack = np.repeat([[150.0, 150.0]], 130, axis=0)
    coords = np.concatenate([scattered(120, 300.0), stack])
    coords = coords[np.random.default_rng(2).permutation(len(coords))]
    graph = gaussian_graph(coords, max_neighbors=max_neighbors)
    assert_graph(graph, brute_force(coords, max_neighbors=max_neighbors))


class Counted(np.ndarray):
    """An array that counts how often it is read."""

    reads = 0

    def __getitem__(self, key):
        Counted.reads += 1
        return np.asarray(self)[key]


def reads_of_positions(n: int) -> int:
    """How often the search reads a position, when half of n cells stand at one place."""
    coords = np.concatenate([scattered(n // 2, 10.0 * np.sqrt(n)), np.zeros((n // 2, 2))])
    order, boxes, depth = graphs._build_tree(coords, 16)
    k, Counted.reads = 5, 0
    graphs._fill_neighbors.py_func(
        0, n, coords[order].view(Counted), order, boxes, depth, np.inf, k,
        -1.0, np.arange(n + 1) * k, np.empty(n * k, np.int64), np.empty(n * k),
    )  # fmt: skip
    return Counted.reads


def test_cells_at_one_place_do_not_make_the_search_quadratic():
    # Twice the cells: twice the work and a little for the depth of the tree; it was four times the work.
    assert reads_of_positions(1200) < 2.4 * reads_of_positions(600)


def test_cells_at_the_same_position():
    coords = np.repeat(scattered(12, 300.0), 15, axis=0)
    graph = gaussian_graph(coords, max_neighbors=20)
    assert_graph(graph, brute_force(coords, max_neighbors=20))
    assert graph.diagonal().sum() == 0
    assert graph[0, 1] == 1


@pytest.mark.parametrize(("bandwidth_um", "cutoff"), [(30.0, 0.1), (100.0, 0.5), (50.0, 0.0)])
def test_bandwidth_and_cutoff(bandwidth_um, cutoff):
    coords = scattered(150, 400.0)
    graph = gaussian_graph(coords, bandwidth_um=bandwidth_um, cutoff=cutoff, max_neighbors=25)
    assert_graph(graph, brute_force(coords, bandwidth_um, 25, cutoff))


def test_weight_equal_to_the_cutoff_is_dropped():
    coords = np.array([[0.0, 0.0], [0.0, 50.0], [0.0, 120.0]])
    weight = np.exp(-(50.0**2) / (2 * 100.0**2))
    assert gaussian_graph(coords, cutoff=weight * (1 - 1e-9)).nnz == 2
    with pytest.raises(InputError, match="no two of 3 cells"):
        gaussian_graph(coords, cutoff=weight * (1 + 1e-9))


def test_directed():
    # The outlier's nearest cell is in the crowd, whose own nearest cells are not the outlier.
    coords = np.concatenate([scattered(30, 20.0), [[60.0, 60.0]]])
    graph = gaussian_graph(coords, max_neighbors=5).toarray()
    assert (graph[30] > 0).sum() == 5
    assert (graph[:, 30] > 0).sum() == 0


def test_excluded_cells_take_no_part_and_no_slot():
    coords = scattered(250, 500.0)
    excluded = np.random.default_rng(2).random(250) < 0.4
    graph = gaussian_graph(coords, max_neighbors=12, excluded=excluded)
    assert_graph(graph, brute_force(coords, max_neighbors=12, excluded=excluded))
    assert graph[excluded].nnz == 0
    assert graph[:, excluded].nnz == 0
    assert (np.diff(graph.indptr)[~excluded] == 12).all()
    without = gaussian_graph(coords[~excluded], max_neighbors=12)
    np.testing.assert_array_equal(graph[~excluded][:, ~excluded].toarray(), without.toarray())


def test_fewer_than_two_cells_left_give_an_empty_graph():
    graph = gaussian_graph(scattered(5, 50.0), excluded=np.array([True, True, True, True, False]))
    assert graph.shape == (5, 5)
    assert graph.nnz == 0


def test_more_neighbors_than_cells():
    coords = scattered(6, 50.0)
    assert gaussian_graph(coords, max_neighbors=200).nnz == 30


def test_same_bytes_whatever_the_threads():
    coords = scattered(6000, 1500.0)
    one, two = (gaussian_graph(coords, max_neighbors=50, n_threads=n) for n in (1, 2))
    for a, b in zip((one.data, one.indices, one.indptr), (two.data, two.indices, two.indptr), strict=True):
        assert a.tobytes() == b.tobytes()


def test_large_random_graph_agrees_with_a_ball_tree():
    coords = scattered(20_000, 1500.0)
    graph = gaussian_graph(coords, max_neighbors=30)
    distance, neighbor = BallTree(coords).query(coords, k=31)
    neighbor = np.sort(neighbor[:, 1:], axis=1)
    np.testing.assert_array_equal(graph.indices.reshape(-1, 30), neighbor)
    expected = np.exp(-(distance[:, 1:] ** 2) / (2 * 100.0**2))
    np.testing.assert_allclose(np.sort(graph.data.reshape(-1, 30)), np.sort(expected), rtol=1e-6)


def slide_of(coords, samples):
    obs = pd.DataFrame({"sample": pd.Categorical(samples)}, index=[f"c{i}" for i in range(len(coords))])
    return AnnData(obs=obs, obsm={"spatial": np.asarray(coords)})


def test_samples_are_never_joined():
    rng = np.random.default_rng(4)
    coords, samples = scattered(240, 400.0), rng.choice(["b", "a", "c"], 240)
    excluded = rng.random(240) < 0.2
    graph = slide_graph(slide_of(coords, samples), excluded=excluded, max_neighbors=9)
    dense = np.zeros((240, 240))
    for sample in "abc":
        members = np.flatnonzero(samples == sample)
        part = brute_force(coords[members], max_neighbors=9, excluded=excluded[members])
        dense[np.ix_(members, members)] = part
    assert_graph(graph, dense)


def test_one_sample_is_the_plain_graph():
    coords = scattered(100, 300.0)
    graph = slide_graph(slide_of(coords, ["s"] * 100), bandwidth_um=60.0, max_neighbors=7, cutoff=0.2)
    plain = gaussian_graph(coords, bandwidth_um=60.0, max_neighbors=7, cutoff=0.2)
    np.testing.assert_array_equal(graph.toarray(), plain.toarray())


def test_real_sections_agree_with_a_ball_tree(real_data):
    slide = read_h5ad(real_data / "merfish_hypothalamus.h5ad")
    graph = slide_graph(slide)
    for sample in slide.obs["sample"].unique():
        members = np.flatnonzero(slide.obs["sample"] == sample)
        coords = slide.obsm["spatial"][members]
        distance, _ = BallTree(coords).query(coords, k=201)
        weight = np.exp(-(distance[:, 1:] ** 2) / (2 * 100.0**2))
        weight[weight <= 0.1] = 0
        own = graph[members]
        assert np.isin(own.indices, members).all()
        np.testing.assert_array_equal(np.diff(own.indptr), (weight > 0).sum(axis=1))
        np.testing.assert_allclose(own.sum(axis=1), weight.sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize(
    ("coords", "message"),
    [
        (np.zeros((5, 3)), r"shape is \(5, 3\)"),
        (np.zeros(5), r"shape is \(5,\)"),
        (np.zeros((1, 2)), "at least 2 cells and there are 1"),
        ([[0.0, 1.0], [2.0, np.nan], [3.0, np.inf]], "cell number 1 .* nan"),
        ([[0.0, 1.0], [1e300, 1.0], [3.0, 2.0]], r"cell number 1 .* is at \[1e\+300, 1.0\]"),
        (scattered(500, 1e6), "no two of 500 cells lie within 214.6 um .* set unit_um"),
        (scattered(500, 3.0), "all 500 cells lie within .* millimetres: set unit_um"),
        (np.zeros((500, 2)), "all 500 cells lie within 0 x 0"),
    ],
)
def test_bad_coordinates(coords, message):
    with pytest.raises(InputError, match=message):
        gaussian_graph(np.asarray(coords))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"max_neighbors": 0}, "graph.max_neighbors is 0"),
        ({"bandwidth_um": 0.0}, "graph.bandwidth_um is 0.0"),
        ({"bandwidth_um": np.nan}, "graph.bandwidth_um is nan"),
        ({"cutoff": 1.0}, "graph.cutoff is 1.0"),
        ({"cutoff": -0.1}, "graph.cutoff is -0.1"),
        ({"excluded": np.zeros(3, bool)}, r"boolean mask of shape \(10,\)"),
        ({"excluded": np.arange(10)}, "excluded: int64"),
    ],
)
def test_bad_settings(setting, message):
    with pytest.raises(InputError, match=message):
        gaussian_graph(scattered(10, 50.0), **setting)


def test_small_dense_crops_are_not_taken_for_millimetres():
    assert gaussian_graph(scattered(60, 70.0), max_neighbors=6).nnz == 360


def test_slide_names_the_sample_of_a_fault():
    coords = np.concatenate([scattered(20, 50.0), scattered(20, 1e5)])
    slide = slide_of(coords, ["near"] * 20 + ["far"] * 20)
    with pytest.raises(InputError, match="sample 'far': coordinates: no two of 20 cells"):
        slide_graph(slide)
    with pytest.raises(InputError, match="sample 'b': coordinates: .* there are 1"):
        slide_graph(slide_of(scattered(21, 50.0), ["a"] * 20 + ["b"]))


def random_features(n_rows, n_cells, n_genes, seed=0):
    rng = np.random.default_rng(seed)
    graph = sparse.random_array((n_rows, n_cells), density=0.1, rng=rng, dtype=np.float32).tocsr()
    expression = sparse.random_array((n_cells, n_genes), density=0.15, rng=rng, dtype=np.float32)
    return graph, expression.tocsr()


@pytest.mark.parametrize("n_rows", [300, 40])
def test_features_equal_the_dense_product(n_rows):
    graph, expression = random_features(n_rows, 300, 50)
    graph = sparse.csr_array(sparse.diags_array((np.arange(n_rows) % 7 > 0).astype(np.float32)) @ graph)
    dense = graph.toarray().astype(np.float64)
    degree = dense.sum(axis=1, keepdims=True)
    expected = np.divide(dense @ expression.toarray(), degree, where=degree > 0, out=np.zeros((n_rows, 50)))
    for form in (
        expression,
        expression.toarray(),
        sparse.csr_matrix(expression),
        expression.tocsc(),
    ):
        features = neighborhood_features(graph, form)
        assert features.dtype == np.float32
        np.testing.assert_allclose(features, expected, rtol=1e-6, atol=1e-9)
    assert (features[::7] == 0).all()


def test_features_have_the_same_bytes_whatever_the_threads():
    graph, expression = random_features(5000, 400, 30)
    one, two = (neighborhood_features(graph, expression, n_threads=n) for n in (1, 2))
    assert one.tobytes() == two.tobytes()


def test_features_of_other_cells_are_refused():
    graph, expression = random_features(30, 40, 5)
    with pytest.raises(InputError, match="graph has 40 columns and the expression 39 rows"):
        neighborhood_features(graph, expression[:39])
