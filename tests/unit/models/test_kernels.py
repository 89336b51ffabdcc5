"""The CPU kernels by themselves; what the likelihood makes of them is tested in test_likelihood.py."""

import numpy as np
import pytest
import torch

from tissue_counterfactuals.models.cellina import Dropout
from tissue_counterfactuals.models.kernels import dropout_factors, nb_rows


def factors(n, share, seed=0):
    out = np.full(n, np.nan, np.float32)
    factor = np.float32(1 / (1 - share))
    dropout_factors(np.uint32(seed), np.uint32(round(share * 2**32)), factor, out)
    return out


def work_on_rows(logits, counts, theta, with_gradients):
    """nb_rows on float32 copies: the returned terms, logits, log_ratios and slopes."""
    logits, counts, theta = (np.array(x, np.float32) for x in (logits, counts, theta))
    log_ratios, slopes = np.zeros((2, len(theta)), np.float32)
    library, peaks = counts.sum(axis=1), logits.max(axis=1)
    terms = nb_rows(logits, peaks, counts, library, theta, log_ratios, slopes, with_gradients)
    return terms, logits, log_ratios, slopes


@pytest.mark.parametrize("n_genes", [1, 7, 64, 333])
@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_rows_equal_the_formula_in_double(n_genes, spread):
    rng = np.random.default_rng(n_genes)
    counts = rng.poisson(1.0, (20, n_genes)).astype(float)
    counts[4] = 0
    theta = np.exp(rng.normal(0, 2, n_genes)).astype(np.float32).astype(float)
    logits = rng.normal(0, spread, (20, n_genes)).astype(np.float32).astype(float)
    library = counts.sum(axis=1, keepdims=True)
    weight = np.exp(logits - logits.max(axis=1, keepdims=True))
    share = weight * theta / (weight * theta).sum(axis=1, keepdims=True)
    ratio = library * share / theta
    slope = (counts - library * share) / (1 + ratio)
    gradient = slope - share * slope.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(counts > 0, counts * (np.log(ratio) - np.log1p(ratio)), 0).sum()

    ours = work_on_rows(logits, counts, theta, with_gradients=True)
    assert ours[0] == pytest.approx(terms, rel=1e-5)
    tolerances = {"rtol": 1e-4, "atol": 1e-5 * counts.max()}
    np.testing.assert_allclose(ours[1], gradient, **tolerances)
    np.testing.assert_allclose(ours[2], np.log1p(ratio).sum(axis=0), **tolerances)
    np.testing.assert_allclose(ours[3], slope.sum(axis=0), **tolerances)


def test_last_digits_do_not_depend_on_where_memory_was_free():
    # With few genes, arrays that are allocated one after the other lie within a few registers of each other.
    rng = np.random.default_rng(0)
    counts, logits = rng.poisson(1.0, (2, 8)), -rng.gamma(1.0, 1.0, (2, 8))
    theta, peaks = rng.gamma(1.0, 1.0, 8), logits.max(axis=1).astype(np.float32)
    arrays = [logits, counts, np.full(2, 100.0), theta, np.zeros(8), np.zeros(8)]
    arrays = [torch.tensor(array, dtype=torch.float32) for array in arrays]
    results, others = set(), []
    for _ in range(20_000):
        others += [bytearray(size) for size in rng.integers(8, 400, rng.integers(6))]
        others = others[-200:]
        placed = [None] * len(arrays)
        for i in rng.permutation(len(arrays)):
            placed[i] = arrays[i].clone()
        row, count, library, scale, log_ratios, slopes = (tensor.numpy() for tensor in placed)
        terms = nb_rows(row, peaks, count, library, scale, log_ratios, slopes, True)
        results.add((terms, row.tobytes(), log_ratios.tobytes(), slopes.tobytes()))
    assert len(results) == 1


def test_rows_without_gradients_leave_slopes_alone():
    counts = np.random.default_rng(0).poisson(1.0, (5, 9))
    logits = np.zeros((5, 9))
    with_gradients = work_on_rows(logits, counts, np.ones(9), with_gradients=True)
    without = work_on_rows(logits, counts, np.ones(9), with_gradients=False)
    assert without[0] == with_gradients[0]
    np.testing.assert_array_equal(without[2], with_gradients[2])
    assert (without[3] == 0).all()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(share):
    out = factors(10**6, share)
    assert set(np.unique(out)) == {np.float32(0), np.float32(1 / (1 - share))}
    assert np.mean(out == 0) == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 1e6))


def test_dropout_elements_are_independent_of_each_other_and_of_other_seeds():
    dropped = [factors(2**18, 0.1, seed) == 0 for seed in (1, 2, 12345)]
    limit = 5 / np.sqrt(2**18)
    for lag in (1, 2, 3, 64, 128):
        assert abs(np.corrcoef(dropped[0][:-lag], dropped[0][lag:])[0, 1]) < limit
    for other in dropped[1:]:
        assert abs(np.corrcoef(dropped[0], other)[0, 1]) < limit


def test_dropout_layer_repeats_with_torchs_seed_and_rests_in_evaluation():
    layer, x = Dropout(0.1), torch.ones(64, 32, requires_grad=True)
    torch.manual_seed(3)
    first, second = layer(x), layer(x)
    torch.manual_seed(3)
    assert torch.equal(layer(x), first)
    assert not torch.equal(first, second)
    (gradient,) = torch.autograd.grad(first.sum(), x)
    assert torch.equal(gradient, first)
    assert layer.eval()(x) is x
    assert Dropout(0.0)(x) is x
