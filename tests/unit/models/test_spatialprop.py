"""SpatialProp, re-implemented: its masking against a graph in which the centre was really emptied."""

import numpy as np
import pytest
import torch
from scipy import sparse

from tissue_counterfactuals.models import spatialprop


@pytest.fixture(scope="module")
def tissue():
    rng = np.random.default_rng(0)
    coords = rng.uniform(0, 300, (60, 2))
    counts = sparse.csr_array(rng.poisson(1.5, (60, 7)).astype(np.float32))
    graph = spatialprop.delaunay_graph(coords, np.repeat(["a", "b"], 30), np.ones(60, bool), None)
    return coords, spatialprop.scale_to_genes(counts), graph


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(1)
    made = spatialprop.SpatialProp(7, n_hidden=5)
    # Running statistics that are not 0 and 1, so that batch normalisation does something.
    for layer in (made.first[1], made.second[1]):
        layer.running_mean.uniform_(-1, 1)
        layer.running_var.uniform_(0.5, 2)
    return made.eval()


def by_brute_force(network, expression, adjacency, centre):
    """Both layers over all cells, the centre's expression set to 0, loops added to the adjacency."""
    x = torch.as_tensor(expression.toarray())
    x[centre] = 0
    loops = torch.as_tensor(adjacency) + torch.eye(len(x))
    hidden = torch.relu(network.first(x + loops @ x))
    return network.head(network.second(hidden + loops @ hidden))[centre].detach().numpy()


def test_masking_the_centre_equals_emptying_it(tissue, network):
    _, expression, graph = tissue
    centres = np.array([3, 40, 59, 0])
    predicted = spatialprop.predict(
        network, expression, graph, spatialprop.Scene.in_place(graph, centres), torch.device("cpu")
    )
    for row, centre in zip(predicted, centres, strict=True):
        expected = by_brute_force(network, expression, graph.toarray(), centre).clip(min=0)
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-5)
    assert (predicted > 0).any()


def test_what_the_centre_expresses_does_not_matter(tissue, network):
    _, expression, graph = tissue
    other = sparse.lil_array(expression)
    other[3] = 100.0
    scene = spatialprop.Scene.in_place(graph, np.array([3]))
    values = [
        spatialprop.predict(network, sparse.csr_array(x), graph, scene, torch.device("cpu"))
        for x in (expression, other)
    ]
    np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-4)
    neighbour = sparse.lil_array(expression)
    neighbour[graph[[3]].indices[0]] = 100.0
    changed = spatialprop.predict(network, sparse.csr_array(neighbour), graph, scene, torch.device("cpu"))
    assert np.abs(changed - values[0]).max() > 0.1


class OnACard(torch.Tensor):
    """A tensor that passes for one on a GPU, and remembers what was done to it."""

    is_cuda = True
    done = set()

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        cls.done.add(function.__name__)
        return super().__torch_function__(function, types, args, kwargs or {})


def test_on_a_gpu_neighbours_are_added_up_in_one_order(tissue, network):
    _, expression, graph = tissue
    scene = spatialprop.Scene.in_place(graph, np.array([3, 40, 59]))
    inputs = spatialprop.masked_inputs(expression, spatialprop.receive(graph, expression), scene)
    expected = network(*inputs)
    on_card = network(inputs[0].as_subclass(OnACard), *inputs[1:])
    assert "linear" in OnACard.done
    assert "index_add_" not in OnACard.done
    np.testing.assert_allclose(on_card.detach().numpy(), expected.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_a_moved_centre_has_as_many_donors_as_it_had_neighbours(tissue, network):
    _, expression, graph = tissue
    centres, donors = np.array([5, 6]), np.arange(20, 60).reshape(2, 20)
    donors[0, 0] = graph[[5]].indices[0]
    scene = spatialprop.Scene.moved(graph, centres, donors)
    for i, centre in enumerate(centres):
        own = scene.indices[scene.indptr[i] : scene.indptr[i + 1]]
        assert own.tolist() == donors[i, : graph[[centre]].nnz].tolist()
    predicted = spatialprop.predict(network, expression, graph, scene, torch.device("cpu"))
    assert scene.touching[0]
    for i, centre in enumerate(centres):
        # The centre listens to its donors; they keep their own neighbours and do not hear the centre.
        x = torch.as_tensor(expression.toarray())
        x[centre] = 0
        loops = torch.as_tensor(graph.toarray()) + torch.eye(60)
        hidden = torch.relu(network.first(x + loops @ x))
        own = donors[i, : graph[[centre]].nnz]
        masked = torch.relu(network.first(x[own].sum(dim=0, keepdim=True)))
        total = hidden[own].sum(dim=0, keepdim=True) + 2 * masked
        expected = network.head(network.second(total))[0].detach().numpy().clip(min=0)
        np.testing.assert_allclose(predicted[i], expected, rtol=1e-4, atol=1e-5)


def test_what_a_moved_centre_expresses_does_not_matter(tissue, network):
    _, expression, graph = tissue
    other = sparse.lil_array(expression)
    other[3] = 100.0
    # It stands among its own neighbours again, and is listed as its own donor.
    near = graph[[3]].indices
    donors = np.r_[near[:2], 3, near[2:], 3][None]
    scene = spatialprop.Scene.moved(graph, np.array([3]), donors)
    assert scene.indices.tolist() == near.tolist()
    values = [
        spatialprop.predict(network, sparse.csr_array(x), graph, scene, torch.device("cpu"))
        for x in (expression, other)
    ]
    np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-4)
    in_place = spatialprop.Scene.in_place(graph, np.array([3]))
    there = spatialprop.predict(network, expression, graph, in_place, torch.device("cpu"))
    np.testing.assert_allclose(values[0], there, rtol=1e-5, atol=1e-6)


def test_a_moved_centre_that_has_no_neighbours_takes_as_many_donors_as_cells_have(tissue):
    coords, _, _ = tissue
    hidden = np.arange(60) == 5
    graph = spatialprop.delaunay_graph(coords, np.repeat(["a", "b"], 60 // 2), ~hidden, None)
    scene = spatialprop.Scene.moved(graph, np.array([5]), np.arange(20, 40)[None])
    assert len(scene.indices) == round(graph.nnz / 59) > 3


def test_the_graph_stays_within_samples_and_length(tissue):
    coords, _, graph = tissue
    sample = np.repeat(["a", "b"], 30)
    a, b = graph.nonzero()
    assert (sample[a] == sample[b]).all()
    assert (graph != graph.T).nnz == 0
    assert graph.diagonal().max() == 0
    cut = spatialprop.delaunay_graph(coords, sample, np.ones(60, bool), 60.0)
    a, b = cut.nonzero()
    assert 0 < cut.nnz < graph.nnz
    assert np.linalg.norm(coords[a] - coords[b], axis=1).max() <= 60
    without = spatialprop.delaunay_graph(coords, sample, np.arange(60) != 7, None)
    assert without[[7]].nnz == 0
    assert without[:, [7]].nnz == 0


@pytest.mark.parametrize("per_type", [1, 2])
def test_training_centres_are_the_drawn_cells_and_their_two_hops(tissue, per_type):
    _, _, graph = tissue
    cell_type, sample = np.repeat(["x"], 60), np.repeat(["a", "b"], 30)
    cells = np.arange(60) != 11
    chosen = spatialprop.training_centres(graph, cell_type, sample, cells, per_type, np.random.default_rng(3))
    drawn_rng = np.random.default_rng(3)
    own = [np.flatnonzero(cells & (sample == s)) for s in "ab"]
    drawn = np.concatenate([drawn_rng.choice(x, per_type, replace=False) for x in own])
    reach = np.eye(60)[drawn].sum(axis=0) @ np.linalg.matrix_power(np.eye(60) + graph.toarray(), 2)
    assert chosen.tolist() == np.flatnonzero((reach > 0) & cells).tolist()


def test_the_loss_weighs_expressed_genes_ten_times():
    observed = torch.tensor([[0.0, 2.0]])
    predicted = torch.tensor([[1.0, 1.0]])
    assert spatialprop.loss(predicted, observed).item() == pytest.approx((1 + 10) / 2 + 1e-3)


def test_training_learns_what_neighbours_say():
    """A gene of each cell is the sum of another gene over its neighbours: the network must find it."""
    rng = np.random.default_rng(5)
    coords = rng.uniform(0, 1000, (600, 2))
    graph = spatialprop.delaunay_graph(coords, np.repeat("a", 600), np.ones(600, bool), None)
    signal = rng.gamma(2, 1, 600).astype(np.float32)
    expression = sparse.csr_array(np.column_stack([signal, graph @ signal]).astype(np.float32))
    torch.manual_seed(0)
    network = spatialprop.SpatialProp(2, n_hidden=16, dropout=0.0)
    cells = np.arange(500)
    history = spatialprop.train(
        network, expression, graph, cells, 40, 64, 5e-3, rng, torch.device("cpu"), lambda line: None
    )
    assert history[-1] < history[0] / 2
    unseen = np.arange(500, 600)
    scene = spatialprop.Scene.in_place(graph, unseen)
    predicted = spatialprop.predict(network, expression, graph, scene, torch.device("cpu"))
    truth = expression[unseen].toarray()[:, 1]
    assert np.corrcoef(predicted[:, 1], truth)[0, 1] > 0.8
