"""The Gaussian field as an estimator: its likelihood, its one optimum, its errors, and what it recovers."""

import numpy as np
import pytest
from scipy import sparse

from celcomen_oracles import gaussian_loss_and_gradient
from celcomen_samplers import lattice, metropolis_sphere, random_forces
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.experiments.celcomen_recovery import chain_forces
from tissue_counterfactuals.models import celcomen_gaussian
from tissue_counterfactuals.models.celcomen import fit_interactions
from tissue_counterfactuals.models.celcomen_field import GaussianField
from tissue_counterfactuals.models.celcomen_gaussian import (
    field_statistics,
    fit_gaussian,
    partial_correlations,
)
from tissue_counterfactuals.models.celcomen_statistics import interaction_weights
from tissue_counterfactuals.neighbors import knn_graph
from tissue_counterfactuals.simulate.field import draw_forces


def tissue(n_cells, seed=0, kind="symmetric"):
    place = np.random.default_rng(seed).random((n_cells, 2))
    return interaction_weights(knn_graph(place, 6), kind)


def drawn(n_cells, n_genes, seed=0):
    """A tissue from known forces: (expression, J), inter, intra."""
    inter, intra, _ = draw_forces(n_genes, seed, inter_strength=0.8, intra_strength=0.6)
    weights = tissue(n_cells, seed)
    return (GaussianField(weights, inter, intra).sample(seed), weights), inter, intra


def pairs(matrix):
    return matrix[np.triu_indices(len(matrix), 1)]


def pearson(one, other):
    return np.corrcoef(pairs(one), pairs(other))[0, 1]


# --- likelihood ---------------------------------------------------------------------------------------------------


def test_loss_is_that_of_the_dense_gaussian():
    (cells, weights), inter, intra = drawn(80, 4)
    observed = field_statistics([(cells, weights)], centre="none")
    precision = np.kron(np.eye(80), np.eye(4) - 2 * intra) - 2 * np.kron(weights.toarray(), inter)
    s = cells.ravel()
    expected = (s @ precision @ s / 2 - np.linalg.slogdet(precision)[1] / 2) / 80
    assert gaussian_loss_and_gradient(observed, inter, intra)[0] == pytest.approx(expected, rel=1e-12)


def test_loss_by_quadrature_is_that_of_all_eigenvalues_of_a_large_graph():
    slide, inter, intra = drawn(1500, 5)
    values = np.linalg.eigvalsh(slide[1].toarray())
    log_det = np.mean([np.linalg.slogdet(np.eye(5) - 2 * intra - 2 * j * inter)[1] for j in values])
    observed = field_statistics([slide], centre="none")
    energy = ((np.eye(5) - 2 * intra) * observed.intra).sum() / 2 - (inter * observed.inter).sum()
    loss = gaussian_loss_and_gradient(observed, inter, intra)[0]
    assert energy - loss == pytest.approx(log_det / 2, rel=2e-3)


def test_gradients_are_those_of_finite_differences():
    slide, inter, intra = drawn(120, 4)
    observed = field_statistics([slide])
    _, for_inter, for_intra = gaussian_loss_and_gradient(observed, inter, intra)
    step = 1e-5
    for a, b in ((0, 0), (0, 2), (1, 3)):
        change = np.zeros((4, 4))
        change[a, b] = change[b, a] = step
        each = 2 if a != b else 1
        by_inter = [gaussian_loss_and_gradient(observed, inter + s * change, intra)[0] for s in (1, -1)]
        by_intra = [gaussian_loss_and_gradient(observed, inter, intra + s * change)[0] for s in (1, -1)]
        assert (by_inter[0] - by_inter[1]) / (2 * step) == pytest.approx(each * for_inter[a, b], abs=1e-8)
        assert (by_intra[0] - by_intra[1]) / (2 * step) == pytest.approx(each * for_intra[a, b], abs=1e-8)


def test_loss_is_convex_along_any_line():
    slide, inter, intra = drawn(100, 4)
    observed = field_statistics([slide])
    rng = np.random.default_rng(0)
    for _ in range(10):
        one, other = rng.normal(size=(2, 4, 4)) * 0.005
        points = [
            gaussian_loss_and_gradient(observed, inter + t * (one + one.T), intra + t * (other + other.T))[0]
            for t in (-1, 0, 1)
        ]
        assert points[0] + points[2] > 2 * points[1]


def test_standard_errors_are_the_inverse_of_the_hessian_by_finite_differences():
    slide, _, _ = drawn(150, 3)
    observed = field_statistics([slide])
    fit = fit_gaussian(observed)
    places = np.triu_indices(3)

    def gradient(x):
        forces = np.zeros((2, 3, 3))
        for place, half in enumerate(np.split(x, 2)):
            forces[place][places] = half
            forces[place].T[places] = half
        by = gaussian_loss_and_gradient(observed, *forces)[1:]
        twice = np.where(places[0] == places[1], 1, 2)
        return np.concatenate([matrix[places] * twice for matrix in by])

    best = np.concatenate([fit.inter[places], fit.intra[places]])
    hessian = np.array([(gradient(best + h) - gradient(best - h)) / 2e-5 for h in 1e-5 * np.eye(12)])
    errors = np.sqrt(np.diag(np.linalg.inv(hessian)) / 150)
    np.testing.assert_allclose(fit.inter_error[places], errors[:6], rtol=1e-4)
    np.testing.assert_allclose(fit.intra_error[places], errors[6:], rtol=1e-4)


# --- the optimum --------------------------------------------------------------------------------------------------


def test_the_optimum_matches_the_moments():
    """There is one alone, for the loss is convex."""
    slide, _, _ = drawn(400, 5)
    observed = field_statistics([slide])
    first = fit_gaussian(observed)
    assert first.diagnostics["converged"]
    # The gradient is model moments minus observed moments.
    _, covariance_gap, variance_gap = gaussian_loss_and_gradient(observed, first.inter, first.intra)
    assert np.abs(covariance_gap).max() < 1e-7
    assert np.abs(variance_gap).max() < 1e-7
    losses = [step["loss"] for step in first.history]
    assert (np.diff(losses) <= 1e-10).all()
    assert len(losses) < 15


def test_without_forces_between_cells_the_optimum_is_the_inverse_covariance():
    cells = np.random.default_rng(0).normal(size=(300, 4)) @ np.random.default_rng(1).normal(size=(4, 4))
    fit = fit_gaussian([(cells, None)])
    expected = np.linalg.inv(np.cov(cells.T, bias=True))
    np.testing.assert_allclose(np.eye(4) - 2 * fit.intra, expected, rtol=1e-9)
    np.testing.assert_array_equal(fit.inter, 0)
    assert np.isinf(fit.inter_error).all()
    assert np.isfinite(fit.intra_error).all()


def test_dissociated_cells_inform_forces_within_cells_alone():
    slide, _, intra = drawn(300, 4)
    alone = np.random.default_rng(5).multivariate_normal(np.zeros(4), np.linalg.inv(np.eye(4) - 2 * intra), 5000)
    without, with_them = fit_gaussian([slide]), fit_gaussian([slide, (alone, None)])
    assert (with_them.intra_error < 0.4 * without.intra_error).all()
    assert (with_them.inter_error > 0.7 * without.inter_error).all()
    assert np.abs(with_them.intra - intra).max() < np.abs(without.intra - intra).max()


def test_several_slides_are_fitted_as_one_likelihood():
    slides = [drawn(150, 3, seed=seed)[0] for seed in (1, 2)]
    fit = fit_gaussian(slides, centre="none")
    parts = [gaussian_loss_and_gradient(field_statistics([s], "none"), fit.inter, fit.intra) for s in slides]
    for one, other in zip(parts[0][1:], parts[1][1:], strict=True):
        # The slides pull in opposite directions at the common optimum.
        assert np.abs(one).max() > 1e-3
        np.testing.assert_allclose(one, -other, atol=1e-7)


def test_centring_takes_the_mean_of_each_slide():
    (cells, weights), _, _ = drawn(300, 4)
    shifted = cells + np.array([3.0, 0.0, 5.0, 1.0])
    plain = fit_gaussian([(cells - cells.mean(axis=0), weights)], centre="none")
    centred = fit_gaussian([(shifted, weights)], centre="mean")
    np.testing.assert_allclose(centred.inter, plain.inter, atol=1e-7)
    np.testing.assert_allclose(centred.intra, plain.intra, atol=1e-7)
    uncentred = fit_gaussian([(shifted, weights)], centre="none")
    assert np.abs(uncentred.inter - centred.inter).max() > 0.05


def test_sparse_expression_gives_the_same_forces_as_dense():
    (cells, weights), _, _ = drawn(300, 4)
    cells = np.maximum(cells, 0)
    dense, thin = (fit_gaussian([(c, weights)]) for c in (cells, sparse.csr_array(cells)))
    np.testing.assert_allclose(dense.inter, thin.inter, atol=1e-10)


def test_order_of_genes_and_of_cells_does_not_matter():
    (cells, weights), _, _ = drawn(900, 5)
    plain = fit_gaussian([(cells, weights)])
    genes = np.random.default_rng(0).permutation(5)
    by_genes = fit_gaussian([(cells[:, genes], weights)])
    np.testing.assert_allclose(by_genes.inter, plain.inter[np.ix_(genes, genes)], atol=1e-8)
    np.testing.assert_allclose(by_genes.intra_error, plain.intra_error[np.ix_(genes, genes)])
    order = np.random.default_rng(1).permutation(900)
    by_cells = fit_gaussian([(cells[order], weights[order][:, order])])
    # Beyond 800 cells the random signs of the probes fall on other cells.
    np.testing.assert_allclose(by_cells.inter, plain.inter, atol=8e-3)
    small = (cells[:500], sparse.csr_array(tissue(500)))
    order = np.random.default_rng(1).permutation(500)
    moved = (small[0][order], small[1][order][:, order])
    np.testing.assert_allclose(fit_gaussian([moved]).inter, fit_gaussian([small]).inter, atol=1e-8)


def test_partial_correlations_do_not_depend_on_units():
    (cells, weights), _, _ = drawn(400, 4)
    units = np.array([0.1, 1.0, 7.0, 30.0])
    one, other = (partial_correlations(fit_gaussian([(c, weights)])) for c in (cells, cells * units))
    np.testing.assert_allclose(one[0], other[0], atol=1e-6)
    np.testing.assert_allclose(one[1], other[1], atol=1e-6)


@pytest.mark.parametrize("kind", ["symmetric", "gcn", "row", "adjacency"])
def test_any_kind_of_weights_has_a_finite_optimum(kind):
    (cells, _), _, _ = drawn(300, 4)
    observed = field_statistics([(cells, tissue(300, kind=kind))])
    fit = fit_gaussian(observed)
    assert np.abs(gaussian_loss_and_gradient(observed, fit.inter, fit.intra)[1]).max() < 1e-6


# --- the ridge ---------------------------------------------------------------------------------------------------


def test_ridge_draws_forces_to_zero_and_helps_with_more_genes_than_cells():
    (cells, weights), _, _ = drawn(400, 5)
    sizes = [np.abs(pairs(fit_gaussian([(cells, weights)], ridge=r).inter)).sum() for r in (0, 0.1, 1)]
    assert sizes[0] > sizes[1] > sizes[2]
    few = (np.random.default_rng(0).normal(size=(20, 30)), tissue(20))
    assert np.isfinite(fit_gaussian([few], ridge=0.1).inter).all()


def smooth_tissue(n_genes, side=20, seed=0):
    """Genes that few smooth patterns drive: the optimum lies close to the border of what a field can be."""
    rng = np.random.default_rng(seed)
    weights = interaction_weights(knn_graph(np.stack(np.divmod(np.arange(side**2), side), 1) * 1.0, 8), "row")
    patterns = rng.normal(size=(side**2, 10))
    for _ in range(10):
        patterns = weights @ patterns
    patterns /= patterns.std(axis=0)
    return patterns @ rng.normal(size=(10, n_genes)) + 3 * rng.normal(size=(side**2, n_genes)), weights


def test_where_steps_cross_the_border_the_optimum_is_reached_from_inside(monkeypatch):
    observed = field_statistics([smooth_tissue(40)])
    straight = fit_gaussian(observed, ridge=0.1)
    assert len(straight.history) <= celcomen_gaussian._MOST_STRAIGHT
    monkeypatch.setattr(celcomen_gaussian, "_MOST_STRAIGHT", 3)
    around = fit_gaussian(observed, ridge=0.1)
    # With ends that weigh more it has come close: fewer steps were left than the straight way has.
    assert 3 < len(around.history) < len(straight.history)
    np.testing.assert_allclose(around.inter, straight.inter, atol=1e-6 * np.abs(straight.inter).max())
    np.testing.assert_allclose(around.intra, straight.intra, atol=1e-6 * np.abs(straight.intra).max())
    monkeypatch.setattr(celcomen_gaussian, "_MOST_STEPS", 1)
    with pytest.raises(InputError, match="give a larger ridge"):
        fit_gaussian(observed, ridge=0.1)


# --- what it recovers ---------------------------------------------------------------------------------------------


def test_both_forces_are_recovered_without_cross_talk_and_better_than_by_coexpression():
    results = []
    for seed in range(4):
        (cells, weights), inter, intra = drawn(2500, 12, seed)
        fit = fit_gaussian([(cells, weights)])
        around = cells.T @ (weights @ cells)
        scale = np.sqrt(np.diag(cells.T @ cells))
        coexpression = (around + around.T) / np.outer(scale, scale)
        results.append(
            (
                *(pearson(fit.inter, inter), pearson(fit.intra, intra)),
                *(pearson(coexpression, inter), pearson(np.corrcoef(cells.T), intra)),
                *(pearson(fit.inter, intra), pearson(fit.intra, inter), pearson(inter, intra)),
            )
        )
    inter, intra, spatial, plain, *cross = np.mean(results, axis=0)
    assert inter > 0.84
    assert intra > 0.95
    assert inter > spatial + 0.1
    assert intra > plain + 0.02
    # Cross-talk is what the two truths share by chance.
    assert np.abs(np.array(cross[:2]) - cross[2]).max() < 0.1


@pytest.mark.parametrize("centre", ["none", "mean"])
def test_intervals_cover_the_truth_as_often_as_they_say(centre):
    inter, intra, _ = draw_forces(4, 0, inter_strength=0.8, intra_strength=0.6)
    upper, z = np.triu_indices(4), []
    for seed in range(40):
        weights = tissue(300, seed)
        cells = GaussianField(weights, inter, intra).sample(seed)
        fit = fit_gaussian([(cells, weights)], centre)
        z.append(
            [
                ((fit.inter - inter) / fit.inter_error)[upper],
                ((fit.intra - intra) / fit.intra_error)[upper],
            ]
        )
    for kind in (0, 1):
        own = np.array(z)[:, kind]
        # 400 dependent intervals of each kind: of 95 % two in a hundred more or less are chance.
        assert 0.915 < (np.abs(own) < 1.96).mean() < 0.98
        assert 0.8 < (own**2).mean() < 1.25


def test_with_a_ridge_moments_are_a_part_of_the_observed_and_no_interval_is_given():
    """Draws to 0 by more than the spread of the forces cover nothing: measured, then not offered."""
    inter, intra, _ = draw_forces(4, 0, inter_strength=0.8, intra_strength=0.6)
    inside = []
    for seed in range(10):
        weights = tissue(300, seed)
        observed = field_statistics([(GaussianField(weights, inter, intra).sample(seed), weights)], "none")
        plain, drawn_in = fit_gaussian(observed), fit_gaussian(observed, ridge=1.0)
        assert drawn_in.inter_error is None
        assert drawn_in.intra_error is None
        inside.append(np.abs(pairs(drawn_in.intra - intra)) < 1.96 * pairs(plain.intra_error))
        _, covariance_gap, variance_gap = gaussian_loss_and_gradient(observed, drawn_in.inter, drawn_in.intra)
        np.testing.assert_allclose(covariance_gap, -observed.inter / 2, atol=1e-6)
        apart = ~np.eye(4, dtype=bool)
        np.testing.assert_allclose(variance_gap[apart], -observed.intra[apart] / 2, atol=1e-6)
        np.testing.assert_allclose(np.diag(variance_gap), 0, atol=1e-6)
    assert np.mean(inside) < 0.85


def test_a_chain_has_no_third_force():
    z_field, ratio_of_coexpression = [], []
    for seed in range(6):
        inter, intra = chain_forces("inter", 0.8)
        weights = tissue(2000, seed)
        cells = GaussianField(weights, inter, intra).sample(seed)
        fit = fit_gaussian([(cells, weights)])
        assert min(fit.inter[0, 1], fit.inter[1, 2]) > 0.15
        z_field.append(fit.inter[0, 2] / fit.inter_error[0, 2])
        around = cells.T @ (weights @ cells)
        ratio_of_coexpression.append((around + around.T)[0, 2] / (around + around.T)[0, 1])
    assert abs(np.mean(z_field)) < 3 / np.sqrt(6)
    assert np.abs(z_field).max() < 3.5
    assert np.mean(ratio_of_coexpression) > 0.2


@pytest.mark.parametrize(("n_genes", "least"), [(4, 0.9), (10, 0.8)])
def test_forces_of_the_papers_sphere_model_are_recovered(n_genes, least):
    inter, intra = random_forces(n_genes, 4.0, 4.0, seed=1)
    weights = lattice(60)
    cells = metropolis_sphere(weights, inter, intra, sweeps=300, seed=0)
    # Unit norms fix the sum of the variances, so that no gene is free of the others: a little ridge.
    fit = fit_gaussian([(cells, weights)], centre="none", ridge=1e-3)
    assert pearson(fit.inter, inter) > least
    assert pearson(fit.intra, intra) > 0.9
    mean_field = fit_interactions([(cells, weights)], switches={"log_partition": "vmf"})
    assert pearson(fit.inter, inter) > pearson(mean_field.inter, inter)


# --- bad input ----------------------------------------------------------------------------------------------------


def test_bad_input_is_refused():
    (cells, weights), _, _ = drawn(100, 3)
    constant = cells.copy()
    constant[:, 1] = 2.0
    doubled = np.column_stack([cells, cells[:, 0] + cells[:, 1]])
    for arguments, message in (
        (([],), "there is no slide"),
        (([(constant, weights)],), r"gene number 1 \(counted from 0\) is the same in all cells"),
        (([(doubled, weights)],), "the 4 genes are linear combinations of each other"),
        (
            ([(cells, weights), (cells[:, :2], weights)],),
            "slide 2: it has 2 genes and slide 1 has 3",
        ),
        (([(cells, weights)], "mean", -1.0), "ridge is -1.0; give a number from 0 up"),
    ):
        with pytest.raises(InputError, match=message):
            fit_gaussian(*arguments)
