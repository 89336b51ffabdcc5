"""The training loop of Cellina, top to bottom: batches, two optimisers, early stopping, checkpoints.

Epochs are the unit of everything that must be repeatable: every epoch reseeds torch from (seed, epoch), so a
training that was killed goes on from its last checkpoint with the same numbers as one that was not.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from tissue_counterfactuals.errors import DamagedFile, InputError
from tissue_counterfactuals.files import remove
from tissue_counterfactuals.models import stored
from tissue_counterfactuals.models.likelihood import CountBatch, CountMatrix
from tissue_counterfactuals.models.settings import PUBLISHED_BATCH
from tissue_counterfactuals.streams import stream, stream_seed

# What a kill can cost at most, beside the epoch it falls into; on small slides writing takes as long as training.
CHECKPOINT_EVERY_S = 5.0
ENOUGH_STEPS = 2000


@dataclass(frozen=True)
class TrainingSettings:
    """How to train; defaults are the paper's Table A1 and scvi-tools' defaults, under the `corrected` protocol."""

    epochs: int = 100
    batch_size: int | str = "enough_steps"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-6
    adam_epsilon: float = 0.01
    kl_warmup_epochs: int = 400
    patience: int = 10
    lambda_classifier: float = 1.0
    lambda_adversary: float = 1.0
    lambda_contrastive: float = 0.0
    restore: str = "best"
    monitor: str = "reconstruction"
    precision: str = "float32"
    compile: bool = False

    @property
    def measuring_epochs(self) -> int:
        """Epochs that measure how large the losses are and take no step: the first, where any has a weight."""
        return int(max(self.lambda_classifier, self.lambda_adversary, self.lambda_contrastive) > 0)

    def beta(self, epoch: int) -> float:
        """Weight of the KL terms in an epoch: linear warm-up, never complete when epochs < kl_warmup_epochs."""
        return min(1.0, epoch / self.kl_warmup_epochs)


def resolve_device(device: str) -> torch.device:
    """`auto` takes a usable CUDA device and else the CPU; `cuda` without one is an error, never a silent fallback."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "config: device is 'cuda', and PyTorch finds no usable CUDA device here: run where one is visible, or "
            "set device to 'auto' or 'cpu'."
        )
    return torch.device(device)


def n_batches(n_cells: int, batch_size: int) -> int:
    """Optimiser steps of an epoch: batches of about the wanted size, all alike."""
    return max(1, round(n_cells / batch_size))


def save_network(network: torch.nn.Module, losses: list[float], folder: Path) -> None:
    """Leave model.pt, the weights, and history.tsv, the mean loss of every epoch."""
    table = pd.DataFrame({"epoch": np.arange(len(losses)), "train_loss": losses})
    table.to_csv(folder / "history.tsv", sep="\t", index=False, float_format="%.6g")
    torch.save(network.state_dict(), folder / "model.pt")


def resolve_batch_size(batch_size: int | str, n_train: int, epochs: int) -> int:
    """Batch size in cells, from 128 to 2,048, or the number that is given; `epochs` are those that take steps.

    Steps, not epochs, train a model: the published 2,048 gives a slide of 5,000 cells 300 steps, after which the
    spatial latent is still unused. `enough_steps` departs from 2,048 only where it would give fewer than 2,000 steps,
    as no published slide does; `auto` aims at 8,000 steps, so that larger slides get smaller batches too.
    """
    if batch_size == "enough_steps":
        exponent = np.floor(np.log2(max(1.0, n_train * epochs / ENOUGH_STEPS)))
    elif batch_size == "auto":
        exponent = np.round(np.log2(max(1.0, n_train * epochs / 8000)))
    else:
        return int(batch_size)
    return int(np.clip(2**exponent, 128, PUBLISHED_BATCH))


# How PyTorch multiplies matrices; weights, sums and all else stay in single precision.
MATRIX_PRODUCTS = {"float32": "highest", "tf32": "high", "bfloat16": "medium"}


@contextmanager
def products_in(precision: str) -> Iterator[None]:
    """Multiply matrices in a precision of `MATRIX_PRODUCTS`, where the device has units for it."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(MATRIX_PRODUCTS[precision])
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@dataclass
class Batch:
    """What one step sees of b cells; all tensors on the training device."""

    counts: CountBatch
    features: torch.Tensor  # (b, g) float32, neighbourhood means
    cell_type: torch.Tensor  # (b,) int64
    domain: torch.Tensor  # (b,) int64
    sample: torch.Tensor  # (b,) int64


class CellData:
    """Cells ready for training: counts stay CSR, neighbourhood features are dense, on the device once.

    Args:
        counts: (n, g) CSR whole counts.
        features: (n, g) float32 neighbourhood features.
        cell_type, domain, sample: (n,) integer codes.
        device: where the batches are made.
    """

    def __init__(self, counts, features, cell_type, domain, sample, device):
        self.device = device
        self.counts = CountMatrix(counts, device)
        self.features = torch.as_tensor(features, device=device)
        self._buffer = self.features[:0]
        codes = np.stack([cell_type, domain, sample]).astype(np.int64)
        self.codes = torch.as_tensor(codes, device=device)

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """What tells these cells from others, for the checkpoint: counts, features and codes as plain arrays."""
        counts = self.counts.csr
        return counts.indices, counts.data, self.features.cpu().numpy(), self.codes.cpu().numpy()

    def order(self, rng: np.random.Generator, cells: np.ndarray) -> np.ndarray:
        """The cells (n,) in the order in which an epoch's batches are cut from them."""
        return rng.permutation(cells)

    def pieces(self, cells: np.ndarray) -> list[np.ndarray]:
        """The batches in which validation cells (n,) are looked at."""
        return batches_of(cells, 2048)

    def batch(self, cells: np.ndarray) -> Batch:
        """The batch of the given cells (b,); the next call may overwrite its dense tensors (see `CountMatrix`)."""
        index = torch.as_tensor(cells, device=self.device)
        if len(self._buffer) < len(cells):
            self._buffer = self.features.new_empty(len(cells), self.features.shape[1])
        features = torch.index_select(self.features, 0, index, out=self._buffer[: len(cells)])
        return Batch(self.counts.batch(cells), features, *self.codes[:, index])


def batches_of(cells: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Consecutive batches of cells (n,); a last batch of one cell joins its neighbour, for batch normalisation needs
    two.
    """
    pieces = [cells[i : i + batch_size] for i in range(0, len(cells), batch_size)]
    if len(pieces) > 1 and len(pieces[-1]) == 1:
        pieces[-2:] = [np.concatenate(pieces[-2:])]
    return pieces


def train(
    network: torch.nn.Module,
    data: CellData,
    train_cells: np.ndarray,
    validation_cells: np.ndarray,
    settings: TrainingSettings,
    seed: int = 0,
    checkpoint: Path | None = None,
    report: Callable[[str], None] = lambda line: None,
    resumed: Callable[[float], None] = lambda seconds: None,
) -> pd.DataFrame:
    """Train a Cellina network in place.

    Loss (Cellina, section 3.2; weights as run in the authors' code): NB + beta (KL_z + KL_s)
    + lambda_c a_c CE_classifier - lambda_a a_a CE_discriminator + lambda_s a_s contrastive loss of s (with graph
    attention only), where a_j makes the terms comparable and is measured in epoch 0, which updates nothing. With all
    three weights at 0 (the ablated model) there is no such epoch.

    Args:
        network: a `CellinaNetwork`.
        data: all cells; train_cells and validation_cells index into it.
        checkpoint: file written after the first epoch, and then after every one that ends `CHECKPOINT_EVERY_S` seconds
            or more after the last; if it is there and belongs to this training, go on from it.
        report: receives one line per epoch.
        resumed: told the seconds that the epochs of the checkpoint took, where it goes on from one.

    Returns:
        One row per epoch: epoch, beta, train_loss, reconstruction, kl_z, kl_s, classifier_loss, adversary_loss,
        contrastive_loss (where it has a weight), validation_loss, validation_reconstruction, validation_kl_z,
        validation_kl_s, seconds, best.

    Raises:
        InputError: fewer than two training cells or no validation cell.
        FloatingPointError: the loss is not finite.
    """
    if len(train_cells) < 2 or len(validation_cells) < 1:
        raise InputError(
            f"training needs at least 2 training cells and 1 validation cell, and has {len(train_cells)} and "
            f"{len(validation_cells)}: use a larger slide or another holdout.validation_fraction."
        )
    terms = _TERMS if settings.lambda_contrastive > 0 else _TERMS[:-1]
    state = _State(network, settings)
    fingerprint = _fingerprint(network, settings, seed, data, train_cells, validation_cells)
    if checkpoint is not None and checkpoint.exists():
        state.restore(checkpoint, fingerprint, data.device, report)
        if state.epoch:
            resumed(sum(row["seconds"] for row in state.history))
    if settings.compile:
        for part in (network.z_encoder, network.s_encoder, network.decoder):
            part.compile()

    saved = -float("inf")
    while state.epoch < settings.epochs and state.bad_epochs < settings.patience:
        epoch, started = state.epoch, time.perf_counter()
        torch.manual_seed(stream_seed(seed, "training_noise", epoch))
        order = data.order(stream(seed, "training_order", epoch), train_cells)
        network.train()
        measuring = epoch == 0 and settings.measuring_epochs > 0
        totals, n_cells = torch.zeros(2, len(terms), device=data.device)
        with products_in(settings.precision):
            for cells in batches_of(order, settings.batch_size):
                found = _step(network, data.batch(cells), settings, state, epoch, measuring)
                totals += len(cells) * found
                n_cells += len(cells) * (found != 0)
        means = (totals / len(order)).tolist()
        if not np.isfinite(means).all():
            raise FloatingPointError(_not_finite(terms, means, epoch, measuring, data))
        row = dict(zip(terms, means, strict=True))
        if measuring:
            # Batches without a cell of another domain have no contrastive loss, and do not say how large it is.
            sizes = dict(zip(terms, (totals / n_cells.clamp(min=1)).abs().tolist(), strict=True))
            state.scale = tuple(
                row["train_loss"] / (sizes[term] + 1e-8) if sizes.get(term) else 0.0 for term in _TERMS[-3:]
            )
            if sizes.get("contrastive_loss") == 0:
                report("warning: no batch has cells of two domains, so that the contrastive loss is left out")
        row |= _validate(network, data, validation_cells, settings, seed, epoch)
        row |= {"epoch": epoch, "beta": settings.beta(epoch), "seconds": time.perf_counter() - started}
        state.finish_epoch(row)
        if checkpoint is not None and time.perf_counter() - saved >= CHECKPOINT_EVERY_S:
            state.save(checkpoint, fingerprint)
            saved = time.perf_counter()
        report(
            f"epoch {epoch + 1}/{settings.epochs}: train {row['train_loss']:.2f}, validation "
            f"{row['validation_loss']:.2f}, KL of s {row['kl_s']:.3f}, {row['seconds']:.1f} s"
        )
    if settings.restore == "best":
        network.load_state_dict(state.best_weights)
    network.eval()
    history = pd.DataFrame(state.history)
    history["best"] = history["epoch"] == state.best_epoch
    return history


_TERMS = ("train_loss", "reconstruction", "kl_z", "kl_s", "classifier_loss", "adversary_loss", "contrastive_loss")


def _not_finite(names, means, epoch, measuring, data) -> str:
    """What is known about a loss that is not finite."""
    terms = ", ".join(t for t, mean in zip(names, means, strict=True) if not np.isfinite(mean))
    highest = f"the highest count is {data.counts.csr.data.max(initial=0):g}"
    if measuring:
        cause = "no weight had been changed yet, so that the learning rate is not the cause"
    else:
        cause = "a lower learning_rate in the method's section helps if the weights have run away"
    return f"the training loss is not finite in epoch {epoch} (terms: {terms}): {cause}; {highest}"


def _step(network, batch, settings, state, epoch, measuring) -> torch.Tensor:
    """One optimiser step of adversary and model; returns the detached loss terms `_TERMS`, the last if it has a weight.

    The discriminator and the model see the same draw of z: the encoder does not change between the two steps, so one
    pass serves both (the authors ran it twice).
    """
    with torch.set_grad_enabled(not measuring):
        z, s, kl_z, kl_s, contrastive = network.encode_sampled(batch)
        zero = torch.zeros((), device=z.device)
        if settings.lambda_adversary > 0 and not measuring:
            loss = settings.lambda_adversary * F.cross_entropy(network.discriminator(z.detach()), batch.domain)
            state.adversary_optimizer.zero_grad(set_to_none=True)
            loss.backward()
            state.adversary_optimizer.step()
        reconstruction = network.reconstruction_loss(z, s, batch)
        vae_loss = reconstruction + settings.beta(epoch) * (kl_z + kl_s)
        classifier = adversary = zero
        total = vae_loss
        if settings.lambda_classifier > 0:
            classifier = F.cross_entropy(network.classifier(z), batch.cell_type)
            total = total + settings.lambda_classifier * state.scale[0] * classifier
        if settings.lambda_adversary > 0:
            network.discriminator.requires_grad_(False)
            adversary = F.cross_entropy(network.discriminator(z), batch.domain)
            total = total - settings.lambda_adversary * state.scale[1] * adversary
        terms = [vae_loss, reconstruction, kl_z, kl_s, classifier, adversary]
        if settings.lambda_contrastive > 0:
            total = total + settings.lambda_contrastive * state.scale[2] * contrastive
            terms.append(contrastive)
        if not measuring:
            state.optimizer.zero_grad(set_to_none=True)
            total.backward()
            state.optimizer.step()
        if settings.lambda_adversary > 0:
            network.discriminator.requires_grad_(True)
    return torch.stack(terms).detach()


@torch.no_grad()
def _validate(network, data, cells, settings, seed, epoch) -> dict[str, float]:
    """Validation losses with the same noise in every epoch, so that epochs differ by the weights alone.

    `validation_loss` is what early stopping watches: the reconstruction, or with the KL terms as run. A fixed KL
    weight would not do: while the weight is still small in training the KL terms rise, and would stop it at once.
    """
    network.eval()
    torch.manual_seed(stream_seed(seed, "validation_noise"))
    totals = torch.zeros(3, device=data.device)
    for piece in data.pieces(cells):
        batch = data.batch(piece)
        z, s, kl_z, kl_s, _ = network.encode_sampled(batch)
        totals += len(piece) * torch.stack([network.reconstruction_loss(z, s, batch), kl_z, kl_s])
    reconstruction, kl_z, kl_s = (totals / len(cells)).tolist()
    beta = settings.beta(epoch) if settings.monitor == "current_beta" else 0.0
    return {
        "validation_loss": reconstruction + beta * (kl_z + kl_s),
        "validation_reconstruction": reconstruction,
        "validation_kl_z": kl_z,
        "validation_kl_s": kl_s,
    }


class _State:
    """Everything that must survive between epochs."""

    def __init__(self, network, settings):
        adversary = list(network.discriminator.parameters())
        names = {id(parameter) for parameter in adversary}
        model = [p for p in network.parameters() if id(p) not in names]
        options = {
            "lr": settings.learning_rate,
            "eps": settings.adam_epsilon,
            "weight_decay": settings.weight_decay,
            "fused": True,
        }
        self.network = network
        self.optimizer = torch.optim.Adam(model, **options)
        self.adversary_optimizer = torch.optim.Adam(adversary, **options)
        self.scale = (1.0, 1.0, 1.0)
        self.epoch = self.bad_epochs = self.best_epoch = 0
        self.best_loss = float("inf")
        self.best_weights = None
        self.history = []

    def finish_epoch(self, row):
        self.history.append(row)
        if row["validation_loss"] < self.best_loss:
            self.best_loss, self.best_epoch, self.bad_epochs = (row["validation_loss"], self.epoch, 0)
            self.best_weights = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        else:
            self.bad_epochs += 1
        self.epoch += 1

    _plain = ("scale", "epoch", "bad_epochs", "best_epoch", "best_loss", "best_weights", "history")

    def save(self, path, fingerprint):
        content = {name: getattr(self, name) for name in self._plain}
        content |= {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "adversary_optimizer": self.adversary_optimizer.state_dict(),
            "fingerprint": fingerprint,
        }
        stored.save(content, path)

    def restore(self, path, fingerprint, device, report):
        try:
            content = stored.load(path, device)
        except DamagedFile as error:
            report(f"the checkpoint found cannot be read and is thrown away ({error}); training starts anew")
            remove(path)
            return
        if content.get("fingerprint") != fingerprint:
            report("the checkpoint found belongs to another training and is not used")
            return
        for name in self._plain:
            setattr(self, name, content[name])
        self.network.load_state_dict(content["network"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.adversary_optimizer.load_state_dict(content["adversary_optimizer"])
        report(f"resumed after epoch {self.epoch}")


def _fingerprint(network, settings, seed, data, train_cells, validation_cells) -> str:
    """A checkpoint is used only by the training that wrote it: same network, settings, seed, cells and data."""
    shape = {name: list(weight.shape) for name, weight in network.state_dict().items()}
    # Layers with their dropout, which no weight tells.
    digest = hashlib.sha256(json.dumps([str(network), shape, asdict(settings), seed], sort_keys=True).encode())
    for array in (*data.arrays, train_cells, validation_cells):
        digest.update(np.ascontiguousarray(array).view(np.uint8))
    return digest.hexdigest()
