"""Interventions in a tissue as data."""

import numpy as np
import pytest
from scipy import sparse

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.models.celcomen_interventions import (
    DeleteCells,
    InsertCells,
    KnockOut,
    OverExpress,
    intervene,
)


@pytest.fixture
def tissue():
    """Five cells in a ring, three genes, all values different."""
    expression = np.arange(1.0, 16).reshape(5, 3)
    ring = np.roll(np.eye(5), 1, axis=1)
    return expression, sparse.csr_array(ring + ring.T)


def test_without_interventions_the_tissue_stays(tissue):
    same = intervene(*tissue)
    np.testing.assert_array_equal(same.expression, tissue[0])
    np.testing.assert_array_equal(same.graph.toarray(), tissue[1].toarray())
    assert not same.clamp.any()
    assert same.origin.tolist() == [0, 1, 2, 3, 4]
    from_sparse = intervene(sparse.csr_array(tissue[0].astype(int)), tissue[1])
    np.testing.assert_array_equal(from_sparse.expression, tissue[0])
    assert from_sparse.expression.dtype == np.float64


def test_knocked_out_and_over_expressed_genes_are_set_and_held(tissue):
    before = tissue[0].copy()
    found = intervene(*tissue, [KnockOut([1, 3], [0, 2]), OverExpress([4], [1], 50.0)])
    expected = before.copy()
    expected[1, [0, 2]] = expected[3, [0, 2]] = 0
    expected[4, 1] = 50
    np.testing.assert_array_equal(found.expression, expected)
    np.testing.assert_array_equal(found.clamp, expected != before)
    np.testing.assert_array_equal(tissue[0], before)


def test_one_cell_and_one_gene_need_no_lists(tissue):
    found = intervene(*tissue, [KnockOut(2, 1)])
    assert found.expression[2, 1] == 0
    assert found.clamp.sum() == 1


def test_deleted_cells_take_their_edges_along(tissue):
    found = intervene(*tissue, [DeleteCells([0, 2])])
    assert found.origin.tolist() == [1, 3, 4]
    np.testing.assert_array_equal(found.expression, tissue[0][[1, 3, 4]])
    # Of the ring only 3-4 is left.
    np.testing.assert_array_equal(found.graph.toarray(), [[0, 0, 0], [0, 0, 1], [0, 1, 0]])


def test_inserted_cells_have_edges_both_ways(tissue):
    new = np.array([[7.0, 8.0, 9.0], [1.0, 0.0, 0.0]])
    found = intervene(*tissue, [InsertCells(new, [[0, 1], [4]])])
    np.testing.assert_array_equal(found.expression[5:], new)
    assert found.origin.tolist() == [0, 1, 2, 3, 4, -1, -1]
    assert found.clamp[5:].all()
    edges = found.graph.toarray()
    np.testing.assert_array_equal(edges, edges.T)
    assert np.flatnonzero(edges[5]).tolist() == [0, 1]
    assert np.flatnonzero(edges[6]).tolist() == [4]
    free = intervene(*tissue, [InsertCells(new, [[0], [1]], hold=False)])
    assert not free.clamp.any()


def test_interventions_name_cells_as_they_stood_at_first(tissue):
    edits = [DeleteCells([1]), InsertCells(np.ones((1, 3)), [[4]]), KnockOut([3], [2])]
    found = intervene(*tissue, edits)
    assert found.origin.tolist() == [0, 2, 3, 4, -1]
    assert found.expression[2, 2] == 0
    assert np.flatnonzero(found.graph.toarray()[4]).tolist() == [3]


def test_an_intervention_of_ones_own_needs_only_apply(tissue):
    class Silence:
        def apply(self, tissue):
            return KnockOut(tissue.origin, range(3)).apply(tissue)

    assert not intervene(*tissue, [Silence()]).expression.any()


def test_faults_are_told(tissue):
    faults = [
        ([KnockOut([5], [0])], "KnockOut: the tissue has no cell number 5"),
        ([KnockOut([-1], [0])], "KnockOut: the tissue has no cell number -1"),
        ([KnockOut([0], [3])], "KnockOut: there is no gene number 3"),
        ([OverExpress([0], [-1], 1.0)], "OverExpress: there is no gene number -1"),
        ([OverExpress([0], [0], np.nan)], "OverExpress: level is nan"),
        ([OverExpress([0], [0], -2.0)], "OverExpress: level is -2.0"),
        ([DeleteCells([2]), KnockOut([2], [0])], "KnockOut: the tissue has no cell number 2"),
        ([DeleteCells(range(5))], "DeleteCells: no cell would be left"),
        ([InsertCells(np.ones((1, 4)), [[0]])], r"expression has shape \(1, 4\)"),
        ([InsertCells(np.ones((2, 3)), [[0]])], "there are 2 cells and 1 lists of neighbors"),
        ([InsertCells(np.ones((1, 3)), [[9]])], "InsertCells: the tissue has no cell number 9"),
    ]
    for edits, message in faults:
        with pytest.raises(InputError, match=message):
            intervene(*tissue, edits)
