"""Interventions in a generated tissue, and the twin without them."""

import numpy as np
import pytest
from scipy import sparse

from celcomen_oracles import dense_conditional
from tissue_counterfactuals import protocols
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.models import celcomen_generation
from tissue_counterfactuals.models.celcomen import fit_interactions, generate
from tissue_counterfactuals.models.celcomen_counterfactual import counterfactual
from tissue_counterfactuals.models.celcomen_field import GaussianField
from tissue_counterfactuals.models.celcomen_interventions import (
    KnockOut,
    OverExpress,
)
from tissue_counterfactuals.models.celcomen_statistics import interaction_weights, scale_cells
from tissue_counterfactuals.neighbors import knn_graph
from tissue_counterfactuals.simulate.field import simulate_field

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
    drift = counterfactual(*line, [], epochs=10, protocol=protocol, switches={"knockout_effect": "against_start"})
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


def test_over_expression_is_held_and_reaches_as_many_cells_as_steps(line):
    cells, graph, inter, intra = line
    result = counterfactual(cells, graph, inter, intra, [OverExpress([20], [1], 9.0)], epochs=5)
    assert result.effect.shape == (60, G)
    size = np.linalg.norm(result.effect, axis=1)
    assert min(size[19], size[21]) > 1e-3
    # Five steps reach five cells far.
    assert max(size[0], size[50]) == 0
    held = cells[20].copy()
    held[1] = 9.0
    assert result.edited.expression[20, 1] == 9.0 / np.linalg.norm(held)


def test_a_twin_can_serve_every_level_of_the_same_entries(line):
    first = counterfactual(*line, [KnockOut([30], [2])])
    second = counterfactual(*line, [OverExpress([30], [2], 2.0)], twin=first.twin)
    alone = counterfactual(*line, [OverExpress([30], [2], 2.0)])
    np.testing.assert_array_equal(second.effect, alone.effect)


def test_the_twin_holds_what_the_intervention_holds_as_it_was_observed(line):
    result = counterfactual(*line, [KnockOut([30, 31], [2])])
    observed = scale_cells(line[0], "l2")
    np.testing.assert_array_equal(result.twin.expression[[30, 31], 2], observed[[30, 31], 2])
    np.testing.assert_allclose(result.effect[[30, 31], 2], -observed[[30, 31], 2])
    as_it_is = counterfactual(*line, [OverExpress([30], [2], line[0][30, 2])])
    assert (as_it_is.effect == 0).all()


@pytest.fixture(scope="module")
def tumour():
    """Cells of norm 1 from simulated counts, about 55 genes, with forces fitted to them."""
    slide = simulate_field(n_cells=200, n_genes=60, seed=3)
    counts = slide.X.toarray()
    log = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    cells = scale_cells(log[:, (counts > 0).sum(axis=0) >= 10], "l2")
    graph = knn_graph(slide.obsm["spatial"], 6)
    return cells, graph, fit_interactions([(cells, graph)], ridge=0.3, errors=False)


def own_log_density(cells, graph, fit, mean):
    """Per cell, of the field that was fitted, up to its constant; written out, no code of generation in it."""
    weights = interaction_weights(graph, "symmetric")
    about = cells - mean
    energy = ((about @ fit.intra) * about).sum() + ((weights @ about @ fit.inter) * about).sum()
    return (energy - (about**2).sum() / 2) / len(cells)


def test_generation_climbs_the_density_of_the_forces_that_were_fitted(tumour, monkeypatch):
    cells, graph, fit = tumour
    mean = cells.mean(axis=0)
    np.testing.assert_allclose(fit.mean, mean)
    monkeypatch.setattr(celcomen_generation, "SNAPSHOTS", celcomen_generation.EPOCHS)
    found = generate(cells, graph, fit.inter, fit.intra, return_history=True)
    path = [epoch["expression"] for epoch in found.history[:-1]] + [found.expression]
    density = np.array([own_log_density(tissue, graph, fit, mean) for tissue in path])
    assert len(density) == 51
    assert (np.diff(density) > -1e-9 * np.abs(density[0])).all()
    assert density[-1] > density[0] + 10
    # The most likely tissue is near the mean, not anywhere else on the sphere.
    assert np.corrcoef(found.expression.mean(axis=0), mean)[0, 1] > 0.7
    assert (found.expression < 0).mean() < 0.01
    about_zero = generate(cells, graph, fit.inter, fit.intra, switches={"centre": "none"})
    assert own_log_density(about_zero, graph, fit, mean) < density[0]
    # The mean of the fit is summed in another order.
    about_fitted = generate(cells, graph, fit.inter, fit.intra, mean=fit.mean)
    np.testing.assert_allclose(about_fitted, found.expression, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gene", [3, 20, 40])
def test_knock_outs_agree_with_the_exact_counterfactual_of_the_field(tumour, gene):
    """In direction (correlation above .9) and in size (within a factor of 1.6), where the gene is lost and around."""
    cells, graph, fit = tumour
    lost = np.flatnonzero(cells[:, gene] > 0)[::15][:4]
    clamp = np.zeros(cells.shape, dtype=bool)
    clamp[lost, gene] = True
    field = GaussianField(interaction_weights(graph, "symmetric"), fit.inter, fit.intra)
    exact = field.counterfactual(cells, np.zeros_like(cells), clamp) - cells
    found = counterfactual(cells, graph, fit.inter, fit.intra, [KnockOut(lost, [gene])], epochs=50).effect
    own = np.zeros(cells.shape, dtype=bool)
    own[lost] = True
    for part in (own & ~clamp, ~own):
        one, other = found[part], exact[part]
        assert np.corrcoef(one, other)[0, 1] > 0.9
        assert 1 / 1.6 < (one @ other) / (other @ other) < 1.6


AS_THEY_ARE = {"scale": "none"}


@pytest.fixture(scope="module")
def tiny():
    """60 cells of 6 genes that are not scaled, forces of a field near its border, what is held, and the dense field."""
    rng = np.random.default_rng(4)
    graph = knn_graph(rng.random((60, 2)), 5)
    weights = interaction_weights(graph, "symmetric").toarray()
    inter, intra = (m + m.T for m in rng.normal(size=(2, 6, 6)))
    # Largest eigenvalues .36 and .08 of a norm term of 1: P - 2 j g is positive definite for all |j| <= 1.
    inter, intra = 0.36 * inter / np.linalg.norm(inter, 2), 0.08 * intra / np.linalg.norm(intra, 2)
    spread = np.array([0.2, 1, 3, 0.5, 8, 2])
    inter, intra = (
        inter / np.outer(spread, spread),
        (intra - np.eye(6) / 2) / np.outer(spread, spread) + np.eye(6) / 2,
    )
    precision = np.kron(np.eye(60), np.eye(6) - 2 * intra) - np.kron(weights + weights.T, inter)
    mean = rng.uniform(2, 20, 6)
    draw = np.linalg.solve(np.linalg.cholesky(precision).T, rng.normal(size=360)).reshape(60, 6)
    clamp = np.zeros((60, 6), dtype=bool)
    clamp[[3, 30, 31], 2] = clamp[40] = True
    return mean + draw, graph, inter, intra, clamp, mean, precision


def test_off_the_sphere_generation_comes_to_the_exact_conditional_mean(tiny):
    cells, graph, inter, intra, clamp, mean, precision = tiny
    found = generate(cells, graph, inter, intra, clamp, 400, mean=mean, switches=AS_THEY_ARE, return_history=True)
    expected = dense_conditional(cells, clamp, mean, precision)
    spread = np.sqrt(np.diag(np.linalg.inv(precision))).reshape(cells.shape)
    assert (np.abs(found.expression - expected) < 1e-6 * spread).all()
    # It was far from there, and never went down.
    assert np.abs((cells - expected) / spread).max() > 1
    about = [(t - mean).ravel() for t in (cells, found.expression)]
    fell = [(x @ precision @ x) / 2 for x in about]
    assert losses_of(found)[[0, -1]] == pytest.approx(fell, rel=1e-9)
    assert np.diff(losses_of(found)).max() < 1e-9
    elsewhere = generate(np.where(clamp, cells, 0), graph, inter, intra, clamp, 400, mean=mean, switches=AS_THEY_ARE)
    np.testing.assert_allclose(elsewhere, found.expression, atol=1e-5)
    # Forces about 0 draw to 0.
    about_zero = generate(*(cells, graph, inter, intra, clamp, 400), switches=AS_THEY_ARE | {"centre": "none"})
    expected = dense_conditional(cells, clamp, np.zeros(6), precision)
    assert (np.abs(about_zero - expected) < 1e-5 * spread).all()
    np.testing.assert_array_equal(about_zero[clamp], cells[clamp])


def losses_of(generation):
    return np.array([epoch["loss"] for epoch in generation.history])


def test_off_the_sphere_a_knock_out_is_the_exact_one(tiny):
    """To a ten-thousandth of the largest change, at the shipped number of epochs."""
    cells, graph, inter, intra, _, _, precision = tiny
    lost = KnockOut([10, 11, 50], [1])
    found = counterfactual(cells, graph, inter, intra, [lost], switches=AS_THEY_ARE)
    clamp = np.zeros(cells.shape, dtype=bool)
    clamp[lost.cells, 1] = True
    without = dense_conditional(cells, clamp, cells.mean(axis=0), precision)
    values = np.where(clamp, 0, cells)
    exact = dense_conditional(values, clamp, cells.mean(axis=0), precision) - without
    assert np.abs(exact[~clamp]).max() > 0.1
    assert np.abs(found.effect - exact).max() < 1e-4 * np.abs(exact).max()
    np.testing.assert_array_equal(found.effect[clamp], -cells[clamp])


def test_off_the_sphere_forces_without_a_maximum_are_refused(tiny):
    cells, graph, inter, intra, *_ = tiny
    with pytest.raises(InputError, match="no finite variance on this graph; scale the forces down"):
        generate(cells, graph, 3 * inter, intra, switches=AS_THEY_ARE)
    # On the sphere any forces have one.
    assert np.isfinite(generate(cells, graph, 3 * inter, intra)).all()
