"""Our generation under `as_run` against the published package `celcomen` 0.0.1: collapsed cells, losses, tissue.

The package generates in float32 whatever it is given. Bound: 1e-4 relative to the largest entry.
"""

import numpy as np
import pytest

from tissue_counterfactuals.models.celcomen import generate
from tissue_counterfactuals.models.celcomen_generation import ANGLE_LEARNING_RATE
from tissue_counterfactuals.models.celcomen_statistics import scale_cells
from tissue_counterfactuals.neighbors import knn_graph, radius_graph

N_CELLS, N_GENES, EPOCHS = 150, 24, 21
TOLERANCE = 1e-4
# Share of the counts that are kept: with zeros in it, cells collapse.
KINDS = {"dense": 1.0, "sparse": 0.4}


@pytest.fixture(scope="module")
def tissues():
    """For each kind cells of norm 1 (float32) and a graph; and forces as the projection leaves them."""
    rng = np.random.default_rng(3)
    place = rng.random((N_CELLS, 2)) * 150
    graphs = {"dense": knn_graph(place, 6), "sparse": radius_graph(place, 15.0)}
    found = {}
    for kind, kept in KINDS.items():
        counts = rng.poisson(3.0, (N_CELLS, N_GENES)) * (rng.random((N_CELLS, N_GENES)) < kept)
        counts[:, :2] += 1
        counts += kind == "dense"
        found[kind] = scale_cells(np.log1p(counts), "l2").astype(np.float32), graphs[kind]
    forces = rng.random((2, N_GENES, N_GENES)).astype(np.float32)
    forces = (forces + forces.transpose(0, 2, 1)) / 2
    forces[:, range(N_GENES), range(N_GENES)] = 1
    return found, forces


@pytest.fixture(scope="module")
def published(run_celcomen, tissues):
    cells_of, (inter, intra) = tissues
    tasks = []
    for cells, graph in cells_of.values():
        arrays = {"inter": inter, "intra": intra, "expression_0": cells}
        arrays["edges_0"] = np.array(graph.nonzero())
        arrays |= {"epochs": EPOCHS, "learning_rate": ANGLE_LEARNING_RATE}
        tasks.append(("generate", arrays))
    return dict(zip(cells_of, run_celcomen(tasks), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_losses_collapsed_cells_and_the_generated_tissue(tissues, published, kind):
    cells_of, (inter, intra) = tissues
    cells, graph = cells_of[kind]
    theirs = published[kind]
    ours = generate(cells, graph, inter, intra, epochs=EPOCHS, protocol="as_run", return_history=True)
    collapsed = ~theirs["expression"].any(axis=1)
    assert collapsed.any() == (kind == "sparse")
    np.testing.assert_array_equal(~ours.expression.any(axis=1), collapsed)
    # Far from where it started: agreement means something.
    assert np.abs(theirs["expression"] - cells)[~collapsed].max() > 0.05
    limit = TOLERANCE * np.abs(theirs["expression"]).max()
    np.testing.assert_allclose(ours.expression, theirs["expression"], rtol=0, atol=limit)
    losses = [epoch["loss"] for epoch in ours.history]
    np.testing.assert_allclose(losses, theirs["losses"], rtol=TOLERANCE)
