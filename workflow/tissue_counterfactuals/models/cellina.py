"""Cellina: a dual-encoder variational autoencoder of a cell and its neighbourhood, in plain torch.

Intrinsic latent z from the cell's own counts, spatial latent s from the mean expression of its neighbours, one
decoder for both. A classifier keeps the cell type in z and an adversary takes the spatial domain out of it, so that
neighbours must carry what the domain does. Feeding other neighbours to s answers "what would this cell express
there?". `lambda_classifier = lambda_adversary = 0` is the paper's ablated model.

Sources: Cellina, section 3; layer shapes, initial values and optimiser as run in the authors' code (scvi-tools blocks).
"""

import itertools
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy import sparse
from torch import nn
from torch.nn import functional as F

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.graph import neighborhood_features
from tissue_counterfactuals.models import stored
from tissue_counterfactuals.models.kernels import dropout_factors
from tissue_counterfactuals.models.likelihood import linear_nb_loss
from tissue_counterfactuals.models.marginal import log_marginal
from tissue_counterfactuals.models.training import (
    Batch,
    CellData,
    TrainingSettings,
    resolve_batch_size,
    resolve_device,
    train,
)
from tissue_counterfactuals.question.folds import Split
from tissue_counterfactuals.slide import log_normalize
from tissue_counterfactuals.streams import stream_seed


class Dropout(nn.Module):
    """Sets a share of the elements to 0 and scales the others up, in training only.

    As PyTorch's, but for the mask on a CPU: PyTorch's there would take a sixth of the training step.
    """

    def __init__(self, share: float):
        super().__init__()
        self.share = share

    def extra_repr(self) -> str:
        return f"share={self.share}"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.share == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.share)
        factors = torch.empty(x.shape)
        seed = np.uint32(torch.randint(2**32, ()).item())
        n_dropped = np.uint32(round(self.share * 2**32))
        dropout_factors(seed, n_dropped, np.float32(1 / (1 - self.share)), factors.numpy().ravel())
        return x * factors


class HiddenLayers(nn.Module):
    """[linear, batch norm, ReLU, dropout] x n_layers; a sample covariate adds its own offset in every layer.

    The offset is the same as concatenating a one-hot sample to the layer's input, as scvi-tools does, its first values
    as well; with one sample there is none.
    """

    def __init__(self, n_in: int, n_hidden: int, n_layers: int, dropout: float, n_samples: int):
        super().__init__()
        widths = [n_in] + [n_hidden] * n_layers
        self.linear = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.norm = nn.ModuleList(nn.BatchNorm1d(n_hidden, momentum=0.01, eps=1e-3) for _ in range(n_layers))
        self.offset = nn.ModuleList(nn.Embedding(n_samples, n_hidden) for _ in range(n_layers if n_samples > 1 else 0))
        for linear, offset in zip(self.linear, self.offset, strict=False):
            # A linear layer of n inputs begins uniform from -1/sqrt(n) to 1/sqrt(n), whichever the input.
            bound = (linear.in_features + n_samples) ** -0.5
            for values in (linear.weight, linear.bias, offset.weight):
                nn.init.uniform_(values, -bound, bound)
        self.dropout = Dropout(dropout)

    def forward(self, x: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        """(b, n_hidden) from x (b, n_in) and codes of samples (b,)."""
        for i, (linear, norm) in enumerate(zip(self.linear, self.norm, strict=True)):
            x = linear(x)
            if self.offset:
                x = x + self._offset(i, sample)
            x = self.dropout(torch.relu_(norm(x)))
        return x

    def _offset(self, i: int, sample: torch.Tensor) -> torch.Tensor:
        """A sample that was never trained on (-1) has the mean of the offsets of those that were."""
        if self.training:
            return self.offset[i](sample)
        weight = self.offset[i].weight
        return torch.cat([weight, weight.mean(0, keepdim=True)])[sample]


@dataclass(frozen=True)
class Gaussian:
    """Independent normal distributions: mean and variance, each (b, n_latent)."""

    mean: torch.Tensor
    variance: torch.Tensor

    def sample(self) -> torch.Tensor:
        """One draw (b, n_latent), differentiable by mean and variance."""
        return torch.addcmul(self.mean, self.variance.sqrt(), torch.randn_like(self.mean))

    def mean_kl(self) -> torch.Tensor:
        """KL divergence from N(0, I) in nats, summed over dimensions and averaged over cells; a scalar."""
        total = (self.mean.square() + self.variance - self.variance.log()).sum()
        return 0.5 * (total / len(self.mean) - self.mean.shape[1])


class Encoder(nn.Module):
    """Hidden layers, then mean and variance (exp + 1e-4) of a Gaussian latent."""

    def __init__(self, n_in: int, n_latent: int, n_hidden: int, n_layers: int, dropout: float, n_samples: int):
        super().__init__()
        self.hidden = HiddenLayers(n_in, n_hidden, n_layers, dropout, n_samples)
        self.mean = nn.Linear(n_hidden, n_latent)
        self.log_variance = nn.Linear(n_hidden, n_latent)

    def forward(self, x: torch.Tensor, sample: torch.Tensor) -> Gaussian:
        """The posterior of cells from x (b, n_in) and codes of samples (b,)."""
        hidden = self.hidden(x, sample)
        return Gaussian(self.mean(hidden), torch.exp(self.log_variance(hidden)) + 1e-4)


def classifier(n_in: int, n_hidden: int, n_layers: int, n_classes: int) -> nn.Sequential:
    """[linear, batch norm, ReLU, dropout 0.1] x n_layers, then the classes' logits."""
    layers = []
    for i in range(n_layers):
        layers += [nn.Linear(n_in if i == 0 else n_hidden, n_hidden)]
        layers += [nn.BatchNorm1d(n_hidden, momentum=0.01, eps=1e-3), nn.ReLU(), Dropout(0.1)]
    return nn.Sequential(*layers, nn.Linear(n_hidden, n_classes))


class Encoded(NamedTuple):
    """What a training step needs of the latents of b cells."""

    z: torch.Tensor  # (b, n_latent), one draw
    s: torch.Tensor
    kl_z: torch.Tensor  # mean KL divergence per cell from N(0, I), 0-d
    kl_s: torch.Tensor
    contrastive: torch.Tensor | None = None  # loss of s, 0-d, with graph attention in training


class CellinaNetwork(nn.Module):
    """The network alone: encoders, decoder, classifier and discriminator.

    Shapes: b cells, g genes, `n_latent` dimensions for each of z and s.
    """

    spatial_encoder = Encoder

    def __init__(
        self,
        n_genes: int,
        n_types: int,
        n_domains: int,
        n_samples: int = 1,
        n_hidden: int = 128,
        n_layers: int = 2,
        n_latent: int = 64,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.z_encoder = Encoder(n_genes, n_latent, n_hidden, n_layers, dropout, n_samples)
        self.s_encoder = self.spatial_encoder(n_genes, n_latent, n_hidden, n_layers, dropout, n_samples)
        self.decoder = HiddenLayers(2 * n_latent, n_hidden, n_layers, 0.0, n_samples)
        self.logits = nn.Linear(n_hidden, n_genes)
        self.log_theta = nn.Parameter(torch.randn(n_genes))
        self.classifier = classifier(n_latent, 128, 1, n_types)
        self.discriminator = classifier(n_latent, 32, 2, n_domains)

    def encode(self, batch: Batch) -> tuple[Gaussian, Gaussian]:
        """Posteriors of z, from the log of the counts, and of s, from the neighbourhood features."""
        q_z = self.z_encoder(batch.counts.log_counts, batch.sample)
        return q_z, self.s_encoder(batch.features, batch.sample)

    def encode_sampled(self, batch: Batch) -> Encoded:
        """Draws of z and s, and how far they are from the prior."""
        q_z, q_s = self.encode(batch)
        return Encoded(q_z.sample(), q_s.sample(), q_z.mean_kl(), q_s.mean_kl())

    def decode(self, z, s, sample) -> torch.Tensor:
        """Shares (b, g) of the genes in the library."""
        return torch.softmax(self.logits(self._decode_hidden(z, s, sample)), dim=1)

    def reconstruction_loss(self, z, s, batch: Batch) -> torch.Tensor:
        """Mean negative log likelihood per cell (negative binomial, summed over genes)."""
        hidden = self._decode_hidden(z, s, batch.sample)
        return linear_nb_loss(hidden, self.logits.weight, self.logits.bias, self.log_theta, batch.counts)

    def log_likelihood(self, batch: Batch) -> Callable[[torch.Tensor], torch.Tensor]:
        """From z and s side by side (b, 2 n_latent) to the log probability (b,) of the batch's counts.

        What does not depend on the latents, the gamma functions, is computed once.
        """
        counts, theta = batch.counts.counts, self.log_theta.exp()
        gammas = torch.lgamma(counts + theta) - torch.lgamma(theta) - torch.lgamma(counts + 1)
        constant = gammas.sum(dim=1)
        log_library = batch.counts.library.clamp(min=1e-30).log()[:, None]

        def of(latent: torch.Tensor) -> torch.Tensor:
            z, s = latent.chunk(2, dim=1)
            logits = self.logits(self._decode_hidden(z, s, batch.sample))
            # log of mean / theta
            ratio = torch.log_softmax(logits, dim=1) + log_library - self.log_theta
            return constant + (counts * ratio - (counts + theta) * F.softplus(ratio)).sum(dim=1)

        return of

    def _decode_hidden(self, z, s, sample) -> torch.Tensor:
        return self.decoder(torch.cat([z, s], dim=1), sample)


class Cellina:
    """Fit on a slide, then predict cells under their own or any other neighbourhood.

    Args:
        n_hidden, n_layers, n_latent, dropout: shape of the network (paper, Table A1).
        device: `auto`, `cpu` or `cuda`.
        training: any field of `TrainingSettings`.
    """

    network_class, settings_class = CellinaNetwork, TrainingSettings

    def __init__(
        self,
        n_hidden: int = 128,
        n_layers: int = 2,
        n_latent: int = 64,
        dropout: float = 0.1,
        device: str = "auto",
        **training,
    ):
        self.shape = {"n_hidden": n_hidden, "n_layers": n_layers, "n_latent": n_latent, "dropout": dropout}
        self.settings = self.settings_class(**training)
        self.device = resolve_device(device)
        self.network: CellinaNetwork | None = None
        self.history: pd.DataFrame | None = None
        self.categories: dict[str, list[str]] = {}
        self.genes: list[str] = []
        self.new_samples = False

    def fit(
        self,
        slide: AnnData,
        graph: sparse.csr_array,
        holdout: Split,
        seed: int = 0,
        checkpoint: Path | None = None,
        report: Callable[[str], None] = lambda line: None,
        resumed: Callable[[float], None] = lambda seconds: None,
    ) -> "Cellina":
        """Train on the slide's training cells.

        Args:
            slide: raw counts, n cells x g genes, in the slide contract.
            graph: (n, n) graph in which held-out cells have no edges.
            holdout: who trains and validates; held-out cells are not even looked at.
            checkpoint: file for resuming at an epoch border.
            report: receives one line per epoch.
            resumed: told the seconds that earlier epochs took, where it goes on from the checkpoint.
        """
        cells = np.flatnonzero(~holdout.held_out)
        self.genes = list(slide.var_names)
        self.categories = {
            key: sorted(slide.obs[key].iloc[cells].astype(str).unique()) for key in ("cell_type", "domain", "sample")
        }
        codes = {key: self._codes(slide, key)[cells] for key in self.categories}
        train_cells = np.flatnonzero(holdout.train[cells])
        steps = self.settings.epochs - self.settings.measuring_epochs
        size = resolve_batch_size(self.settings.batch_size, len(train_cells), steps)
        self.settings = replace(self.settings, batch_size=size)
        data = self._training_data(slide, graph, cells, codes)
        with torch.random.fork_rng():
            torch.manual_seed(stream_seed(seed, "initial_weights"))
            self.network = self._new_network()
            self.history = train(
                self.network,
                data,
                train_cells,
                np.flatnonzero(holdout.validation[cells]),
                self.settings,
                seed,
                checkpoint,
                report,
                resumed,
            )
        return self

    def predict(
        self, slide: AnnData, cells: np.ndarray, features: np.ndarray, latent: str = "mean", seed: int = 0
    ) -> np.ndarray:
        """Expected counts (m, g) float32 of cells at their own observed library.

        Args:
            cells: indices (m,) into the slide.
            features: (m, g) neighbourhood features, real or counterfactual, on the scale of training.
            latent: `mean` decodes the posterior means, `sample` one draw of z and s (as run).
            seed: of the draws.
        """
        outputs = []
        with torch.inference_mode(), torch.random.fork_rng():
            torch.manual_seed(stream_seed(seed, "predicted_latents"))
            for batch in self._batches(slide, cells, features):
                q_z, q_s = self.network.encode(batch)
                z, s = (q.sample() if latent == "sample" else q.mean for q in (q_z, q_s))
                share = self.network.decode(z, s, batch.sample)
                outputs.append((share * batch.counts.library[:, None]).cpu().numpy())
        return np.concatenate(outputs)

    @property
    def dispersion(self) -> np.ndarray:
        """a (g,) in the variance m + a m^2 of the counts about what `predict` gives."""
        return np.exp(-self.network.log_theta.detach().cpu().numpy().astype(float))

    @torch.inference_mode()
    def latents(
        self, slide: AnnData, cells: np.ndarray, features: np.ndarray, latent: str = "mean", seed: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """z and s, each (m, n_latent) float32: posterior means, or with `latent` `sample` one draw (as run).

        `cells` (m,) are indices into the slide, `features` (m, g) what stands around each.
        """
        drawn = []
        with torch.random.fork_rng():
            torch.manual_seed(stream_seed(seed, "drawn_latents"))
            for batch in self._batches(slide, cells, features):
                posteriors = self.network.encode(batch)
                both = (q.sample() if latent == "sample" else q.mean for q in posteriors)
                drawn.append([x.cpu().numpy() for x in both])
        z, s = (np.concatenate(part) for part in zip(*drawn, strict=True))
        return z, s

    @torch.inference_mode()
    def marginal_log_likelihood(
        self, slide: AnnData, cells: np.ndarray, features: np.ndarray, n_samples: int = 500, seed: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """log p(counts) of cells in nats, given their neighbourhood, and the effective number of draws; each (m,)
        float64.

        By importance sampling, see `marginal.log_marginal`; `cells` and `features` as in `latents`.
        """
        found = []
        with torch.random.fork_rng():
            torch.manual_seed(stream_seed(seed, "marginal_likelihood"))
            for batch in self._batches(slide, cells, features):
                q_z, q_s = self.network.encode(batch)
                mean, variance = (torch.cat(x, dim=1) for x in ((q_z.mean, q_s.mean), (q_z.variance, q_s.variance)))
                parts = log_marginal(mean, variance, self.network.log_likelihood(batch), n_samples)
                found.append([x.cpu().numpy() for x in parts])
        values, effective = (np.concatenate(part) for part in zip(*found, strict=True))
        return values, effective

    @torch.inference_mode()
    def kl_per_cell(self, slide: AnnData, cells: np.ndarray, features: np.ndarray) -> tuple[float, float]:
        """Mean KL divergence from the prior of z and of s, in nats per cell: 0 means that a latent says nothing.

        `cells` (m,) and `features` (m, g) as in `predict`.
        """
        totals = np.zeros(2)
        for batch in self._batches(slide, cells, features):
            posteriors = self.network.encode(batch)
            totals += [len(batch.sample) * float(q.mean_kl()) for q in posteriors]
        return tuple(totals / len(cells))

    def save(self, path: Path) -> None:
        """Write weights, settings, genes and labels to one file."""
        content = {
            "shape": self.shape,
            "settings": asdict(self.settings),
            "categories": self.categories,
            "genes": self.genes,
            "network": self.network.state_dict(),
        }
        stored.save(content, path)

    @classmethod
    def load(cls, path: Path, device: str = "auto", new_samples: bool = False) -> "Cellina":
        """Read a model that `save` wrote, on any device.

        Args:
            new_samples: whether it may be asked about samples that it was not trained on; else they are refused.

        Raises:
            DamagedFile: it is not what `save` wrote.
        """
        content = stored.load(path, resolve_device(device))
        model = cls(**content["shape"], device=device, **content["settings"])
        model.categories, model.genes = content["categories"], content["genes"]
        model.new_samples = new_samples
        model.network = model._new_network()
        model.network.load_state_dict(content["network"])
        model.network.eval()
        return model

    def _new_network(self) -> nn.Module:
        return self.network_class(len(self.genes), *self._sizes(), **self.shape).to(self.device)

    def _training_data(self, slide, graph, cells, codes) -> CellData:
        features = neighborhood_features(graph[cells], log_normalize(slide.X))
        return CellData(slide.X[cells], features, **codes, device=self.device)

    def _sizes(self) -> tuple[int, int, int]:
        return tuple(len(self.categories[key]) for key in ("cell_type", "domain", "sample"))

    def _codes(self, slide: AnnData, key: str) -> np.ndarray:
        """Position of each cell's label among the categories of training; -1 for a label never seen."""
        return pd.Index(self.categories[key]).get_indexer(slide.obs[key].astype(str))

    def _batches(self, slide: AnnData, cells: np.ndarray, features: np.ndarray):
        """Batches of the given cells with the given neighbourhood features, in order."""
        data = CellData(slide.X[cells], features, *self._checked_codes(slide, cells), self.device)
        for piece in np.array_split(np.arange(len(cells)), max(1, -(-len(cells) // 4096))):
            yield data.batch(piece)

    def _checked_codes(self, slide: AnnData, cells: np.ndarray) -> list[np.ndarray]:
        """Codes of type, domain and sample, each (m,), of cells to predict.

        Raises:
            InputError: other genes than in training, or a sample that was not seen.
        """
        if list(slide.var_names) != self.genes:
            raise InputError(
                "the slide's genes are not those that the model was trained on: prepare both with the same settings."
            )
        samples = self._codes(slide, "sample")[cells]
        if (samples < 0).any() and not self.new_samples:
            unseen = slide.obs["sample"].iloc[cells[np.argmax(samples < 0)]]
            raise InputError(f"sample {unseen!r} was not seen in training: fit the model on it too.")
        codes = [self._codes(slide, key)[cells] for key in ("cell_type", "domain")]
        return [*codes, samples]
