"""CONCERT, re-implemented: its sparse process against the exact one, and what a domain's vector changes."""

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.stats import nbinom

from tissue_counterfactuals.models import concert


@pytest.fixture(scope="module")
def observations():
    rng = np.random.default_rng(0)
    places = torch.as_tensor(rng.uniform(0, 20, (25, 2)))
    mean, variance = torch.as_tensor(rng.normal(size=25)), torch.as_tensor(rng.uniform(0.2, 1, 25))
    return places, mean, variance


def cauchy(a, b):
    return 1 / (1 + torch.cdist(a, b).square() / 10)


def test_with_every_cell_inducing_the_process_is_the_exact_one(observations):
    places, mean, variance = observations
    k = cauchy(places, places)
    gain = k @ torch.linalg.inv(k + torch.diag(variance))
    exact_mean, exact_variance = gain @ mean, (k - gain @ k).diagonal()
    got_mean, got_variance, divergence = concert.sparse_posterior(cauchy, places, places, mean, variance, len(places))
    torch.testing.assert_close(got_mean, exact_mean, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(got_variance, exact_variance, rtol=1e-3, atol=1e-3)
    # The lower bound is then the evidence, and the rest of the divergence is the cross entropy.
    evidence = torch.distributions.MultivariateNormal(torch.zeros(25).double(), k + torch.diag(variance)).log_prob(mean)
    log_variance = torch.log(2 * torch.pi * variance)
    cross = -0.5 * (log_variance + ((mean - exact_mean) ** 2 + exact_variance) / variance).sum()
    torch.testing.assert_close(divergence, cross - evidence, rtol=1e-3, atol=1e-3)
    assert divergence > 0


def test_a_batch_stands_for_all_cells(observations):
    """Half of the cells, each counted twice, gives the posterior of each cell observed twice."""
    places, mean, variance = observations
    part = slice(0, 10)
    twice = [torch.cat([x[part], x[part]]) for x in (places, mean, variance)]
    inducing = places[::3]
    once = concert.sparse_posterior(cauchy, inducing, places[part], mean[part], variance[part], 20)
    doubled = concert.sparse_posterior(cauchy, inducing, *twice, 20)
    torch.testing.assert_close(once[0], doubled[0][:10], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(once[1], doubled[1][:10], rtol=1e-6, atol=1e-6)


def test_negative_binomial_loss_against_scipy():
    rng = np.random.default_rng(1)
    counts, mean = rng.poisson(2, (4, 3)), rng.uniform(0.5, 4, (4, 3))
    log_theta = np.array([-0.5, 0.0, 1.2])
    theta = np.exp(log_theta)
    expected = -nbinom.logpmf(counts, theta, theta / (theta + mean)).sum()
    tensors = (torch.as_tensor(x, dtype=torch.float64) for x in (counts, mean, log_theta))
    assert concert.negative_binomial_loss(*tensors).item() == pytest.approx(expected)


def test_the_weight_of_the_divergence_stays_in_its_bounds_and_follows_it():
    weight = concert.DivergenceWeight(target=0.25)
    assert weight.value == 10.0
    for _ in range(5000):
        weight.update(50.0)
    large = weight.value
    assert 5.0 < large <= 25.0
    for _ in range(20000):
        weight.update(0.0)
    assert 5.0 <= weight.value < large


def test_sections_have_squares_and_processes_of_their_own():
    """Cells of another section at the same places, or far away, are nothing to a cell."""
    rng = np.random.default_rng(3)
    coords, section = rng.uniform(0, 1, (30, 2)), np.repeat([0, 1], [10, 20])
    coords[section == 1] += 500
    cells = concert.Cells.of(sparse.csr_array((30, 4)), np.zeros(30, dtype=int), section, coords)
    for code in (0, 1):
        own = cells.places[section == code]
        np.testing.assert_allclose([own.min(axis=0), own.max(axis=0)], [[0, 0], [20, 20]], rtol=1e-5)
    network = concert.Concert([100, 40], 1, 4)
    mean, variance = (torch.as_tensor(rng.uniform(0.5, 1, (30, 10)), dtype=torch.float32) for _ in range(2))
    places, codes = torch.as_tensor(cells.places), torch.as_tensor(section)
    both = network.smooth(mean, variance, places, codes)
    parts = [network.smooth(*(x[codes == code] for x in (mean, variance, places, codes))) for code in (0, 1)]
    for got, *expected in zip(both[:2], *(part[:2] for part in parts), strict=True):
        torch.testing.assert_close(got, torch.cat(expected))
    torch.testing.assert_close(both[2], parts[0][2] + parts[1][2])
    # Ten cells stand for a hundred, and twenty for forty.
    alone = concert.Concert([40], 1, 4)
    torch.testing.assert_close(alone.smooth(*(x[10:] for x in (mean, variance, places)), codes[10:] - 1), parts[1])


def predicted(network, cells, focal, codes, **options):
    return concert.predict(network, cells, focal, codes, torch.device("cpu"), **options)


def test_the_vector_of_a_domain_carries_what_the_domain_does():
    """Domain 1 expresses gene 0 eight times as much: exchanging the vector must do that to cells of domain 0."""
    rng = np.random.default_rng(2)
    n = 400
    domain = np.repeat([0, 1], n // 2)
    rate = np.full((n, 6), 4.0)
    rate[domain == 1, 0] = 32.0
    counts, sections = sparse.csr_array(rng.poisson(rate)), np.zeros(n, dtype=int)
    cells = concert.Cells.of(counts, domain, sections, rng.uniform(0, 1, (n, 2)))
    torch.manual_seed(0)
    network = concert.Concert([n], 2, 6, n_basal=16)
    concert.train(network, cells, 60, 64, 5e-3, 60, rng, torch.device("cpu"), report=lambda line: None)
    focal = np.arange(50)
    both = (0, 1)
    own, moved = (predicted(network, cells, focal, np.full(n, code)) for code in both)
    share_own, share_moved = ((x / x.sum(axis=1, keepdims=True)).mean(axis=0) for x in (own, moved))
    assert share_own[0] == pytest.approx(4 / 24, abs=0.05)
    assert share_moved[0] == pytest.approx(32 / 52, abs=0.12)
    # Neighbours of the other domain reach the focal cells through what is smooth over places, and only if they are
    # seen.
    cells.places[:] = cells.places[np.tile(focal, n // 50)] + rng.uniform(0, 0.2, (n, 2))
    around = sparse.csr_array((np.ones(50), (focal, n - 50 + focal)), shape=(50, n))
    codes = np.zeros(n, dtype=int)
    altered = np.where(np.arange(n) < 50, 0, 1)
    alone = predicted(network, cells, focal, codes)
    np.testing.assert_array_equal(predicted(network, cells, focal, altered), alone)
    beside, changed = (predicted(network, cells, focal, c, around=around) for c in (codes, altered))
    assert beside.shape == alone.shape
    assert np.abs(changed / beside - 1).max() > 1e-3
