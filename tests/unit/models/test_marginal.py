"""Marginal likelihood by importance sampling, where it is known: a linear model with normal noise, a tiny network."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from slides import small_slide
from tissue_counterfactuals.graph import neighborhood_features, slide_graph
from tissue_counterfactuals.models.cellina import Cellina
from tissue_counterfactuals.models.marginal import log_marginal
from tissue_counterfactuals.question.folds import Split
from tissue_counterfactuals.slide import log_normalize

# x = W z + noise, z standard normal in one dimension: everything about it is known.
WEIGHTS, NOISE = torch.tensor([1.5, -0.7, 0.4]).double(), torch.tensor(0.6).double()
VALUES = torch.tensor([[1.0, 0.2, -0.5], [-2.0, 1.0, 0.0], [0.1, 0.0, 0.3]]).double()


def log_likelihood(latent):
    spread = torch.distributions.Normal(latent * WEIGHTS, NOISE)
    return spread.log_prob(VALUES).sum(dim=1)


def exact():
    covariance = np.outer(WEIGHTS, WEIGHTS) + float(NOISE) ** 2 * np.eye(3)
    return stats.multivariate_normal(np.zeros(3), covariance).logpdf(VALUES.numpy())


def posterior():
    variance = 1 / (1 + (WEIGHTS**2).sum() / NOISE**2)
    mean = variance * (VALUES @ WEIGHTS)[:, None] / NOISE**2
    return mean, variance.repeat(3, 1)


def test_with_the_exact_posterior_one_draw_gives_the_exact_value():
    for n_samples in (1, 7):
        found, effective = log_marginal(*posterior(), log_likelihood, n_samples)
        np.testing.assert_allclose(found, exact(), rtol=1e-10)
        np.testing.assert_allclose(effective, n_samples, rtol=1e-10)


def test_with_another_posterior_many_draws_do():
    torch.manual_seed(0)
    mean, variance = posterior()
    found, effective = log_marginal(mean + 0.1, 2 * variance, log_likelihood, 4000)
    np.testing.assert_allclose(found, exact(), atol=0.03)
    assert (effective < 3800).all()
    assert (effective > 1000).all()


def test_few_draws_of_a_poor_posterior_are_too_low_and_seen_to_be_few():
    torch.manual_seed(0)
    found, effective = log_marginal(torch.zeros(3, 1).double() + 3, posterior()[1], log_likelihood, 5)
    assert (found.numpy() < exact() - 0.5).all()
    assert (effective < 3).all()


@pytest.fixture(scope="module")
def fitted():
    slide = small_slide(n_cells=200, n_genes=12)
    graph = slide_graph(slide, max_neighbors=15)
    number = np.arange(200)
    split = Split(number >= 20, (number >= 10) & (number < 20), number < 10)
    model = Cellina(n_hidden=8, n_latent=1, epochs=3, batch_size=64, device="cpu")
    model.fit(slide, graph, split)
    cells = np.flatnonzero(split.held_out)
    return slide, model, cells, neighborhood_features(graph[cells], log_normalize(slide.X))


def enumerated(slide, model, cells):
    """log p(x) of cells by adding up a grid of both latents, in float64, from PyTorch's own likelihood."""
    grid = torch.linspace(-7, 7, 141).double()
    z, s = (x.reshape(-1, 1) for x in torch.meshgrid(grid, grid, indexing="ij"))
    network = model.network.double()
    sample = torch.zeros(len(z), dtype=torch.long)
    with torch.no_grad():
        shares, theta = network.decode(z, s, sample), network.log_theta.exp()
        prior = torch.distributions.Normal(0.0, 1.0)
        weight = (prior.log_prob(z) + prior.log_prob(s)).ravel() + 2 * math.log(grid[1] - grid[0])
        rows = []
        for counts in torch.from_numpy(slide.X[cells].toarray()).double():
            odds = (counts.sum() * shares / theta).log()
            terms = torch.distributions.NegativeBinomial(theta, logits=odds).log_prob(counts)
            rows.append(torch.logsumexp(terms.sum(dim=1) + weight, 0).item())
    model.network.float()
    return np.array(rows)


def test_the_likelihood_of_cells_is_that_of_an_enumeration(fitted):
    slide, model, cells, features = fitted
    found, effective = model.marginal_log_likelihood(slide, cells, features, 2000, seed=1)
    np.testing.assert_allclose(found, enumerated(slide, model, cells), atol=0.06)
    assert ((effective >= 1) & (effective <= 2000)).all()
    again, _ = model.marginal_log_likelihood(slide, cells, features, 2000, seed=1)
    other, _ = model.marginal_log_likelihood(slide, cells, features, 2000, seed=2)
    np.testing.assert_array_equal(found, again)
    assert (found != other).any()


def test_a_cell_without_counts_has_probability_one(fitted):
    slide, model, cells, features = fitted
    empty = slide.copy()
    empty.X = empty.X.multiply(~np.isin(np.arange(slide.n_obs), cells)[:, None]).tocsr()
    found, _ = model.marginal_log_likelihood(empty, cells, features, 50)
    np.testing.assert_allclose(found, 0, atol=0.5)
