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

from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from scipy import sparse, special
from torch.autograd.function import once_differentiable

# Counts up to this are looked up in the table of exceedances; it is narrower where nearly all counts are smaller.
_WIDEST_TABLE = 256
_SHARE_IN_TABLE = 0.999
# Elements of the logits worked on at a time on a CPU: 1 MB in float32, so that the four arrays of a chunk stay in L2.
_CHUNK_ELEMENTS = 2**18


@dataclass(frozen=True)
class CountBatch:
    """The counts of b cells x g genes in the forms that encoder and likelihood need, all on one device."""

    counts: torch.Tensor  # (b, g) float32
    library: torch.Tensor  # (b,) float32, total counts of each cell
    exceedances: (
        torch.Tensor
    )  # (g, k) int32: how many of the cells have more than 0, 1, .. k - 1 counts
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
        self.csr = sparse.csr_array(counts).astype(np.float32)
        self.shape = self.csr.shape
        self.device = torch.device(device)
        frequency = np.bincount(
            np.minimum(self.csr.data, _WIDEST_TABLE).astype(np.int64), minlength=1
        )
        covered = np.cumsum(frequency) >= _SHARE_IN_TABLE * self.csr.nnz
        self._n_columns = max(1, int(np.argmax(covered)))
        is_large = self.csr.data > self._n_columns
        self._large = sparse.csr_array(
            (
                self.csr.data[is_large],
                self.csr.indices[is_large],
                np.concatenate([[0], np.cumsum(is_large)])[self.csr.indptr],
            ),
            shape=self.shape,
        )
        logs = self.csr.copy()
        logs.data = special.gammaln(logs.data.astype(np.float64) + 1)
        self._log_factorials = logs.sum(axis=1)

    def batch(self, cells: np.ndarray) -> CountBatch:
        """The batch of the given cells: (b,) integer indices, in any order."""
        counts, library, exceedances = _gather(
            self.csr.indptr, self.csr.indices, self.csr.data, cells, self.shape[1], self._n_columns
        )
        large = self._large[cells]
        return CountBatch(
            counts=torch.from_numpy(counts).to(self.device),
            library=torch.from_numpy(library).to(self.device),
            exceedances=torch.from_numpy(exceedances).to(self.device),
            large_genes=torch.from_numpy(large.indices.astype(np.int64)).to(self.device),
            large_counts=torch.from_numpy(large.data.astype(np.float64)).to(self.device),
            log_factorials=float(self._log_factorials[cells].sum()),
        )


@njit(cache=True, nogil=True)
def _gather(indptr, indices, data, cells, n_genes, n_columns):
    """Dense rows, their sums, and the exceedances (see `CountBatch`) of the given rows of a CSR matrix."""
    counts = np.zeros((cells.size, n_genes), np.float32)
    library = np.zeros(cells.size, np.float32)
    exceedances = np.zeros((n_genes, n_columns), np.int32)
    for row, cell in enumerate(cells):
        for at in range(indptr[cell], indptr[cell + 1]):
            count = data[at]
            if count > 0:
                counts[row, indices[at]] = count
                library[row] += count
                exceedances[indices[at], min(np.int64(count), n_columns) - 1] += 1
    for k in range(n_columns - 1, 0, -1):
        exceedances[:, k - 1] += exceedances[:, k]
    return counts, library, exceedances


def nb_log_likelihood(
    counts: torch.Tensor, mean: torch.Tensor, theta: torch.Tensor
) -> torch.Tensor:
    """Elementwise log probability of counts under a negative binomial: the plain form, differentiable.

    Args:
        counts: whole numbers >= 0; mean: > 0, or 0 where the count is 0; theta: inverse dispersion > 0 (variance
            mean + mean^2 / theta). Any shapes that broadcast; float64 where theta may be large.
    """
    ratio = torch.log1p(mean / theta)
    gammas = torch.lgamma(counts + theta) - torch.lgamma(theta) - torch.lgamma(counts + 1)
    return gammas + torch.xlogy(counts, mean) - counts * (torch.log(theta) + ratio) - theta * ratio


def linear_nb_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    log_theta: torch.Tensor,
    batch: CountBatch,
    chunk_rows: int | None = None,
) -> torch.Tensor:
    """Mean over cells of -sum_g log NB(x; library * softmax(hidden weight' + bias), theta = exp(log_theta)).

    Exact, with exact gradients (first order) of `hidden`, `weight`, `bias` and `log_theta`; a cell without counts adds 0.
    The logits never exist as a whole: on a CPU memory is 4 chunks, whatever the batch.

    Args:
        hidden: (b, h), input of the decoder's last layer.
        weight: (g, h), bias: (g,), the last layer; log_theta: (g,), log inverse dispersion.
        batch: the counts, from `CountMatrix`.
        chunk_rows: cells worked on at a time; changes the result by rounding alone.

    Returns:
        0-d tensor in the dtype of `hidden`: float32, or float64.
    """
    inputs = (hidden, weight, bias, log_theta)
    with_gradients = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    if chunk_rows is None:
        on_cpu = hidden.device.type == "cpu"
        chunk_rows = max(16, _CHUNK_ELEMENTS // len(weight)) if on_cpu else len(hidden)
    return _LinearNB.apply(*inputs, batch, chunk_rows, with_gradients)


class _LinearNB(torch.autograd.Function):
    """`linear_nb_loss`; the forward pass already makes the gradients, the backward pass scales them."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, log_theta, batch, chunk_rows, with_gradients):
        theta = log_theta.exp()
        # Logits less log(theta): their exponentials, scaled to the library, are mu / theta without another division.
        shifted_bias = bias - log_theta
        counts = batch.counts.to(hidden.dtype)
        library = batch.library.to(hidden.dtype)
        log_ratios = torch.zeros_like(theta)
        terms = torch.zeros((), dtype=torch.float64, device=hidden.device)
        if with_gradients:
            gradients = [torch.empty_like(hidden)] + [
                torch.zeros_like(parameter) for parameter in (weight, bias, log_theta)
            ]
        buffers = hidden.new_empty(3, min(chunk_rows, len(hidden)), len(weight))

        for start in range(0, len(hidden), chunk_rows):
            rows = slice(start, start + chunk_rows)
            x, total, h = counts[rows], library[rows], hidden[rows]
            u, mu, r = buffers[:, : len(h)]
            torch.addmm(shifted_bias, h, weight.t(), out=u)
            peak = u.amax(dim=1)
            x_logits = torch.dot(x.view(-1), u.view(-1))
            u.sub_(peak[:, None]).exp_()
            scale = total / torch.mv(u, theta)
            u.mul_(scale[:, None])  # mu / theta
            torch.log1p(u, out=r)
            log_ratios += r.sum(dim=0)
            # sum of x (log(mu / theta) - log(1 + mu / theta)); a cell without counts has scale 0
            terms += x_logits - torch.dot(x.view(-1), r.view(-1))
            terms += (torch.xlogy(total, scale) - total * peak).sum()
            if with_gradients:
                torch.mul(u, theta, out=mu)
                torch.sub(x, mu, out=r).div_(u.add_(1))  # d log NB / d log(mu)
                gradients[3] += r.sum(dim=0)
                # the softmax takes the cell's mean out: mu / library is its share
                r.addcmul_(mu, (r.sum(dim=1) / total.clamp(min=1e-30))[:, None], value=-1)
                torch.mm(r, weight, out=gradients[0][rows])
                gradients[1].addmm_(r.t(), h)
                gradients[2] += r.sum(dim=0)

        theta, log_ratios = theta.double(), log_ratios.double()
        value, slope = _gamma_terms(theta, batch)
        value += terms - torch.dot(theta, log_ratios) - batch.log_factorials
        if with_gradients:
            gradients[3].copy_(slope - theta * log_ratios - gradients[3])
            ctx.n_cells = len(hidden)
            ctx.gradients = gradients
        return (-value / len(hidden)).to(hidden.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        factor = -gradient / ctx.n_cells
        return *(part * factor for part in ctx.gradients), None, None, None


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
