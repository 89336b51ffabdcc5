"""Draws and counterfactuals of the Gaussian field, against dense linear algebra and a Gibbs sampler."""

import numpy as np
import pytest
from scipy import sparse

from celcomen_oracles import dense_conditional, dense_precision
from celcomen_samplers import gibbs_gaussian, lattice
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.models.celcomen_field import GaussianField
from tissue_counterfactuals.models.celcomen_statistics import interaction_weights
from tissue_counterfactuals.neighbors import knn_graph
from tissue_counterfactuals.simulate.field import draw_forces


def tissue(n_cells, seed=0):
    place = np.random.default_rng(seed).random((n_cells, 2))
    return interaction_weights(knn_graph(place, 6), "symmetric")


@pytest.fixture(scope="module")
def field():
    inter, intra, _ = draw_forces(4, 0, inter_strength=0.8, intra_strength=0.6)
    return GaussianField(tissue(40), inter, intra)


@pytest.fixture(scope="module")
def covariance(field):
    return np.linalg.inv(dense_precision(field))


def clamped(shape, share=0.15, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random(shape) < share, rng.normal(size=shape)


def test_draws_have_the_covariance_of_the_dense_field(field, covariance):
    draws = np.array([field.sample(seed).ravel() for seed in range(2000)])
    spread = np.sqrt(np.diag(covariance))
    z_mean = draws.mean(axis=0) / spread * np.sqrt(2000)
    assert np.abs(z_mean).max() < 4.5
    # Whitened, the empirical covariance is a Wishart mean: entries 1/sqrt(n), the trace sharper.
    root = np.linalg.cholesky(dense_precision(field))
    white = draws @ root
    found = white.T @ white / 2000
    off = found - np.eye(len(found))
    assert np.abs(off).max() < 6 * np.sqrt(2 / 2000)
    assert np.trace(found) / len(found) == pytest.approx(1, abs=5 * np.sqrt(2 / (2000 * 160)))


def test_draws_are_exact_maps_of_white_noise(field, covariance):
    # The map from noise to draw is linear: its columns, multiplied out, are the covariance to rounding.
    shape = field.shape
    columns = np.array(
        [field._in_combinations(unit.reshape(shape), -0.5).ravel() for unit in np.eye(shape[0] * shape[1])]
    )
    np.testing.assert_allclose(columns.T @ columns, covariance, atol=1e-10)


def test_gibbs_sampler_agrees_with_the_moments_of_exact_draws():
    inter, intra, _ = draw_forces(3, 1, inter_strength=0.6, intra_strength=0.5)
    weights = lattice(12)
    states = gibbs_gaussian(weights, inter, intra, sweeps=1500, burn_in=100, seed=0)
    field = GaussianField(weights, inter, intra)
    exact = np.array([field.sample(seed) for seed in range(300)])

    def moments(cells):
        around = np.einsum("ij,tjb->tib", weights.toarray(), cells)
        own = np.einsum("tia,tib->ab", cells, cells) / cells[..., 0].size
        between = np.einsum("tia,tib->ab", cells, around) / cells[..., 0].size
        return np.concatenate([own, between])

    np.testing.assert_allclose(moments(states), moments(exact), atol=0.02)
    # And both agree with the dense inverse.
    truth = np.linalg.inv(dense_precision(field)).reshape(144, 3, 144, 3)
    own = np.einsum("iaib->ab", truth) / 144
    np.testing.assert_allclose(moments(states)[:3], own, atol=0.02)


def test_large_tissues_are_drawn_with_the_right_moments():
    inter, intra, _ = draw_forces(5, 2, inter_strength=0.8, intra_strength=0.6)
    weights = tissue(20_000)
    cells = GaussianField(weights, inter, intra).sample(0)
    values = np.linalg.eigvalsh(tissue(800).toarray())
    expected = np.mean([np.linalg.inv(np.eye(5) - 2 * intra - 2 * j * inter) for j in values], axis=0)
    np.testing.assert_allclose(cells.T @ cells / 20_000, expected, atol=0.06)


def test_the_same_seed_gives_the_same_draw(field):
    np.testing.assert_array_equal(field.sample(3), field.sample(3))
    assert not np.array_equal(field.sample(3), field.sample(4))


@pytest.mark.parametrize("share", [0.02, 0.5])
def test_what_changes_is_the_difference_of_two_conditional_means(field, share):
    clamp, values = clamped(field.shape, share)
    mean = np.array([1.0, -2.0, 0.0, 3.0])
    expression = field.sample(0) + mean
    np.testing.assert_array_equal(field.counterfactual(expression, expression, clamp), expression)
    changed = field.counterfactual(expression, values, clamp)
    np.testing.assert_allclose(changed[clamp], values[clamp])
    one, other = (dense_conditional(held, clamp, mean, dense_precision(field)) for held in (values, expression))
    np.testing.assert_allclose((changed - expression)[~clamp], (one - other)[~clamp], atol=1e-6)


def test_a_whole_cell_can_be_clamped_and_nothing_can(field):
    expression, clamp = np.full(field.shape, 2.0), np.zeros(field.shape, dtype=bool)
    np.testing.assert_array_equal(field.counterfactual(expression, 0 * expression, clamp), expression)
    clamp[7] = True
    found = field.counterfactual(expression, np.full(field.shape, 5.0), clamp)
    np.testing.assert_array_equal(found[7], 5.0)
    assert np.isfinite(found).all()


def test_a_knock_out_stays_in_its_cell_without_forces_between_cells_and_decays_with_them():
    inter, intra, _ = draw_forces(4, 0, inter_strength=0.6, intra_strength=0.6)
    weights = lattice(15)
    start, clamp = np.ones((225, 4)), np.zeros((225, 4), dtype=bool)
    clamp[112, 0] = True
    row, column = np.divmod(np.arange(225), 15)
    distance = np.maximum(abs(row - 7), abs(column - 7))
    alone = GaussianField(weights, 0 * inter, intra).counterfactual(start, 0 * start, clamp) - start
    assert np.abs(alone[112]).max() > 0.1
    np.testing.assert_array_equal(alone[distance > 0], 0)
    effect = np.abs(GaussianField(weights, inter, intra).counterfactual(start, 0 * start, clamp) - start)
    rings = [effect[distance == d].mean() for d in range(1, 7)]
    assert rings[0] > 1e-3
    assert (np.diff(rings) < 0).all()
    assert rings[-1] < 0.02 * rings[0]


def test_order_of_genes_and_cells_does_not_matter(field):
    genes, cells = np.random.default_rng(0).permutation(4), np.random.default_rng(1).permutation(40)
    clamp, values = clamped(field.shape)
    moved = GaussianField(
        sparse.csr_array(field.graph[cells][:, cells]),
        field.inter[np.ix_(genes, genes)],
        ((np.eye(4) - field.precision) / 2)[np.ix_(genes, genes)],
    )
    expression = field.sample(0)
    found = field.counterfactual(expression, values, clamp)
    again = moved.counterfactual(*(table[cells][:, genes] for table in (expression, values, clamp)))
    np.testing.assert_allclose(again, found[cells][:, genes], atol=1e-10)


def test_bad_input_is_refused(field):
    weights = tissue(40)
    for inter, intra, message in (
        (np.eye(4), np.zeros((4, 4)), "no finite variance on this graph"),
        (np.zeros((4, 4)), np.eye(4), "no finite variance on this graph"),
        (np.zeros((3, 3)), np.zeros((4, 4)), r"inter forces have shape \(3, 3\)"),
        (np.triu(np.ones((4, 4))), np.zeros((4, 4)), "give symmetric matrices"),
    ):
        with pytest.raises(InputError, match=message):
            GaussianField(weights, inter, intra)
    clamp, values = clamped(field.shape)
    with pytest.raises(InputError, match=r"values: the shape is \(39, 4\); give 40 cells x 4 genes"):
        field.counterfactual(field.sample(0), values[1:], clamp)
    with pytest.raises(InputError, match="clamp: it is float64"):
        field.counterfactual(field.sample(0), values, clamp.astype(float))
    cell, gene = np.argwhere(clamp)[0]
    values[cell, gene] = np.nan
    with pytest.raises(InputError, match=f"cell number {cell}, gene number {gene} .* is nan"):
        field.counterfactual(field.sample(0), values, clamp)
