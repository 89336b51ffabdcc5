"""The fused likelihood against scipy, against autograd of PyTorch's distribution, and against itself."""

import numpy as np
import pytest
import torch
from scipy import sparse, stats

from tissue_counterfactuals.models import likelihood
from tissue_counterfactuals.models.likelihood import CountMatrix, linear_nb_loss

N_CELLS, N_GENES, N_HIDDEN = 40, 25, 6


def some_counts(seed=0, n_cells=N_CELLS, n_genes=N_GENES, largest=5000):
    """Mostly zeros, a cell and a gene without any count, and a few counts far beyond the table."""
    rng = np.random.default_rng(seed)
    counts = rng.negative_binomial(0.3, 0.1, (n_cells, n_genes)).astype(np.float64)
    counts[3], counts[:, 5] = 0, 0
    counts[7, 2], counts[9, 2], counts[11, 4] = largest, largest // 3, 1
    return counts


def some_inputs(dtype=torch.float64, seed=0, spread_of_theta=1.0, n_genes=N_GENES, n_cells=N_CELLS):
    """hidden, weight, bias and log_theta that want gradients."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (n_cells, N_HIDDEN), (n_genes, N_HIDDEN), (n_genes,), (n_genes,)
    tensors = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    tensors[3] *= spread_of_theta
    return [tensor.to(dtype).requires_grad_() for tensor in tensors]


def batch_of(counts, cells=None):
    matrix = CountMatrix(sparse.csr_array(counts))
    return matrix.batch(np.arange(len(counts)) if cells is None else cells)


def plain_loss(hidden, weight, bias, log_theta, counts):
    """The same quantity by PyTorch's own distribution, which has no gradient at the mean 0 of a cell without counts."""
    expressed = counts.sum(axis=1) > 0
    counts = torch.as_tensor(counts[expressed], dtype=hidden.dtype)
    share = torch.softmax(hidden[expressed] @ weight.T + bias, dim=1)
    mean = share * counts.sum(dim=1, keepdim=True)
    spread = torch.distributions.NegativeBinomial(log_theta.exp(), logits=mean.log() - log_theta)
    return -spread.log_prob(counts).sum() / len(hidden)


def gradients_of(loss, inputs):
    return torch.autograd.grad(loss, inputs)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-10)])
def test_loss_equals_scipy(dtype, tolerance):
    counts, inputs = some_counts(), some_inputs(dtype)
    hidden, weight, bias, log_theta = (x.detach().double().numpy() for x in inputs)
    logits = hidden @ weight.T + bias
    share = np.exp(logits - logits.max(axis=1, keepdims=True))
    mean = counts.sum(axis=1, keepdims=True) * share / share.sum(axis=1, keepdims=True)
    theta = np.exp(log_theta)
    expressed = counts.sum(axis=1) > 0
    expected = stats.nbinom.logpmf(counts, theta, theta / (theta + mean))[expressed].sum()
    ours = linear_nb_loss(*inputs, batch_of(counts))
    assert ours.dtype == dtype
    assert ours.item() == pytest.approx(-expected / N_CELLS, rel=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.float64, 1e-9)])
def test_gradients_equal_autograd_of_the_plain_form(dtype, tolerance):
    counts, inputs = some_counts(), some_inputs(dtype)
    ours = gradients_of(linear_nb_loss(*inputs, batch_of(counts)), inputs)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    expected = gradients_of(plain_loss(*exact, counts), exact)
    for gradient, reference in zip(ours, expected, strict=True):
        scale = reference.abs().max().item()
        np.testing.assert_allclose(gradient, reference, rtol=0, atol=tolerance * scale)


def test_gradcheck():
    counts = some_counts(n_cells=12, n_genes=9, largest=400)
    inputs = some_inputs(n_genes=9, n_cells=12)
    batch = batch_of(counts)
    assert torch.autograd.gradcheck(lambda *tensors: 3.0 * linear_nb_loss(*tensors, batch), inputs)


@pytest.mark.parametrize("log_theta", [-18.0, -7.0, 7.0, 18.0])
def test_extreme_dispersion_stays_exact_in_float32(log_theta):
    """Small theta: nearly all mass at 0; large theta: Poisson. The plain form needs float64 for it."""
    counts, inputs = some_counts(largest=300), some_inputs(torch.float32)
    inputs[3] = torch.full_like(inputs[3], log_theta).requires_grad_()
    loss = linear_nb_loss(*inputs, batch_of(counts))
    ours = gradients_of(loss, inputs)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    reference = plain_loss(*exact, counts)
    expected = gradients_of(reference, exact)
    assert loss.item() == pytest.approx(reference.item(), rel=3e-6)
    for gradient, double in zip(ours[:3], expected[:3], strict=True):
        np.testing.assert_allclose(gradient, double, rtol=0, atol=2e-5 * double.abs().max().item())
    # By log theta the terms cancel to nearly nothing as theta grows: rounding is relative to the counts that cancel.
    np.testing.assert_allclose(ours[3], expected[3], rtol=1e-4, atol=1e-6 * counts.sum() / N_CELLS)


def test_poisson_limit():
    counts, inputs = some_counts(largest=300), some_inputs()
    inputs[3] = torch.full_like(inputs[3], 24.0)
    hidden, weight, bias, _ = inputs
    share = torch.softmax(hidden @ weight.T + bias, dim=1).detach().numpy()
    expressed = counts.sum(axis=1) > 0
    mean = (counts.sum(axis=1, keepdims=True) * share)[expressed]
    expected = -stats.poisson.logpmf(counts[expressed], mean).sum() / N_CELLS
    assert linear_nb_loss(*inputs, batch_of(counts)).item() == pytest.approx(expected, rel=1e-6)


def test_a_cell_without_counts_adds_nothing():
    counts, inputs = some_counts(), some_inputs(torch.float32)
    counts[:] = 0
    loss = linear_nb_loss(*inputs, batch_of(counts))
    assert loss.item() == 0
    for gradient in gradients_of(loss, inputs):
        assert (gradient == 0).all()


@pytest.mark.parametrize("chunk_rows", [1, 7, N_CELLS, 10 * N_CELLS])
def test_chunk_size_changes_rounding_alone(chunk_rows, monkeypatch):
    counts, inputs = some_counts(), some_inputs(torch.float32)
    loss = linear_nb_loss(*inputs, batch_of(counts))
    monkeypatch.setattr(likelihood, "_FEWEST_ROWS", 1)
    monkeypatch.setattr(likelihood, "_CHUNK_ELEMENTS", chunk_rows * N_GENES)
    chunked = linear_nb_loss(*inputs, batch_of(counts))
    assert chunked.item() == pytest.approx(loss.item(), rel=1e-6)
    for a, b in zip(gradients_of(chunked, inputs), gradients_of(loss, inputs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * b.abs().max().item())


def test_the_same_call_gives_the_same_bytes():
    counts, inputs = some_counts(), some_inputs(torch.float32)
    first, second = (linear_nb_loss(*inputs, batch_of(counts)) for _ in range(2))
    assert first.item() == second.item()
    for a, b in zip(gradients_of(first, inputs), gradients_of(second, inputs), strict=True):
        assert torch.equal(a, b)


def test_evaluation_without_gradients_gives_the_same_value():
    counts, inputs = some_counts(), some_inputs(torch.float32)
    with torch.no_grad():
        value = linear_nb_loss(*inputs, batch_of(counts))
    assert not value.requires_grad
    assert value.item() == linear_nb_loss(*inputs, batch_of(counts)).item()


def test_batch_holds_the_counts_of_the_cells_asked_for():
    counts = some_counts()
    cells = np.array([9, 3, 30, 7])
    batch = batch_of(counts, cells)
    chosen, k = counts[cells], batch.exceedances.shape[1]
    np.testing.assert_array_equal(batch.counts, chosen)
    np.testing.assert_array_equal(batch.library, chosen.sum(axis=1))
    more = (chosen[:, :, None] > np.arange(k)).sum(axis=0)
    np.testing.assert_array_equal(batch.exceedances, more)
    assert sorted(batch.large_counts.tolist()) == sorted(chosen[chosen > k])
    assert batch.large_counts.numel() > 0
    assert set(batch.large_genes.tolist()) == {2}
    poisson_constant = -stats.poisson.logpmf(chosen, 1.0) - 1
    assert batch.log_factorials == pytest.approx(poisson_constant.sum(), rel=1e-12)


def test_explicit_zeros_and_other_sparse_forms_are_the_same_counts():
    counts = some_counts()
    stored = sparse.csr_array(counts)
    stored.data[::3] = 0
    dense = stored.toarray()
    for given in (stored, sparse.csc_array(dense), sparse.csr_matrix(dense)):
        batch = CountMatrix(given).batch(np.arange(N_CELLS))
        reference = batch_of(dense)
        np.testing.assert_array_equal(batch.counts, reference.counts)
        np.testing.assert_array_equal(batch.exceedances[:, :5], reference.exceedances[:, :5])


def test_counts_of_nothing_at_all():
    batch = batch_of(np.zeros((4, 3)))
    assert batch.exceedances.sum() == 0
    assert batch.log_factorials == 0


def test_tables_do_not_grow_with_the_largest_count():
    matrix = CountMatrix(sparse.csr_array(some_counts(largest=10**9)))
    # What is kept beside the counts: two tables and the buffers of a batch.
    assert sum(x.nbytes for x in vars(matrix).values() if isinstance(x, np.ndarray)) < 2**21
    # Beyond the tables the same is computed.
    counts, inputs = some_counts(largest=600_000), some_inputs()
    expected = plain_loss(*inputs, torch.from_numpy(counts))
    batch = batch_of(counts)
    torch.testing.assert_close(linear_nb_loss(*inputs, batch), expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(batch.log_counts, torch.from_numpy(np.log1p(counts).astype("f4")))
