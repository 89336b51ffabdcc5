"""Cellina-GAT: Cellina whose spatial latent is read from the neighbours one by one, by graph attention.

Three GATv2 layers go from the expression of a cell's surroundings to its s; a contrastive loss pulls the s of
neighbours together and pushes the s of other domains away. Everything else (z, decoder, heads, training) is Cellina's.

Layers have no loops, so what a cell holds after a layer is what its neighbours held before it, and s depends on cells
exactly three steps away, neighbours of neighbours of neighbours. Batches therefore are patches of neighbouring cells,
which depend on much the same surroundings; random batches would depend on most of the slide, at each step.

Source: Cellina, appendix D.2 and D.3; layer norm, activation, dropout and first values as run in the authors' code.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from anndata import AnnData
from numba import njit
from scipy import sparse
from torch import nn
from torch.nn import functional as F

from tissue_counterfactuals.models.attention import GATv2
from tissue_counterfactuals.models.cellina import Cellina, CellinaNetwork, Dropout, Encoded, Gaussian
from tissue_counterfactuals.models.likelihood import CountMatrix
from tissue_counterfactuals.models.receptive_field import FIELDS, ReceptiveField, in_patches
from tissue_counterfactuals.models.training import Batch, CellData, TrainingSettings, batches_of
from tissue_counterfactuals.slide import log_normalize
from tissue_counterfactuals.streams import stream

# Rows of dense inputs at a time where no gradient needs them all.
_CHUNK = 8192
# Cells that are predicted together; their surroundings overlap, so that more is faster.
_PREDICTED_TOGETHER = 4096


@dataclass(frozen=True)
class GATSettings(TrainingSettings):
    """How to train; defaults are the paper's Table A1, under the `corrected` protocol.

    Attributes:
        lambda_contrastive, temperature: weight and temperature of the contrastive loss of s.
        patch_cells: cells of a batch that are neighbours of one another; 1: batches of random cells.
        field: `hops`, all cells within as many steps as there are layers; `induced`, a batch and its neighbours as one
            small graph, in which all layers stay.
        edges: whom a cell hears: its own `nearest` cells; `transposed`, those that it is among the nearest of;
            `symmetric`, both.
        inputs: `log1p` of counts per 10,000, or of raw counts (`log_counts`).
    """

    batch_size: int | str = 256
    weight_decay: float = 1e-4
    lambda_contrastive: float = 1.0
    temperature: float = 0.25
    patch_cells: int = 16
    field: str = "hops"
    edges: str = "nearest"
    inputs: str = "log1p"


@dataclass(frozen=True)
class Surroundings:
    """Who stands around whom in a tissue of n cells, and what they express.

    Attributes:
        graph: (n, n); row v holds the neighbours of v. Weights are not read.
        expression: (n, g) CSR on the scale of training (`CellinaGAT.inputs`).
        own: (n, g) what decides whom a cell attends to, if not what it sends.
    """

    graph: sparse.csr_array
    expression: sparse.csr_array
    own: sparse.csr_array | None = None

    def moved(self, focal: np.ndarray, donors: np.ndarray, both_ways: bool) -> "Surroundings":
        """The same tissue with all edges of the focal cells (m,) cut, and the donors (m, d) around them instead.

        Args:
            both_ways: donors hear the focal cells too; else they are changed only by what they no longer hear.
        """
        n = self.graph.shape[0]
        stays = np.ones(n, np.float32)
        stays[focal] = 0
        kept = sparse.diags_array(stays) @ self.graph @ sparse.diags_array(stays)
        ends = np.stack([np.repeat(focal, donors.shape[1]), donors.ravel()])
        ends = ends[:, ends[0] != ends[1]]
        if both_ways:
            ends = np.concatenate([ends, ends[::-1]], axis=1)
        new = sparse.csr_array((np.ones(ends.shape[1], np.float32), tuple(ends)), shape=(n, n))
        return replace(self, graph=_neighbors(kept + new))

    def altered(self, expression: sparse.csr_array, focal: np.ndarray) -> "Surroundings":
        """The same tissue where cells express otherwise (n, g), and the focal cells (m,) attend as who they are.

        All focal cells do, also those that another one hears, so that no answer depends on who is predicted beside.
        """
        stays = np.zeros(self.graph.shape[0], np.float32)
        stays[focal] = 1
        own = sparse.diags_array(stays) @ self.expression + sparse.diags_array(1 - stays) @ expression
        return replace(self, expression=expression, own=sparse.csr_array(own))


def _neighbors(graph: sparse.csr_array) -> sparse.csr_array:
    """The pattern of a graph: sorted, without stored zeros."""
    graph = sparse.csr_array(graph, copy=True)
    graph.eliminate_zeros()
    graph.sort_indices()
    return graph


@dataclass(frozen=True)
class Inputs:
    """Expression of the cells of a receptive field, made dense only when a layer reads it."""

    rows: sparse.csr_array  # (n, g)
    cells: np.ndarray  # (u,)
    device: torch.device
    buffer: np.ndarray  # (at least u or a chunk, g) float32; overwritten by whoever is dense next

    def pieces(self):
        """Dense tensors that follow one another: all cells at once in training, else some at a time."""
        step = max(1, len(self.cells)) if torch.is_grad_enabled() else _CHUNK
        for start in range(0, len(self.cells), step):
            cells = self.cells[start : start + step]
            out = self.buffer[: len(cells)]
            if len(out) < len(cells):
                out = np.empty((len(cells), self.rows.shape[1]), np.float32)
            _dense(self.rows.indptr, self.rows.indices, self.rows.data, cells, out)
            yield torch.from_numpy(out).to(self.device)


@njit(cache=True, nogil=True)
def _dense(indptr, indices, data, rows, out):
    for i, row in enumerate(rows):
        out[i] = 0
        for e in range(indptr[row], indptr[row + 1]):
            out[i, indices[e]] = data[e]


class TissueData(CellData):
    """Cells ready for training or prediction with their surroundings: counts, expression and graph stay sparse.

    Args:
        counts: (n, g) CSR. around: who hears whom (see `GATSettings.edges`), and what is heard.
        cell_type, domain, sample: (n,) codes. coords: (n, 2).
        settings: field, batch size and patches. n_layers: of attention.
    """

    def __init__(
        self, counts, around: Surroundings, cell_type, domain, sample, coords, settings, n_layers, device
    ):  # fmt: skip
        self.device, self.around, self.coords = device, around, coords
        self.settings, self.n_layers = settings, n_layers
        self.counts = CountMatrix(counts, device)
        codes = np.stack([cell_type, domain, sample]).astype(np.int64)
        self.codes = torch.as_tensor(codes, device=device)
        self._buffer = np.empty((0, counts.shape[1]), np.float32)

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        graph, expression = self.around.graph, self.around.expression
        counts = self.counts.csr
        return (
            *(counts.indices, counts.data, graph.indptr, graph.indices, expression.data),
            *(self.codes.cpu().numpy(), self.coords),
        )

    def order(self, rng: np.random.Generator, cells: np.ndarray) -> np.ndarray:
        sample = self.codes[2].cpu().numpy()[cells]
        return cells[in_patches(rng, self.coords[cells], sample, self.settings.patch_cells)]

    def pieces(self, cells: np.ndarray) -> list[np.ndarray]:
        if self.settings.field == "induced":
            return batches_of(cells, self.settings.batch_size)
        sample = self.codes[2].cpu().numpy()[cells]
        order = in_patches(stream(0, "validation_patches"), self.coords[cells], sample, 2048)
        return batches_of(cells[order], 2048)

    def batch(self, cells: np.ndarray) -> Batch:
        around = self.around
        field = FIELDS[self.settings.field](around.graph, cells, self.n_layers)
        if torch.is_grad_enabled() and len(self._buffer) < len(field.cells):
            self._buffer = np.empty((len(field.cells), around.expression.shape[1]), np.float32)
        inputs = Inputs(around.expression, field.cells, self.device, self._buffer)
        codes = self.codes[:, torch.as_tensor(cells, device=self.device)]
        own = None
        if around.own is not None:
            own = Inputs(around.own, field.cells[: field.n_receiving[0]], self.device, self._buffer[:0])
        table = field.table.to(self.device)
        domain = self.codes[1, torch.as_tensor(field.cells, device=self.device)]
        return Batch(self.counts.batch(cells), Surrounded(inputs, table, field, domain, own), *codes)


@dataclass(frozen=True)
class Surrounded:
    """What a batch of b cells hears: inputs, table of neighbours, domains (u,) of the cells that are heard."""

    inputs: Inputs
    table: torch.Tensor
    field: ReceptiveField
    domain: torch.Tensor
    own: Inputs | None = None


class AttentionEncoder(nn.Module):
    """Graph attention layers, then mean and variance (exp + 1e-4) of a Gaussian latent.

    After each layer: layer norm (not after the last), ReLU, dropout. A sample covariate has no place here.
    """

    def __init__(self, n_in: int, n_latent: int, n_hidden: int, n_layers: int, dropout: float, n_samples: int):
        super().__init__()
        self.layers = nn.ModuleList(GATv2(n_hidden if i else n_in, n_hidden) for i in range(n_layers))
        self.norm = nn.ModuleList(nn.LayerNorm(n_hidden) for _ in range(n_layers - 1))
        self.dropout = Dropout(dropout)
        self.mean = nn.Linear(n_hidden, n_latent)
        self.log_variance = nn.Linear(n_hidden, n_latent)

    def states(self, around: Surrounded) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """What the last layer holds of its cells, the batch first (c, n_hidden); and the weights (t, k) in each
        layer.
        """
        hidden, weights = None, []
        for i, (layer, n) in enumerate(zip(self.layers, around.field.n_receiving, strict=True)):
            if hidden is None:
                sent, asked = self._read(layer, around, n)
            else:
                sent, asked = layer.send(hidden), layer.receive(hidden[:n])
            hidden, attention = layer(sent, asked, around.table[:n])
            weights.append(attention)
            if i < len(self.norm):
                hidden = self.norm[i](hidden)
            hidden = self.dropout(torch.relu(hidden))
        return hidden, weights

    def _read(self, layer, around, n):
        """The first layer's maps of the inputs: (u, n_hidden) sent and (n, n_hidden) asked."""
        sent, asked, seen = [], [], 0
        for piece in around.inputs.pieces():
            sent.append(layer.send(piece))
            asked.append(layer.receive(piece[: max(0, n - seen)]))
            seen += len(piece)
        if around.own is not None:
            asked = [layer.receive(piece) for piece in around.own.pieces()]
        return torch.cat(sent), torch.cat(asked)

    def forward(self, around: Surrounded, n_cells: int) -> tuple[Gaussian, torch.Tensor]:
        """Posterior of s of the batch, and the means (c, n_latent) of all cells that the last layer computes."""
        states = self.states(around)[0]
        means = self.mean(states)
        log_variance = self.log_variance(states[:n_cells])
        return Gaussian(means[:n_cells], torch.exp(log_variance) + 1e-4), means


def contrastive_loss(
    means: torch.Tensor, domain: torch.Tensor, table: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Neighbours alike, other domains unlike: log sum exp over P and N of cosine / temperature, less its mean over P.

    P are a cell's neighbours, N the cells of another domain that are none. Averaged over the cells that have both; 0
    where none has.

    Args:
        means: (c, n_latent), the first b of them of the batch.
        domain: (c,) codes. table: (b, k) positions of neighbours; those outside 0 .. c - 1 are not here.
    """
    b, c = len(table), len(means)
    outside = (table < 0) | (table >= c)
    near = torch.zeros(b, c + 1, dtype=torch.bool, device=means.device)
    near.scatter_(1, table.long().masked_fill(outside, c), True)
    near = near[:, :c]
    far = (domain[:b, None] != domain[None, :c]) & ~near
    both = near.any(dim=1) & far.any(dim=1)
    if not both.any():
        return means.sum() * 0
    near, far = near[both], far[both]
    unit = F.normalize(means, dim=1)
    likeness = unit[:b][both] @ unit.t() / temperature
    total = likeness.masked_fill(~(near | far), -torch.inf).logsumexp(dim=1)
    return (total - (likeness * near).sum(dim=1) / near.sum(dim=1)).mean()


class CellinaGATNetwork(CellinaNetwork):
    """Cellina's network with graph attention for s."""

    spatial_encoder = AttentionEncoder
    temperature = GATSettings.temperature

    def encode(self, batch: Batch) -> tuple[Gaussian, Gaussian]:
        """Posteriors of z, from the log of the counts, and of s, from the surroundings."""
        q_z = self.z_encoder(batch.counts.log_counts, batch.sample)
        return q_z, self.s_encoder(batch.features, len(batch.sample))[0]

    def encode_sampled(self, batch: Batch) -> Encoded:
        """Draws of z and s, how far they are from the prior, and in training the contrastive loss of s."""
        q_z = self.z_encoder(batch.counts.log_counts, batch.sample)
        q_s, means = self.s_encoder(batch.features, n := len(batch.sample))
        contrastive = None
        if self.training:
            # The cells that are there as surroundings only are targets that do not move.
            means = torch.cat([means[:n], means[n:].detach()])
            around = batch.features
            domain = around.domain[: len(means)]
            contrastive = contrastive_loss(means, domain, around.table[:n], self.temperature)
        return Encoded(q_z.sample(), q_s.sample(), q_z.mean_kl(), q_s.mean_kl(), contrastive)


class CellinaGAT(Cellina):
    """Fit on a slide, then predict cells in their own or any other surroundings.

    As `Cellina`, with `Surroundings` where that takes features: `fit(slide, graph, holdout)`, then
    `predict(slide, cells, model.surroundings(graph, slide.X))`.

    Args:
        n_hidden, n_layers, n_latent, dropout: shape of the network (paper, Table A1).
        training: any field of `GATSettings`.
    """

    network_class, settings_class = CellinaGATNetwork, GATSettings

    def __init__(self, n_hidden=128, n_layers=3, n_latent=64, dropout=0.1, device="auto", **training):
        super().__init__(n_hidden, n_layers, n_latent, dropout, device, **training)

    def surroundings(self, graph: sparse.csr_array, counts: sparse.csr_matrix) -> Surroundings:
        """Who hears whom, and what, as this model was trained.

        Args:
            graph: (n, n) graph of each cell's own nearest cells, without the held-out cells.
            counts: (n, g).
        """
        return Surroundings(self.heard(graph), self.inputs(counts))

    def heard(self, graph: sparse.csr_array) -> sparse.csr_array:
        """(n, n): row v holds whom v hears."""
        if self.settings.edges != "nearest":
            reverse = sparse.csr_array(graph.T)
            graph = reverse if self.settings.edges == "transposed" else graph.maximum(reverse)
        return _neighbors(graph)

    def inputs(self, counts: sparse.csr_matrix) -> sparse.csr_array:
        """(n, g) what a cell sends, from its counts."""
        if self.settings.inputs == "log1p":
            return sparse.csr_array(log_normalize(counts))
        counts = sparse.csr_array(counts, dtype=np.float32, copy=True)
        counts.data = np.log1p(counts.data)
        return counts

    @torch.inference_mode()
    def attention(self, slide: AnnData, cells: np.ndarray, around: Surroundings) -> tuple[np.ndarray, np.ndarray]:
        """Whom cells listen to: neighbours (m, k) int32, -1 for none, and weights (m, k, layers) float32.

        The last layer hears the neighbours after two rounds of listening of their own; the first hears their
        expression.
        """
        found = []
        for batch in self._batches(slide, cells, around):
            n, field = len(batch.sample), batch.features.field
            weights = torch.stack([w[:n] for w in self.network.s_encoder.states(batch.features)[1]])
            table = field.table[:n].numpy()
            named = np.where(table < 0, -1, field.cells[table]).astype(np.int32)
            found.append((named, weights.permute(1, 2, 0).cpu().numpy()))
        widest = max(named.shape[1] for named, _ in found)
        wider = [((0, 0), (0, widest - named.shape[1])) for named, _ in found]
        names = [np.pad(x, w, constant_values=-1) for (x, _), w in zip(found, wider, strict=True)]
        weights = [np.pad(x, (*w, (0, 0))) for (_, x), w in zip(found, wider, strict=True)]
        return np.concatenate(names), np.concatenate(weights)

    def _new_network(self) -> nn.Module:
        network = super()._new_network()
        network.temperature = self.settings.temperature
        return network

    def _training_data(self, slide, graph, cells, codes) -> TissueData:
        around = self.surroundings(graph[cells][:, cells], slide.X[cells])
        coords = np.asarray(slide.obsm["spatial"])[cells]
        return self._data(slide.X[cells], around, *codes.values(), coords)

    def _data(self, counts, around, *labels) -> TissueData:
        return TissueData(counts, around, *labels, self.settings, self.shape["n_layers"], self.device)

    def _batches(self, slide: AnnData, cells: np.ndarray, around: Surroundings):
        """Batches of the given cells in the given surroundings, in order."""
        labels = np.full((3, slide.n_obs), -1)
        labels[:, cells] = self._checked_codes(slide, cells)
        data = self._data(slide.X, around, *labels, np.asarray(slide.obsm["spatial"]))
        together = _PREDICTED_TOGETHER
        if self.settings.field == "induced":
            together = self.settings.batch_size
        for start in range(0, len(cells), together):
            yield data.batch(cells[start : start + together])
