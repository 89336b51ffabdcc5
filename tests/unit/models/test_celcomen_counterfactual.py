"""Interventions in a generated tissue, and the twin without them."""

import numpy as np
import pytest
from scipy import sparse

from tissue_counterfactuals import protocols
from tissue_counterfactuals.models.celcomen_counterfactual import counterfactual
from tissue_counterfactuals.models.celcomen_interventions import (
    DeleteCells,
    InsertCells,
    KnockOut,
    OverExpress,
)

G = 7


def symmetric(rng):
    matrix = rng.normal(size=(G, G))
    return (matrix + matrix.T) / 2


@pytest.fixture(scope="module")
def line():
    """60 cells in a row, each beside the next, and forces weak enough for an effect to die out."""
    rng = np.random.default_rng(2)
    ones = np.ones(59)
    graph = sparse.csr_array(sparse.diags_array([ones, ones], offsets=[-1, 1]))
    return rng.random((60, G)) + 0.2, graph, np.eye(G) + 0.1 * symmetric(rng), 4 * np.eye(G)


@pytest.mark.parametrize("protocol", protocols.PROTOCOLS)
def test_without_intervention_there_is_no_effect(line, protocol):
    switches = {"knockout_effect": "against_twin"}
    result = counterfactual(*line, [], epochs=10, protocol=protocol, switches=switches)
    assert (result.effect == 0).all()
    drift = counterfactual(
        *line, [], epochs=10, protocol=protocol, switches={"knockout_effect": "against_start"}
    )
    assert np.abs(drift.effect).max() > 1e-6


def test_without_forces_between_cells_a_knockout_stays_in_its_cell(line):
    cells, graph, inter, intra = line
    intra = intra + symmetric(np.random.default_rng(9))
    alone = counterfactual(cells, graph, 0 * inter, intra, [KnockOut([30], [2])])
    others = np.arange(60) != 30
    assert (alone.effect[others] == 0).all()
    assert np.abs(alone.effect[30]).max() > 0.1
    assert alone.edited.expression[30, 2] == 0


def test_with_forces_between_cells_a_knockout_fades_with_distance(line):
    result = counterfactual(*line, [KnockOut([30], [2, 3])], epochs=200, dtype="float64")
    size = np.linalg.norm(result.effect, axis=1)
    assert size[30] > size[31] > size[33] > size[40] > 0
    assert size[55] < 0.05 * size[31]


def test_effects_are_read_against_the_twin_or_against_the_start(line):
    knockout = [KnockOut([30], [2])]
    twin, start = (
        counterfactual(*line, knockout, switches={"knockout_effect": value})
        for value in ("against_twin", "against_start")
    )
    np.testing.assert_array_equal(twin.edited.expression, start.edited.expression)
    np.testing.assert_array_equal(twin.effect, twin.edited.expression - twin.twin.expression)
    first = start.edited.history[0]["expression"]
    np.testing.assert_array_equal(start.effect, start.edited.expression - first)
    # The start already lacks the gene: its own knock-out is no part of the effect.
    assert start.effect[30, 2] == 0
    assert twin.effect[30, 2] < -0.1


def test_cells_inserted_and_deleted_change_their_surroundings(line):
    cells, graph, inter, intra = line
    stranger = np.eye(G)[:1] * 5
    edits = [DeleteCells([10]), InsertCells(stranger, [[40, 41]]), OverExpress([20], [1], 9.0)]
    result = counterfactual(cells, graph, inter, intra, edits, epochs=5)
    assert 10 not in result.cells
    assert len(result.cells) == 59
    assert result.effect.shape == (59, G)
    np.testing.assert_array_equal(result.edited.expression[-1], np.eye(G)[0])
    size = dict(zip(result.cells, np.linalg.norm(result.effect, axis=1), strict=True))
    assert min(size[9], size[11], size[40], size[41]) > 1e-3
    # Five steps reach five cells far.
    assert max(size[0], size[50]) == 0
    held = (cells[20].copy(), 9.0)
    held[0][1] = 9.0
    place = int(np.flatnonzero(result.origin == 20)[0])
    assert result.edited.expression[place, 1] == 9.0 / np.linalg.norm(held[0])


def test_one_twin_can_serve_many_interventions(line):
    first = counterfactual(*line, [KnockOut([30], [2])])
    second = counterfactual(*line, [KnockOut([12], [0])], twin=first.twin)
    alone = counterfactual(*line, [KnockOut([12], [0])])
    np.testing.assert_array_equal(second.effect, alone.effect)
