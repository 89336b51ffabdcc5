"""The negative binomial likelihood of counts, fused with the decoder's last layer and its gradient.

log NB(x; mu, theta) = lgamma(x + theta) - lgamma(theta) - lgamma(x + 1)
                       + theta log(theta / (theta + mu)) + x log(mu / (theta + mu)),

theta the inverse dispersion of the gene, mu = library * softmax(logits) (Cellina, section 3.1). What makes it cheap:

- Counts are whole numbers, so lgamma(x + theta) - lgamma(theta) is the sum of log(theta + k) over k < x. Summed over
  a batch it needs, per gene and k, only the number of cells with more than k counts, and no gamma function at all.
- The logits (cells x genes) are made, turned into their own gradient and used up a few rows at a time, while they are
  in the cache; only the gradients of the layer's input and parameters leave it.
- log(1 + mu / theta) in place of log(theta + mu) - log(theta) keeps large theta (the Poisson limit) exact.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from scipy import sparse, special
from torch.autograd.function import once_differentiable

from tissue_counterfactuals.models.kernels import nb_rows

# Counts up to this are looked up in the table of exceedances; it is narrower where nearly all counts are smaller.
_WIDEST_TABLE = 256
_SHARE_IN_TABLE = 0.999
# Logarithms and factorials of counts up to this are kept in tables; those of higher ones are computed.
_LONGEST_TABLE = 1 << 16
# Elements of the logits worked on at a time on a CPU, and the fewest cells: enough for efficient matrix products, few
# enough for the cache. How many changes the result by rounding alone.
_CHUNK_ELEMENTS, _FEWEST_ROWS = 2**20, 16


@dataclass(frozen=True)
class CountBatch:
    """The counts of b cells x g genes in the forms that encoder and likelihood need, all on one device."""

    library: torch.Tensor  # (b,) float32, total counts of each cell
    counts: torch.Tensor  # (b, g) float32
    log_counts: torch.Tensor  # (b, g) float32, log(1 + count)
    exceedances: torch.Tensor  # (g, k) int32: number of cells with more than 0, 1, .. k - 1 counts
    large_genes: torch.Tensor  # (m,) int64: the genes of the counts greater than k ..
    large_counts: torch.Tensor  # (m,) float64: .. and these counts
    log_factorials: float  # sum of lgamma(count + 1) over the batch


class CountMatrix:
    """Counts of n cells x g genes, kept as CSR, from which batches are made.

    Args:
        counts: (n, g) CSR (or anything scipy makes one of), whole numbers >= 0.
        device: where the batches go.
    """

    def __init__(self, counts, device: torch.device | str = "cpu"):
        self.csr = sparse.csr_array(counts).astype(np.float32, copy=False)
        self.device = torch.device(device)
        self._library = self.csr.sum(axis=1, dtype=np.float64).astype(np.float32)
        highest = min(int(self.csr.data.max(initial=0)), _LONGEST_TABLE)
        some = self.csr.data[:: 1 + self.csr.nnz // 1_000_000]
        usual = np.quantile(some, _SHARE_IN_TABLE) if len(some) else 1
        self._n_columns = int(np.clip(usual, 1, _WIDEST_TABLE))
        self._logs = np.log1p(np.arange(highest + 1)).astype(np.float32)
        self._log_factorials = special.gammaln(np.arange(highest + 1) + 1.0)
        self._buffers = np.empty((2, 0, self.csr.shape[1]), np.float32)

    def batch(self, cells: np.ndarray) -> CountBatch:
        """The batch of the given cells: (b,) integer indices, in any order.

        On a CPU its dense tensors are overwritten by the next call: fresh memory of this size for every batch would
        cost more, in page faults, than to fill it.
        """
        if self._buffers.shape[1] < len(cells):
            self._buffers = np.empty((2, len(cells), self.csr.shape[1]), np.float32)
        counts, log_counts = self._buffers[:, : len(cells)]
        tables = self._logs, self._log_factorials
        rows = self.csr.indptr, self.csr.indices, self.csr.data, cells
        *others, log_factorials = _gather(*rows, *tables, self._n_columns, counts, log_counts)
        arrays = self._library[cells], counts, log_counts, *others
        tensors = [torch.from_numpy(array).to(self.device) for array in arrays]
        return CountBatch(*tensors, log_factorials)


@njit(cache=True, nogil=True)
def _gather(indptr, indices, data, cells, logs, log_factorials, n_columns, counts, log_counts):
    """Fill `counts` and `log_counts`, and return the other parts of a `CountBatch`, for the given rows of a CSR."""
    frequency = np.zeros((counts.shape[1], n_columns + 1), np.int32)
    n_stored = 0
    for cell in cells:
        n_stored += indptr[cell + 1] - indptr[cell]
    large_genes, large_counts = np.empty(n_stored, np.int64), np.empty(n_stored, np.float64)
    n_large, total = 0, 0.0
    for row, cell in enumerate(cells):
        counts[row], log_counts[row] = 0, 0
        for at in range(indptr[cell], indptr[cell + 1]):
            gene, count = indices[at], np.int64(data[at])
            counts[row, gene] = data[at]
            if count < len(logs):
                log_counts[row, gene] = logs[count]
                total += log_factorials[count]
            else:
                log_counts[row, gene] = np.log1p(np.float64(count))
                total += math.lgamma(count + 1.0)
            frequency[gene, min(count, n_columns)] += 1
            if count > n_columns:
                large_genes[n_large], large_counts[n_large] = gene, count
                n_large += 1
    exceedances = np.empty((counts.shape[1], n_columns), np.int32)
    for gene in range(counts.shape[1]):
        more = 0
        for k in range(n_columns, 0, -1):
            more += frequency[gene, k]
            exceedances[gene, k - 1] = more
    return exceedances, large_genes[:n_large], large_counts[:n_large], total


def linear_nb_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    log_theta: torch.Tensor,
    batch: CountBatch,
) -> torch.Tensor:
    """Mean over cells of -sum_g log NB(x; library * softmax(hidden weight' + bias), theta = exp(log_theta)).

    Exact, with exact gradients (first order) of `hidden`, `weight`, `bias` and `log_theta`; a cell without counts adds
    0. The logits never exist as a whole: on a CPU memory is a chunk of them (a few in float64), whatever the batch.

    Args:
        hidden: (b, h), input of the decoder's last layer.
        weight: (g, h), bias: (g,), the last layer; log_theta: (g,), log inverse dispersion.
        batch: the counts, from `CountMatrix`.

    Returns:
        0-d tensor in the dtype of `hidden`: float32, or float64.
    """
    inputs = (hidden, weight, bias, log_theta)
    with_gradients = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    on_cpu = hidden.device.type == "cpu"
    chunk_rows = max(_FEWEST_ROWS, _CHUNK_ELEMENTS // len(weight)) if on_cpu else len(hidden)
    return _LinearNB.apply(*inputs, batch, chunk_rows, with_gradients)


class _LinearNB(torch.autograd.Function):
    """`linear_nb_loss`; the forward pass already makes the gradients, the backward pass scales them."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, log_theta, batch, chunk_rows, with_gradients):
        theta = log_theta.exp()
        # Logits less log(theta): their exponentials, scaled to the library, are mu / theta without another division.
        shifted_bias = bias - log_theta
        counts, library = batch.counts.to(hidden.dtype), batch.library.to(hidden.dtype)
        log_ratios, slopes = torch.zeros_like(theta), torch.zeros_like(theta)
        in_kernel = hidden.device.type == "cpu" and hidden.dtype == torch.float32
        rows_of = _rows_in_kernel if in_kernel else _rows_in_torch
        buffer = hidden.new_empty(min(chunk_rows, len(hidden)), len(weight))
        to_hidden, to_weight, to_bias = (torch.zeros_like(x) for x in (hidden, weight, bias))
        terms = 0.0
        for start in range(0, len(hidden), chunk_rows):
            rows = slice(start, start + chunk_rows)
            h = hidden[rows]
            logits = torch.addmm(shifted_bias, h, weight.t(), out=buffer[: len(h)])
            terms += rows_of(logits, counts[rows], library[rows], theta, log_ratios, slopes, with_gradients)
            if with_gradients:
                torch.mm(logits, weight, out=to_hidden[rows])
                to_weight.addmm_(logits.t(), h)
                to_bias += logits.sum(dim=0)

        theta, log_ratios = theta.double(), log_ratios.double()
        value, slope = _gamma_terms(theta, batch)
        value += terms - torch.dot(theta, log_ratios) - batch.log_factorials
        if with_gradients:
            to_log_theta = (slope - theta * log_ratios - slopes).to(hidden.dtype)
            ctx.n_cells = len(hidden)
            ctx.gradients = to_hidden, to_weight, to_bias, to_log_theta
        return (-value / len(hidden)).to(hidden.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        factor = -gradient / ctx.n_cells
        return *(part * factor for part in ctx.gradients), None, None, None


def _rows_in_torch(logits, counts, library, theta, log_ratios, slopes, with_gradients):
    """The work on some rows, in place: what `kernels.nb_rows` does, on any device and in any precision.

    Args:
        logits: (r, g) logits less log(theta); becomes the gradient of sum log NB by the logits, where asked for.
        counts: (r, g); library: (r,); theta: (g,).
        log_ratios, slopes: (g,), to which the sums over the rows of log(1 + mu / theta) and of d log NB / d log(mu)
            are added.

    Returns:
        The sum of x (log(mu / theta) - log(1 + mu / theta)).
    """
    peak = logits.amax(dim=1)
    terms = (counts * logits).sum() - torch.dot(library, peak)
    ratio = logits.sub_(peak[:, None]).exp_()
    scale = library / torch.mv(ratio, theta)
    ratio.mul_(scale[:, None])  # mu / theta
    log_ratio = torch.log1p(ratio)
    log_ratios += log_ratio.sum(dim=0)
    terms += torch.xlogy(library, scale).sum() - (counts * log_ratio).sum()
    if with_gradients:
        mean = ratio * theta
        slope = torch.sub(counts, mean, out=log_ratio).div_(ratio.add_(1))
        slopes += slope.sum(dim=0)
        # the softmax takes the cell's mean out: mean / library is the gene's share
        excess = slope.sum(dim=1) / library.clamp(min=1e-30)
        torch.addcmul(slope, mean, excess[:, None], value=-1, out=logits)
    return terms


def _rows_in_kernel(logits, counts, library, theta, log_ratios, slopes, with_gradients):
    tensors = logits, logits.amax(dim=1), counts, library, theta, log_ratios, slopes
    return nb_rows(*(tensor.numpy() for tensor in tensors), with_gradients)


def _gamma_terms(theta: torch.Tensor, batch: CountBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum over the batch of lgamma(x + theta) - lgamma(theta), and by gene its derivative by log(theta), (g,)."""
    n_columns = batch.exceedances.shape[1]
    shifted = theta[:, None] + torch.arange(n_columns, device=theta.device)
    value = (batch.exceedances * shifted.log()).sum()
    slope = theta * (batch.exceedances / shifted).sum(dim=1)
    if len(batch.large_counts):
        theta_large = theta[batch.large_genes]
        above, below = theta_large + batch.large_counts, theta_large + n_columns
        value += (torch.lgamma(above) - torch.lgamma(below)).sum()
        steps = theta_large * (torch.digamma(above) - torch.digamma(below))
        slope.index_add_(0, batch.large_genes, steps)
    return value, slope
