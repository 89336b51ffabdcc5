"""Interventions change what they say, and nothing else."""

import numpy as np
import pytest
from scipy import sparse

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.models.celcomen_interventions import KnockOut, OverExpress, intervene


@pytest.fixture
def cells():
    return np.arange(1.0, 16).reshape(5, 3)


def test_without_interventions_the_tissue_stays(cells):
    same, clamp = intervene(cells)
    np.testing.assert_array_equal(same, cells)
    assert not clamp.any()
    from_sparse, _ = intervene(sparse.csr_array(cells.astype(int)))
    np.testing.assert_array_equal(from_sparse, cells)
    assert from_sparse.dtype == np.float64


def test_knocked_out_and_over_expressed_genes_are_set_and_held(cells):
    before = cells.copy()
    found, clamp = intervene(cells, [KnockOut([1, 3], [0, 2]), OverExpress([4], [1], 50.0)])
    expected = before.copy()
    expected[1, [0, 2]] = expected[3, [0, 2]] = 0
    expected[4, 1] = 50
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(clamp, expected != before)
    np.testing.assert_array_equal(cells, before)


def test_later_interventions_see_what_earlier_ones_did(cells):
    found, clamp = intervene(cells, [OverExpress([2], [1], 9.0), KnockOut(2, 1)])
    assert found[2, 1] == 0
    assert clamp.sum() == 1


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (KnockOut([5], [0]), "KnockOut: the tissue has no cell number 5; it has 5"),
        (KnockOut([-1], [0]), "KnockOut: the tissue has no cell number -1"),
        (KnockOut([0], [3]), "KnockOut: there is no gene number 3; it has 3"),
        (OverExpress([0], [-1], 1.0), "OverExpress: there is no gene number -1"),
        (OverExpress([0], [0], np.nan), "OverExpress: level is nan"),
        (OverExpress([0], [0], -2.0), "OverExpress: level is -2.0"),
    ],
)
def test_faults_are_told(cells, edit, message):
    with pytest.raises(InputError, match=message):
        intervene(cells, [edit])
