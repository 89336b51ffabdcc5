"""Graph attention (GATv2) over a table of neighbours: what torch_geometric's `GATv2Conv` computes, one head, no loops.

    e_ij = a' LeakyReLU(W_r x_i + W_l x_j),  out_i = sum_j softmax_j(e_ij) W_l x_j + b,  over the neighbours j of i.

Neighbours stand in a table, a row per receiving cell, so that nothing is as large as edges x width: a CPU kernel reads
the neighbours' rows where they lie, forward and backward. Elsewhere (GPU, float64) the same is gathered in plain torch.

Source: Brody et al. 2021, "How attentive are graph attention networks?", as used by Cellina-GAT.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numba import config as numba_config
from numba import njit
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

SLOPE = 0.2  # of LeakyReLU below 0
_ROWS_PER_BLOCK = 2048
# Blocks of the backward pass have sums of their own, added up in order: the result does not depend on threads.
_MOST_BLOCKS = 4
_f = np.float32
_sums = {"fastmath": {"reassoc", "contract", "nsz"}, "error_model": "numpy", "cache": True}


class GATv2(nn.Module):
    """One layer: (s, n_in) of the cells that send, (t, n_in) of those that receive -> (t, n_out).

    First values as torch_geometric's: Glorot for weights and attention, uniform biases of the two linear maps, 0
    outside.
    """

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.send, self.receive = nn.Linear(n_in, n_out), nn.Linear(n_in, n_out)
        self.attention = nn.Parameter(torch.empty(n_out))
        self.bias = nn.Parameter(torch.zeros(n_out))
        for linear in (self.send, self.receive):
            nn.init.xavier_uniform_(linear.weight)
        bound = (6 / (1 + n_out)) ** 0.5
        nn.init.uniform_(self.attention, -bound, bound)

    def forward(self, sent, asked, table) -> tuple[torch.Tensor, torch.Tensor]:
        """Output (t, n_out) and weights, as `attend`, from inputs that `send` and `receive` have mapped."""
        heard, weights = attend(sent, asked, self.attention, table)
        return heard + self.bias, weights


def attend(
    sent: torch.Tensor, asked: torch.Tensor, attention: torch.Tensor, table: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted mean of what neighbours send, and the weights.

    Args:
        sent: (s, d), W_l x of every cell that sends.
        asked: (t, d), W_r x of every cell that receives.
        attention: (d,), the vector a.
        table: (t, k) int32, rows of `sent` that each receiving cell hears; -1: no neighbour.

    Returns:
        (t, d), 0 where there is no neighbour; (t, k) weights, which add up to 1, 0 for no neighbour; they carry no
        gradient.
    """
    if sent.device.type == "cpu" and sent.dtype == torch.float32:
        return _Attend.apply(sent, asked, attention, table)
    # Edge by edge, since a table may be wide and all but empty: empty places would all read, and add to, one row.
    there = table >= 0
    heard = sent[table[there]]
    scores = F.leaky_relu(heard + asked[there.nonzero()[:, 0]], SLOPE) @ attention
    empty = torch.full(table.shape, torch.finfo(scores.dtype).min, dtype=scores.dtype, device=scores.device)
    weights = torch.softmax(empty.masked_scatter(there, scores), dim=1) * there
    # In the order of the table: the same sums each time, on a GPU too.
    parts = weights[there][:, None] * heard
    return torch.segment_reduce(parts, "sum", lengths=there.sum(dim=1), unsafe=True), weights.detach()


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx, sent, asked, attention, table):
        sent, asked, attention, table = (x.contiguous() for x in (sent, asked, attention, table))
        out, weights = torch.empty_like(asked), torch.empty(table.shape, dtype=sent.dtype)
        arrays = [x.detach().numpy() for x in (sent, asked, attention, table, out, weights)]
        starts = range(0, len(table), _ROWS_PER_BLOCK)
        _in_threads(lambda start: _forward(start, start + _ROWS_PER_BLOCK, *arrays), starts)
        ctx.save_for_backward(sent, asked, attention, table, weights)
        ctx.mark_non_differentiable(weights)
        return out, weights

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient, _):
        sent, asked, attention, table, weights = ctx.saved_tensors
        n_blocks = int(np.clip(len(table) // _ROWS_PER_BLOCK, 1, _MOST_BLOCKS))
        borders = np.linspace(0, len(table), n_blocks + 1).astype(int)
        to_sent = torch.zeros(n_blocks, *sent.shape)
        to_attention = torch.zeros(n_blocks, len(attention))
        to_asked = torch.empty_like(asked)
        inputs = (sent, asked, attention, table, weights, gradient.contiguous())
        arrays = [x.numpy() for x in inputs]

        def work(block):
            sums = to_sent[block].numpy(), to_asked.numpy(), to_attention[block].numpy()
            _backward(borders[block], borders[block + 1], *arrays, *sums)

        _in_threads(work, range(n_blocks))
        total = to_sent[0]
        for other in to_sent[1:]:
            total += other
        return total, to_asked, to_attention.sum(dim=0), None


def _in_threads(work, parts) -> None:
    if len(parts) == 1:
        work(parts[0])
        return
    threads = int(os.environ.get("OMP_NUM_THREADS") or numba_config.NUMBA_NUM_THREADS)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, parts))


@njit(**_sums)
def _score(sent, asked, attention):
    total = _f(0)
    for d in range(attention.size):
        x = sent[d] + asked[d]
        total += attention[d] * max(x, _f(SLOPE) * x)
    return total


@njit(**_sums)
def _dot(a, b):
    total = _f(0)
    for d in range(a.size):
        total += a[d] * b[d]
    return total


@njit(error_model="numpy", cache=True)
def _add_scaled(total, factor, part):
    for d in range(total.size):
        total[d] += factor * part[d]


@njit(error_model="numpy", cache=True)
def _slopes(sent, asked, out):
    for d in range(out.size):
        out[d] = _f(1) if sent[d] + asked[d] > 0 else _f(SLOPE)


@njit(error_model="numpy", cache=True)
def _add_product(total, factor, slope, part):
    for d in range(total.size):
        total[d] += factor * slope[d] * part[d]


@njit(error_model="numpy", cache=True)
def _add_activated(total, factor, slope, sent, asked):
    for d in range(total.size):
        total[d] += factor * slope[d] * (sent[d] + asked[d])


@njit(error_model="numpy", cache=True, nogil=True)
def _forward(first, last, sent, asked, attention, table, out, weights):
    for i in range(first, min(last, len(table))):
        highest = _f(-np.inf)
        for j in range(table.shape[1]):
            if table[i, j] >= 0:
                weights[i, j] = _score(sent[table[i, j]], asked[i], attention)
                highest = max(highest, weights[i, j])
        total = _f(0)
        for j in range(table.shape[1]):
            weights[i, j] = np.exp(weights[i, j] - highest) if table[i, j] >= 0 else _f(0)
            total += weights[i, j]
        out[i] = 0
        for j in range(table.shape[1]):
            if table[i, j] >= 0:
                weights[i, j] /= total
                _add_scaled(out[i], weights[i, j], sent[table[i, j]])


@njit(error_model="numpy", cache=True, nogil=True)
def _backward(first, last, sent, asked, attention, table, weights, gradient, to_sent, to_asked, to_attention):
    slope, by_weight = np.empty(sent.shape[1], np.float32), np.empty(table.shape[1], np.float32)
    for i in range(first, last):
        mean = _f(0)
        for j in range(table.shape[1]):
            if table[i, j] >= 0:
                by_weight[j] = _dot(gradient[i], sent[table[i, j]])
                mean += weights[i, j] * by_weight[j]
        to_asked[i] = 0
        for j in range(table.shape[1]):
            n = table[i, j]
            if n < 0:
                continue
            by_score = weights[i, j] * (by_weight[j] - mean)
            _slopes(sent[n], asked[i], slope)
            _add_scaled(to_sent[n], weights[i, j], gradient[i])
            _add_product(to_sent[n], by_score, slope, attention)
            _add_product(to_asked[i], by_score, slope, attention)
            _add_activated(to_attention, by_score, slope, sent[n], asked[i])
