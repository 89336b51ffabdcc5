"""CONCERT, re-implemented: expression from a free vector per cell and attribute vectors, smoothed by a Gaussian
process.

The published package is on no package index; this is written from descriptions of the method, not from its code. Every
cell has a vector of its own (its basal state) and shares that of its tissue domain; a network makes of them the mean
and variance of ten latents. The first two are smoothed over places by a sparse variational Gaussian process, the others
have a standard normal prior; a decoder gives negative binomial means. The counterfactual exchanges the domain's vector.

What the published method has and this one has not, or has otherwise:

- vectors of the perturbation beside those of the tissue, and of attributes with an order by a network of their own:
  here the domain is the only attribute;
- a kernel for each perturbation, and a gate with learnt cutoffs by which points of different ones hear less of each
  other: here one kernel;
- noise on the cells' vectors in training, and a dispersion for each gene and perturbation: here none, and one for each
  gene;
- cells without counts, imputed at their places: here cells that did not train cannot be asked;
- a twentieth of the cells kept to stop by: here all train, and training stops by its own loss;
- batches of 128 to 512 cells by the size of the data: here `batch_size`;
- counterfactuals that decode a draw of the latents: here their means;
- a jitter of 1e-8: here 1e-6.

Where there are several sections, each is scaled to a square of its own, as published for several slides; here each is
also a process of its own, so that nothing is smoothed from one to another.

Sources: Cellina, section 2 and appendix F, on what CONCERT is; the Gaussian process is that of Jazbec et al. 2021
(SVGP-VAE), equations 8 to 10.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import nn

from tissue_counterfactuals.models.training import n_batches

N_SPATIAL, N_FREE = 2, 8
_SIDE, _GRID = 20.0, 6
_JITTER = 1e-6


class CauchyKernel(nn.Module):
    """k(a, b) = 1 / (1 + |a - b|^2 / scale), a scale for each axis, learnt from 10."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.full((2,), 10.0))

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """(n, m) for places (n, 2) and (m, 2)."""
        scale = self.scale.clamp(1e-6, 1e6).sqrt()
        return 1 / (1 + torch.cdist(a / scale, b / scale).square())


def sparse_posterior(
    kernel: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    inducing: torch.Tensor,
    places: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
    n_cells: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Posterior of one latent at the cells of a batch, and its share of the negative lower bound.

    Args:
        inducing: (m, 2). places: (b, 2).
        mean, variance: (b,) the encoder's, which the process takes for noisy observations of the latent.
        n_cells: all cells; a batch stands for n_cells / b times itself.

    Returns:
        mean (b,), variance (b,), divergence from the prior summed over the batch (scalar, nats).
    """
    b, m = len(places), len(inducing)
    eye = torch.eye(m, dtype=places.dtype, device=places.device)
    kmm = kernel(inducing, inducing) + _JITTER * eye
    kmn = kernel(inducing, places)
    times = n_cells / b
    sigma = kmm + times * (kmn / variance) @ kmn.T
    sigma_root = torch.linalg.cholesky(sigma + _JITTER * eye)
    kmm_root = torch.linalg.cholesky(kmm)
    weighted = times * (kmn / variance) @ mean
    solved = torch.cholesky_solve(weighted[:, None], sigma_root)[:, 0]
    posterior_mean = kmn.T @ solved
    prior_half = torch.linalg.solve_triangular(kmm_root, kmn, upper=False).square().sum(dim=0)
    sigma_half = torch.linalg.solve_triangular(sigma_root, kmn, upper=False).square().sum(dim=0)
    unexplained = (1.0 - prior_half).clamp(min=0)
    posterior_variance = (unexplained + sigma_half).clamp(min=1e-10)

    # q(u): mean kmm solved, covariance kmm sigma^-1 kmm; its divergence from the prior N(0, kmm).
    trace = torch.cholesky_solve(kmm, sigma_root).diagonal().sum()
    log_ratio = 2 * (sigma_root.diagonal().log().sum() - kmm_root.diagonal().log().sum())
    divergence = 0.5 * (trace - m + solved @ kmm @ solved + log_ratio)
    log_variance = torch.log(2 * torch.pi * variance)
    error = (mean - posterior_mean).square()
    inside = -0.5 * (log_variance + (error + unexplained + sigma_half) / variance).sum()
    bound = inside - divergence * b / n_cells
    cross_entropy = -0.5 * (log_variance + (error + posterior_variance) / variance).sum()
    return posterior_mean, posterior_variance, cross_entropy - bound


class Concert(nn.Module):
    """The network.

    Args:
        n_cells: of each section. n_domains, n_genes: sizes. n_basal: width of the vectors of cells and domains.
    """

    def __init__(self, n_cells: Sequence[int], n_domains: int, n_genes: int, n_basal: int = 256):
        super().__init__()
        self.n_cells = tuple(map(int, n_cells))
        self.basal, self.domain = nn.Embedding(sum(self.n_cells), n_basal), nn.Embedding(n_domains, n_basal)
        nn.init.xavier_uniform_(self.basal.weight)
        widths = (2 * n_basal, 256, 128)
        layers = [
            part
            for a, b in zip(widths, widths[1:], strict=False)
            for part in (nn.Linear(a, b), nn.BatchNorm1d(b), nn.ELU())
        ]
        self.encoder = nn.Sequential(*layers)
        n_latent = N_SPATIAL + N_FREE
        self.mean, self.log_variance = nn.Linear(widths[-1], n_latent), nn.Linear(widths[-1], n_latent)
        self.decoder = nn.Sequential(nn.Linear(n_latent, 256), nn.BatchNorm1d(256), nn.ELU())
        self.rate = nn.Linear(256, n_genes)
        self.log_dispersion = nn.Parameter(torch.zeros(n_genes))
        self.kernel = CauchyKernel()
        line = torch.linspace(0, _SIDE, _GRID)
        self.register_buffer("inducing", torch.cartesian_prod(line, line))

    def encode(self, cells: torch.Tensor, domain: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance (b, 10) of the latents, before smoothing."""
        hidden = self.encoder(torch.cat([self.basal(cells), self.domain(domain)], dim=1))
        return self.mean(hidden), self.log_variance(hidden).clamp(-15, 15).exp()

    def smooth(
        self, mean: torch.Tensor, variance: torch.Tensor, places: torch.Tensor, section: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Mean and variance (b, 10) after smoothing within each section, and the divergence from all priors (nats,
        summed).

        Args:
            mean, variance: (b, 10). places: (b, 2). section: (b,) codes.
        """
        means, variances, divergence = mean.clone(), variance.clone(), 0.0
        for code in section.unique().tolist():
            here = torch.nonzero(section == code)[:, 0]
            for i in range(N_SPATIAL):
                observed = places[here], mean[here, i], variance[here, i]
                posterior = sparse_posterior(self.kernel, self.inducing, *observed, self.n_cells[code])
                means[here, i], variances[here, i], apart = posterior
                divergence = divergence + apart
        free_mean, free_variance = mean[:, N_SPATIAL:], variance[:, N_SPATIAL:]
        free = 0.5 * (free_mean.square() + free_variance - free_variance.log() - 1).sum()
        return means, variances, divergence + free

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Negative binomial means (b, g) for a cell of the median total."""
        return self.rate(self.decoder(latent)).exp().clamp(1e-5, 1e6)


@dataclass
class Cells:
    """What the network is trained on.

    Attributes:
        counts: (n, g) CSR. domain, section: (n,) codes.
        places: (n, 2), each section scaled to a square of side 20.
    """

    counts: sparse.csr_array
    domain: np.ndarray
    section: np.ndarray
    places: np.ndarray

    @classmethod
    def of(cls, counts, domain: np.ndarray, section: np.ndarray, coords: np.ndarray) -> "Cells":
        """From raw counts (n, g), codes (n,), those of sections from 0 up, and places (n, 2) in any unit."""
        places = np.empty(coords.shape, np.float32)
        for code in np.unique(section):
            own = coords[section == code]
            low, high = own.min(axis=0), own.max(axis=0)
            places[section == code] = (own - low) / np.maximum(high - low, 1e-9) * _SIDE
        return cls(sparse.csr_array(counts, dtype=np.float32), domain, section, places)

    @property
    def size_factor(self) -> np.ndarray:
        """(n,) total counts, relative to their median."""
        total = np.asarray(self.counts.sum(axis=1)).ravel()
        return np.maximum(total, 1) / max(float(np.median(total)), 1.0)


class DivergenceWeight:
    """Weight of the divergence, steered so that the divergence (nats per cell) stays near a target: 10 at the start,
    within 5 and 25.
    """

    def __init__(self, target: float):
        self.target = target
        self.value, self._sum = 10.0, 0.0

    def update(self, divergence: float) -> None:
        """Set `value` after a batch with this divergence, by a proportional and an integral gain."""
        error = self.target - divergence
        response = 0.01 / (1 + np.exp(np.clip(error, -50, 50)))
        moved = self._sum - 0.0001 * error
        value = 5.0 + response + moved
        if 5.0 <= value <= 25.0:
            self._sum = moved
        self.value = float(np.clip(value, 5.0, 25.0))


def negative_binomial_loss(counts: torch.Tensor, mean: torch.Tensor, log_dispersion: torch.Tensor) -> torch.Tensor:
    """Negative log likelihood in nats, summed over cells and genes; a scalar.

    Args:
        counts, mean: (b, g). log_dispersion: (g,), log of theta in the variance m + m^2 / theta.
    """
    theta = log_dispersion.clamp(-10, 10).exp()
    log_sum = (theta + mean).log()
    likelihood = (
        torch.lgamma(counts + theta)
        - torch.lgamma(theta)
        - torch.lgamma(counts + 1)
        + theta * (theta.log() - log_sum)
        + counts * (mean.log() - log_sum)
    )
    return -likelihood.sum()


def train(
    network: Concert,
    cells: Cells,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    patience: int,
    rng: np.random.Generator,
    device: torch.device,
    report: Callable[[str], None] = print,
) -> list[float]:
    """Fit with Adam; the mean loss per cell of every epoch.

    All cells train: one that does not has no vector and cannot be predicted. Training ends when the loss has not
    fallen for `patience` epochs. `batch_size` is in cells; `rng` draws the batches, torch the latents.
    """
    network.to(device).train()
    kernel = list(network.kernel.parameters())
    others = [p for name, p in network.named_parameters() if not name.startswith("kernel.")]
    optimiser = torch.optim.Adam(
        [{"params": others}, {"params": kernel, "lr": 10 * learning_rate}], lr=learning_rate, weight_decay=1e-6
    )
    weight = DivergenceWeight(target=0.025 * (N_SPATIAL + N_FREE))
    factor = torch.as_tensor(cells.size_factor, dtype=torch.float32, device=device)[:, None]
    domain, section, places = (
        torch.as_tensor(x, device=device) for x in (cells.domain, cells.section, cells.places)
    )  # fmt: skip
    history, best, since = [], np.inf, 0
    n = len(cells.domain)
    for epoch in range(epochs):
        total = 0.0
        for batch in np.array_split(rng.permutation(n), n_batches(n, batch_size)):
            index = torch.as_tensor(batch, device=device)
            counts = torch.as_tensor(cells.counts[batch].toarray(), device=device)
            latents = network.encode(index, domain[index])
            mean, variance, divergence = network.smooth(*latents, places[index], section[index])
            latent = mean + variance.sqrt() * torch.randn_like(mean)
            rate = network.decode(latent)
            error = negative_binomial_loss(counts, rate * factor[index], network.log_dispersion)
            size = network.basal(index).square().sum(dim=1).mean()
            value = (error + weight.value * divergence) / len(batch) + size
            value = value + (rate - counts).square().mean()
            optimiser.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            weight.update(float(divergence.detach()) / len(batch))
            total += float(value.detach()) * len(batch)
        history.append(total / n)
        since = 0 if history[-1] < best else since + 1
        best = min(best, history[-1])
        if epoch % 50 == 0:
            report(f"epoch {epoch + 1} of {epochs}: loss {history[-1]:.4f}")
        if since >= patience:
            report(f"no smaller loss for {patience} epochs: stopped after {epoch + 1}")
            break
    return history


@torch.no_grad()
def predict(
    network: Concert,
    cells: Cells,
    focal: np.ndarray,
    domain: np.ndarray,
    device: torch.device,
    batch_size: int = 512,
    around: sparse.csr_array | None = None,
) -> np.ndarray:
    """Expected counts (m, g) of cells `focal` for a cell of the median total, decoded with other codes of their domain.

    The processes see the batch's cells only, as in training; the latents are their means, so nothing is drawn.

    Args:
        domain: (n,) code of every cell, those of the focal cells included.
        around: (m, n) who stands around the focal cells and is seen with them; None: the focal cells alone.
    """
    network.to(device).eval()
    parts = []
    for batch in np.array_split(np.arange(len(focal)), max(1, round(len(focal) / batch_size))):
        seen = focal[batch]
        if around is not None:
            seen = np.concatenate([seen, np.setdiff1d(around[batch].indices, seen)])
        index, codes = (torch.as_tensor(x, device=device) for x in (seen, domain[seen]))
        where = (torch.as_tensor(x[seen], device=device) for x in (cells.places, cells.section))
        mean, _, _ = network.smooth(*network.encode(index, codes), *where)
        parts.append(network.decode(mean[: len(batch)]).cpu().numpy())
    return np.concatenate(parts)
