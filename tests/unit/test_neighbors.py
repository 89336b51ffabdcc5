"""Neighbour graphs against all distances, and slides of several samples."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.neighbors import (
    knn_graph,
    radius_graph,
    sample_graph,
    second_neighbors,
)


def scattered(n, width=100.0, seed=0):
    return np.random.default_rng(seed).random((n, 2)) * width


def distances(coords):
    return np.sqrt(((coords[:, None] - coords[None]) ** 2).sum(axis=2))


@pytest.mark.parametrize("width", [1e-3, 100.0, 1e6])
@pytest.mark.parametrize("k", [1, 6, 49])
def test_nearest_cells(k, width):
    coords = scattered(50, width)
    away = distances(coords) + np.diag(np.full(50, np.inf))
    expected = np.zeros((50, 50))
    for i, nearest in enumerate(np.argsort(away, axis=1)[:, :k]):
        expected[i, nearest] = 1
    found = knn_graph(coords, k)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.toarray(), expected)
    if k == 6:
        assert (expected != expected.T).any()


def test_ties_go_to_the_cell_that_comes_first():
    line = np.column_stack([np.arange(5.0), np.zeros(5)])
    np.testing.assert_array_equal(knn_graph(line, 1).indices, [1, 0, 1, 2, 3])


@pytest.mark.parametrize("build", [lambda c: knn_graph(c, 3), lambda c: radius_graph(c, 15.0)])
def test_second_neighbours_are_two_steps_away_and_not_one(build):
    graph = build(scattered(60))
    one = graph.toarray() > 0
    expected = (one.astype(int) @ one > 0) & ~one & ~np.eye(60, dtype=bool)
    found = second_neighbors(3 * graph)
    np.testing.assert_array_equal(found.toarray(), expected)
    assert found.dtype == np.float32
    assert found.nnz == expected.sum() > 60


def test_cells_within_a_radius():
    coords = scattered(80)
    found = radius_graph(coords, 15.0)
    away = distances(coords)
    np.testing.assert_array_equal(found.toarray(), (away < 15) & (away > 0))
    assert found.dtype == np.float32


def test_the_radius_itself_and_the_same_place_are_no_contact():
    coords = np.array([[0.0, 0.0], [15.0, 0.0], [14.9, 0.0], [0.0, 0.0]])
    expected = np.zeros((4, 4))
    expected[0, 2] = expected[2, 0] = expected[1, 2] = expected[2, 1] = 1
    expected[2, 3] = expected[3, 2] = 1
    np.testing.assert_array_equal(radius_graph(coords, 15.0).toarray(), expected)


def test_samples_are_apart_and_keep_the_order_of_cells():
    sample = np.array(["b", "a"] * 20)
    coords = scattered(40)
    slide = AnnData(
        np.zeros((40, 1), np.float32),
        obs=pd.DataFrame({"sample": sample}, index=[f"cell_{i}" for i in range(40)]),
        obsm={"spatial": coords},
    )
    found = sample_graph(slide, lambda positions: knn_graph(positions, 3)).toarray()
    for name in ("a", "b"):
        own = np.flatnonzero(sample == name)
        np.testing.assert_array_equal(found[np.ix_(own, own)], knn_graph(coords[own], 3).toarray())
    assert not found[np.ix_(sample == "a", sample == "b")].any()
    with pytest.raises(InputError, match="sample 'b': graph: 20 neighbours asked for among 20"):
        sample_graph(slide, lambda positions: knn_graph(positions, 20))


def test_bad_input_is_refused():
    coords = scattered(30)
    for k in (0, 30):
        with pytest.raises(InputError, match=rf"{k} neighbours asked for among 30 cells: give 1 to 29"):
            knn_graph(coords, k)
    with pytest.raises(InputError, match="cell number 4 .* without a finite position"):
        radius_graph(np.where(np.arange(30)[:, None] == 4, np.nan, coords), 5.0)
    for radius in (0.0, np.nan, np.inf):
        with pytest.raises(InputError, match=f"radius_um is {radius}: give a length above 0"):
            radius_graph(coords, radius)
    with pytest.raises(InputError, match="no two of 30 cells lie within 0.01 um"):
        radius_graph(coords, 0.01)
    with pytest.raises(InputError, match="have 1999 others within 15 um on average, .* set unit_um"):
        radius_graph(scattered(2000, 1.0), 15.0)
