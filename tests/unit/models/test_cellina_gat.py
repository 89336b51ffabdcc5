"""Cellina-GAT: its layers against torch_geometric, its loss against loops, its surroundings against the whole slide."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse
from torch_geometric.nn import GATv2Conv
from torch_geometric.utils import subgraph

from slides import small_slide
from tissue_counterfactuals import protocols
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.graph import slide_graph
from tissue_counterfactuals.methods import cellina_gat as adapter
from tissue_counterfactuals.models import cellina_gat, stored, training
from tissue_counterfactuals.models.attention import GATv2, attend
from tissue_counterfactuals.models.cellina_gat import CellinaGAT, Surroundings, contrastive_loss
from tissue_counterfactuals.models.receptive_field import hops, in_patches, induced
from tissue_counterfactuals.question.folds import Fold, cells_of, split_cells
from tissue_counterfactuals.slide import log_normalize

FOLD = Fold("A", "left", ("right",))
SMALL = {"n_hidden": 8, "n_latent": 3, "epochs": 3, "batch_size": 64, "device": "cpu"}
AS_RUN = {"field": "induced", "edges": "transposed", "inputs": "log_counts", "patch_cells": 1}


@pytest.fixture(scope="module")
def slide():
    return small_slide(n_cells=300, n_genes=12)


def masked_graph(slide, max_neighbors=6):
    held_out = split_cells(slide, FOLD).held_out
    return slide_graph(slide, excluded=held_out, max_neighbors=max_neighbors)


def fitted(slide, seed=0, checkpoint=None, report=lambda line: None, **options):
    """A model, the focal cells and what is around them."""
    graph = masked_graph(slide)
    model = CellinaGAT(**(SMALL | options))
    model.fit(slide, graph, split_cells(slide, FOLD), seed, checkpoint, report)
    return model, cells_of(slide, "A", "left"), model.surroundings(graph, slide.X)


def donors_for(slide, cells, n=5):
    there = (slide.obs["domain"] == "right").to_numpy() & ~split_cells(slide, FOLD).held_out
    pool = np.flatnonzero(there)
    rng = np.random.default_rng(0)
    return np.stack([rng.choice(pool, n, replace=False) for _ in cells])


# --- attention ------------------------------------------------------------------------------------------------------


def like(layer: GATv2, n_in: int) -> GATv2Conv:
    """torch_geometric's layer with the same weights."""
    peer = GATv2Conv((n_in, n_in), len(layer.bias), concat=False, add_self_loops=False)
    peer = peer.to(layer.bias.dtype)
    with torch.no_grad():
        peer.lin_l.weight.copy_(layer.send.weight)
        peer.lin_l.bias.copy_(layer.send.bias)
        peer.lin_r.weight.copy_(layer.receive.weight)
        peer.lin_r.bias.copy_(layer.receive.bias)
        peer.att.copy_(layer.attention.view(1, 1, -1))
        peer.bias.copy_(layer.bias)
    return peer


def random_table(n_receiving, n_sending, k, seed=0):
    rng = np.random.default_rng(seed)
    table = rng.permuted(np.tile(np.arange(n_sending), (n_receiving, 1)), axis=1)[:, :k]
    table = np.where(rng.random(table.shape) < 0.3, -1, table)
    table[1] = -1  # a cell without neighbours
    return torch.from_numpy(table.astype(np.int32))


def edges_of(table):
    receiver, place = torch.nonzero(table >= 0, as_tuple=True)
    return torch.stack([table[receiver, place].long(), receiver])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n_sending", "n_receiving", "k"), [(40, 25, 7), (60, 60, 12), (30, 4, 1)])
def test_a_layer_and_its_gradients_equal_torch_geometrics(dtype, n_sending, n_receiving, k):
    torch.manual_seed(0)
    layer = GATv2(9, 16).to(dtype)
    torch.nn.init.normal_(layer.bias)
    peer, table = like(layer, 9), random_table(n_receiving, n_sending, k)
    ours = torch.randn(n_sending, 9, dtype=dtype, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    out, listened = layer(layer.send(ours), layer.receive(ours[:n_receiving]), table)
    edges = edges_of(table)
    expected, (_, weights) = peer((theirs, theirs[:n_receiving]), edges, return_attention_weights=True)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(listened[table >= 0], weights[:, 0].detach(), rtol=1e-5, atol=1e-5)
    assert (listened[table < 0] == 0).all()

    to = torch.randn(out.shape, dtype=dtype)
    (out * to).sum().backward()
    (expected * to).sum().backward()
    pairs = [(ours, theirs), (layer.bias, peer.bias), (layer.attention, peer.att)]
    for mine, others in ((layer.send, peer.lin_l), (layer.receive, peer.lin_r)):
        pairs += [(mine.weight, others.weight), (mine.bias, others.bias)]
    for mine, other in pairs:
        scale = other.grad.abs().max().clamp(min=1)
        torch.testing.assert_close(mine.grad / scale, other.grad.view_as(mine) / scale, rtol=1e-5, atol=1e-5)


def test_first_weights_are_drawn_as_torch_geometrics():
    torch.manual_seed(0)
    layer, peer = GATv2(300, 200), GATv2Conv(300, 200)
    for ours, theirs in (
        (layer.send.weight, peer.lin_l.weight), (layer.send.bias, peer.lin_l.bias),
        (layer.receive.weight, peer.lin_r.weight), (layer.attention, peer.att),
        (layer.bias, peer.bias),
    ):  # fmt: skip
        assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.15, abs=1e-12)
        assert ours.abs().max().item() == pytest.approx(theirs.abs().max().item(), rel=0.1)


def test_blocks_and_threads_change_nothing(monkeypatch):
    """So many rows that the kernels work in blocks, against the plain form, which has none."""
    torch.manual_seed(0)
    table = random_table(9000, 30, 3)
    inputs = [torch.randn(30, 5), torch.randn(9000, 5), torch.randn(5)]
    results = []
    for threads in ("1", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        mine = [x.clone().requires_grad_() for x in inputs]
        out, weights = attend(*mine, table)
        out.square().sum().backward()
        results.append([out, weights, *(x.grad for x in mine)])
    plain = [x.double().requires_grad_() for x in inputs]
    out, weights = attend(*plain, table)
    out.square().sum().backward()
    expected = [out, weights, *(x.grad for x in plain)]
    for one, other, exact in zip(*results, expected, strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(one.double(), exact, rtol=1e-4, atol=1e-4)


# --- receptive fields -----------------------------------------------------------------------------------------------


def encoder_and_peer(slide, model):
    """States of the encoder's cells by torch_geometric's layers over any edges, and the weights of each layer."""
    encoder = model.network.s_encoder
    widths = (slide.n_vars, *[model.shape["n_hidden"]] * (len(encoder.layers) - 1))
    peers = [like(layer, n) for layer, n in zip(encoder.layers, widths, strict=True)]

    def states(x, edges):
        weights = []
        for i, peer in enumerate(peers):
            x, (_, w) = peer((x, x), edges, return_attention_weights=True)
            weights.append(w[:, 0])
            x = torch.relu(encoder.norm[i](x) if i < len(encoder.norm) else x)
        return x, weights

    return encoder, states


def around_batch(model, slide, around, batch):
    (made,) = model._batches(slide, batch, around)
    return made.features


@torch.no_grad()
@pytest.mark.parametrize("edges", ["nearest", "transposed", "symmetric"])
def test_a_batch_sees_what_it_would_in_the_whole_slide(slide, edges):
    model, _, around = fitted(slide, epochs=1, edges=edges)
    encoder, states = encoder_and_peer(slide, model)
    graph = masked_graph(slide).toarray() > 0
    heard = {"nearest": graph, "transposed": graph.T, "symmetric": graph | graph.T}[edges]
    receiver, sender = (torch.from_numpy(x) for x in np.nonzero(heard))
    x = torch.from_numpy(log_normalize(slide.X).toarray())
    whole, weights = states(x, torch.stack([sender, receiver]))
    batch = np.random.default_rng(0).permutation(np.flatnonzero(heard.any(axis=1)))[:40]
    ours, _ = encoder.states(around_batch(model, slide, around, batch))
    torch.testing.assert_close(ours, whole[torch.from_numpy(batch)], rtol=1e-5, atol=1e-5)

    named, listened = model.attention(slide, batch, around)
    for layer, of_layer in enumerate(weights):
        found = np.zeros(heard.shape)
        rows = np.repeat(batch, (named >= 0).sum(axis=1))
        found[rows, named[named >= 0]] = listened[..., layer][named >= 0]
        expected = np.zeros(heard.shape)
        expected[receiver, sender] = of_layer
        np.testing.assert_allclose(found[batch], expected[batch], atol=1e-5)


@torch.no_grad()
def test_as_run_a_batch_sees_the_small_graph_that_was_cut_out_for_it(slide):
    model, _, around = fitted(slide, epochs=1, **AS_RUN)
    encoder, states = encoder_and_peer(slide, model)
    heard = masked_graph(slide).toarray().T > 0
    batch = np.random.default_rng(0).permutation(np.flatnonzero(heard.any(axis=1)))[:40]
    members = np.unique(np.concatenate([batch, np.flatnonzero(heard[batch].any(axis=0))]))
    assert len(members) < (heard.any(axis=1)).sum()
    receiver, sender = (torch.from_numpy(x) for x in np.nonzero(heard))
    edges, _ = subgraph(torch.from_numpy(members), torch.stack([sender, receiver]), num_nodes=slide.n_obs)
    x = torch.log1p(torch.from_numpy(slide.X.toarray()).float())
    whole, _ = states(x, edges)
    features = around_batch(model, slide, around, batch)
    ours, _ = encoder.states(features)
    assert np.array_equal(np.sort(features.field.cells), members)
    torch.testing.assert_close(ours, whole[torch.from_numpy(features.field.cells)], rtol=1e-5, atol=1e-5)


def test_fields_hold_the_batch_first_and_no_cell_twice(slide):
    graph = masked_graph(slide)
    batch = np.array([50, 3, 120])
    for make, n_layers in ((hops, 3), (hops, 1), (induced, 3)):
        field = make(graph, batch, n_layers)
        assert np.array_equal(field.cells[:3], batch)
        assert len(np.unique(field.cells)) == len(field.cells)
        assert field.n_receiving[-1] == (3 if make is hops else len(field.cells))
        assert len(field.table) == field.n_receiving[0]


def test_patches_are_neighbours_in_a_random_order_of_all_cells():
    rng = np.random.default_rng(0)
    coords = rng.uniform(0, 1000, (600, 2))
    sample = rng.integers(0, 2, 600)
    order = in_patches(rng, coords, sample, 10)
    assert np.array_equal(np.sort(order), np.arange(600))
    steps = np.linalg.norm(np.diff(coords[order], axis=0), axis=1)
    same = np.diff(sample[order]) == 0
    # Ten cells of a sample take a square of some 180 micrometres.
    assert np.median(steps) < 120
    assert same.mean() > 0.8
    again = in_patches(np.random.default_rng(1), coords, sample, 10)
    assert not np.array_equal(order, again)
    alone = in_patches(np.random.default_rng(2), coords, sample, 1)
    assert np.array_equal(np.sort(alone), np.arange(600))
    assert np.median(np.linalg.norm(np.diff(coords[alone], axis=0), axis=1)) > 300


# --- the contrastive loss -------------------------------------------------------------------------------------------


def contrastive_by_hand(means, domain, neighbors, temperature):
    losses = []
    unit = [x / np.sqrt((x**2).sum()) for x in means]
    for i, own in enumerate(neighbors):
        positives = sorted(own & set(range(len(means))))
        others = [j for j in range(len(means)) if domain[j] != domain[i] and j not in own]
        if positives and others:
            likeness = {j: unit[i] @ unit[j] / temperature for j in [*positives, *others]}
            total = np.log(sum(np.exp(x) for x in likeness.values()))
            losses.append(total - np.mean([likeness[j] for j in positives]))
    return np.mean(losses)


@pytest.mark.parametrize("n_cells", [12, 20])
def test_the_contrastive_loss_equals_loops(n_cells):
    """Batches of 12: all cells, or with 8 that are only around them; some neighbours are not here at all."""
    rng = np.random.default_rng(1)
    means, domain = rng.normal(size=(n_cells, 4)), rng.integers(0, 3, n_cells)
    table = np.stack([rng.permutation(26)[:5] for _ in range(12)])
    table = np.where((table == np.arange(12)[:, None]) | (rng.random(table.shape) < 0.2), -1, table)
    table[0] = -1  # no positives
    table[1] = 25  # none that is here
    expected = contrastive_by_hand(means, domain, [set(row) - {-1} for row in table], 0.25)
    value = contrastive_loss(torch.from_numpy(means), torch.from_numpy(domain), torch.from_numpy(table), 0.25)
    assert value.item() == pytest.approx(expected, rel=1e-12)


def test_without_a_cell_that_has_both_the_contrastive_loss_is_zero():
    means = torch.randn(4, 3, requires_grad=True)
    table = torch.tensor([[1], [0], [3], [2]])
    value = contrastive_loss(means, torch.zeros(4), table, 0.25)
    value.backward()
    assert value.item() == 0
    assert (means.grad == 0).all()
    # Of another domain, but neighbours: no negatives.
    of_others = torch.tensor([0, 1, 1])
    assert contrastive_loss(means[:3], of_others, torch.tensor([[1, 2]]), 0.25).item() == 0


def test_training_pulls_neighbours_together_as_its_weight_says(slide):
    options = {"epochs": 15, "learning_rate": 3e-3, "restore": "last", "dropout": 0.0}
    by_weight = {w: fitted(slide, lambda_contrastive=w, **options)[0].history for w in (1.0, 1e-12)}
    last = {w: history["contrastive_loss"].iloc[-1] for w, history in by_weight.items()}
    first = by_weight[1.0]["contrastive_loss"].iloc[0]
    assert last[1.0] < first - 0.2
    assert last[1.0] < last[1e-12] - 0.2
    assert "contrastive_loss" not in fitted(slide, lambda_contrastive=0.0)[0].history


def test_the_contrastive_loss_is_made_comparable_by_the_first_epoch(slide, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 0.0)
    model = fitted(slide, epochs=2, checkpoint=tmp_path / "c.pt")[0]
    scale = stored.load(tmp_path / "c.pt", torch.device("cpu"))["scale"]
    first = model.history.iloc[0]
    names = ("classifier_loss", "adversary_loss", "contrastive_loss")
    assert scale == pytest.approx([first["train_loss"] / first[name] for name in names])


@pytest.mark.parametrize(("n_with", "scale"), [(1, 0.5), (0, 0.0)])
def test_batches_without_another_domain_do_not_say_how_large_the_contrastive_loss_is(
    slide, tmp_path, monkeypatch, n_with, scale
):
    """Averaged over all batches, of which few have a rare domain, it would be small, and its weight in these huge."""
    values = iter([2.0] * n_with + [0.0] * 100)
    monkeypatch.setattr(cellina_gat, "contrastive_loss", lambda means, *_: means.sum() * 0 + next(values))
    told = []
    model = fitted(slide, epochs=1, checkpoint=tmp_path / "c.pt", report=told.append)[0]
    found = stored.load(tmp_path / "c.pt", torch.device("cpu"))["scale"][-1]
    assert found == pytest.approx(scale * model.history["train_loss"].iloc[0])
    assert any("contrastive loss is left out" in line for line in told) == (not n_with)


def test_as_run_cells_around_the_batch_are_targets_that_do_not_move(slide, monkeypatch):
    model, _, around = fitted(slide, epochs=1, **AS_RUN)
    seen = []
    monkeypatch.setattr(cellina_gat, "contrastive_loss", lambda means, *_: seen.append(means))
    batch = np.flatnonzero(split_cells(slide, FOLD).train)[:20]
    (made,) = model._batches(slide, batch, around)
    model.network.train().encode_sampled(made)
    (means,) = seen
    weight = model.network.s_encoder.mean.weight
    assert len(means) > 20
    of_batch = torch.autograd.grad(means[:20].sum(), weight, retain_graph=True)[0]
    of_others = torch.autograd.grad(means[20:].sum() + 0 * means.sum(), weight)[0]
    assert (of_batch != 0).any()
    assert (of_others == 0).all()


# --- the model ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["enough_steps", "auto"])
def test_batches_of_the_small_graph_may_have_a_size_by_name(slide, tmp_path, word):
    model, cells, around = fitted(slide, epochs=1, batch_size=word, **AS_RUN)
    model.save(tmp_path / "model.pt")
    again = CellinaGAT.load(tmp_path / "model.pt", "cpu")
    assert again.settings.batch_size == 128
    assert np.array_equal(*(m.predict(slide, cells, around) for m in (model, again)))


@pytest.mark.parametrize("options", [{}, AS_RUN], ids=["corrected", "as_run"])
def test_the_seed_decides_everything(slide, options):
    first, cells, around = fitted(slide, seed=1, **options)
    same, other = (fitted(slide, seed=s, **options)[0] for s in (1, 2))
    assert np.array_equal(*(m.predict(slide, cells, around) for m in (first, same)))
    assert not np.array_equal(*(m.predict(slide, cells, around) for m in (first, other)))


class Killed(BaseException):
    """Stands for a signal."""


def test_a_killed_training_goes_on_with_the_same_result(slide, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 0.0)
    whole = fitted(slide, epochs=4)[0]

    def kill(line):
        if line.startswith("epoch 2/"):
            raise Killed

    with pytest.raises(Killed):
        fitted(slide, epochs=4, checkpoint=tmp_path / "c.pt", report=kill)
    lines = []
    resumed = fitted(slide, epochs=4, checkpoint=tmp_path / "c.pt", report=lines.append)[0]
    assert lines[0] == "resumed after epoch 2"
    for name, weight in whole.network.state_dict().items():
        assert torch.equal(weight, resumed.network.state_dict()[name]), name


def test_a_saved_model_predicts_the_same(slide, tmp_path):
    model, cells, around = fitted(slide, **AS_RUN)
    model.save(tmp_path / "model.pt")
    loaded = CellinaGAT.load(tmp_path / "model.pt", device="cpu")
    assert loaded.settings == model.settings
    around_again = loaded.surroundings(masked_graph(slide), slide.X)
    assert np.array_equal(model.predict(slide, cells, around), loaded.predict(slide, cells, around_again))
    assert loaded.latents(slide, cells, around)[1].shape == (len(cells), 3)


def test_predictions_do_not_depend_on_who_is_predicted_beside(slide, monkeypatch):
    """But for as run, where a batch's small graph decides."""
    for options, alike in (({}, True), (AS_RUN, False)):
        model, cells, around = fitted(slide, **options)
        together = model.predict(slide, cells, around)
        in_parts = np.concatenate([model.predict(slide, part, around) for part in np.array_split(cells, 4)])
        assert np.allclose(together, in_parts, rtol=1e-5) is alike
    model, cells, around = fitted(slide)
    more = around.expression.toarray() + 3 * (np.arange(12) == 0)
    altered = around.altered(sparse.csr_array(more.astype(np.float32)), cells)

    together = [model.predict(slide, cells, given) for given in (around, altered)]
    monkeypatch.setattr(cellina_gat, "_PREDICTED_TOGETHER", 7)
    monkeypatch.setattr(cellina_gat, "_CHUNK", 5)
    for given, before in zip((around, altered), together, strict=True):
        np.testing.assert_allclose(model.predict(slide, cells, given), before, rtol=1e-5)


def test_moved_cells_hear_their_donors_and_nobody_hears_them():
    graph = sparse.csr_array(np.array([[0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 1], [0, 1, 1, 0]]))
    around = Surroundings(graph, sparse.csr_array((4, 1)))
    focal, donors = np.array([0]), np.array([[3, 1]])
    one_way = around.moved(focal, donors, both_ways=False).graph.toarray() > 0
    both_ways = around.moved(focal, donors, both_ways=True).graph.toarray() > 0
    kept = np.array([[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 1, 1, 0]])
    assert np.array_equal(one_way, kept + np.array([[0, 1, 0, 1]] + 3 * [[0] * 4]) > 0)
    assert np.array_equal(both_ways, one_way | one_way.T & np.array([1, 0, 0, 0], bool))
    # A cell that was drawn for itself is no neighbour.
    alone = around.moved(focal, np.array([[0, 3]]), both_ways=False).graph.toarray()
    assert np.array_equal(np.flatnonzero(alone[0]), [3])


def test_new_neighbours_change_s_and_leave_z(slide):
    model, cells, around = fitted(slide)
    moved = around.moved(cells, donors_for(slide, cells), both_ways=False)
    (z, s), (z_new, s_new) = (model.latents(slide, cells, a) for a in (around, moved))
    assert np.array_equal(z, z_new)
    assert not np.allclose(s, s_new)
    named, weights = model.attention(slide, cells, moved)
    assert [set(row) - {-1} for row in named] == [set(row) for row in donors_for(slide, cells)]
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)


def test_altered_neighbours_are_heard_by_cells_that_stay_themselves():
    """A chain in which nobody hears cell 0: altered or not, it asks as itself."""
    slide = small_slide(n_cells=60, n_genes=12)
    model = fitted(slide)[0]
    chain = sparse.csr_array((np.ones(118), (np.r_[:59, :59], np.r_[1:60, [2, *range(2, 60)]])), (60, 60))
    around = model.surroundings(chain, slide.X)
    changed = around.expression.toarray()
    changed[0] = changed[0][::-1] + 3
    altered = sparse.csr_array(changed)
    cell = np.array([0])
    # What a cell expresses itself says only whom it listens to, which three layers on is little: so look there.
    plain, as_itself, as_altered = (
        Surroundings(around.graph, expression, own)
        for expression, own in ((around.expression, None), (altered, around.expression), (altered, None))
    )  # fmt: skip
    s = [model.latents(slide, cell, given)[1] for given in (plain, as_itself)]
    assert np.array_equal(*s)
    heard = [model.attention(slide, cell, given)[1] for given in (plain, as_itself, as_altered)]
    assert np.array_equal(heard[0], heard[1])
    assert np.abs(heard[0] - heard[2])[..., 0].max() > 0.01
    neighbors = sparse.csr_array(around.expression.toarray()[:, ::-1])
    of_others = replace(around, expression=neighbors, own=around.expression)
    assert not np.allclose(s[0], model.latents(slide, cell, of_others)[1])


def test_inputs_are_logarithms_of_normalised_or_of_raw_counts(slide):
    by_name = {name: CellinaGAT(**SMALL, inputs=name) for name in ("log1p", "log_counts")}
    assert (by_name["log1p"].inputs(slide.X) != log_normalize(slide.X)).nnz == 0
    raw = by_name["log_counts"].inputs(slide.X).toarray()
    np.testing.assert_allclose(raw, np.log1p(slide.X.toarray()), rtol=1e-6)


def test_other_genes_and_unseen_samples_are_refused(slide):
    model, cells, around = fitted(slide)
    with pytest.raises(InputError, match="genes are not those that the model was trained on"):
        model.predict(slide[:, ::-1].copy(), cells, around)


def test_defaults_are_those_of_the_paper():
    """Table A1."""
    model = CellinaGAT(device="cpu")
    assert model.shape == {"n_hidden": 128, "n_layers": 3, "n_latent": 64, "dropout": 0.1}
    settings = model.settings
    assert (settings.batch_size, settings.weight_decay, settings.temperature) == (256, 1e-4, 0.25)
    lambdas = (settings.lambda_classifier, settings.lambda_adversary, settings.lambda_contrastive)
    assert lambdas == (1, 1, 1)
    # As run, whatever the configuration says.
    told = {"epochs": 1, "n_hidden": 8, "batch_size": 8, "max_neighbors": 5}
    as_run = adapter.arguments(told, protocols.resolve("as_run"))
    assert as_run.pop("max_neighbors") == 50
    theirs = CellinaGAT(device="cpu", **as_run)
    assert theirs.shape == model.shape
    same = ("epochs", "batch_size", "weight_decay", "temperature", "learning_rate")
    assert all(getattr(theirs.settings, k) == getattr(settings, k) for k in same)
    network = cellina_gat.CellinaGATNetwork(12, 3, 2, 1, **model.shape)
    shapes = {k: tuple(v.shape) for k, v in network.state_dict().items()}
    assert [shapes[f"s_encoder.layers.{i}.send.weight"] for i in range(3)] == [
        (128, 12), (128, 128), (128, 128),
    ]  # fmt: skip
    assert shapes["s_encoder.norm.1.weight"] == (128,)
    assert "s_encoder.norm.2.weight" not in shapes
    assert shapes["decoder.linear.2.weight"] == shapes["z_encoder.hidden.linear.2.weight"]
