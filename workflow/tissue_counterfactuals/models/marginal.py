"""Marginal log likelihood of cells under a latent-variable model, by importance sampling from its posterior.

log p(x) = log of the mean over draws z ~ q(z | x) of p(x | z) p(z) / q(z | x). Draws are summed up one at a time, so
that memory does not grow with their number. On average the logarithm of such a mean is too low, the more so the worse q
fits; the effective number of draws says how far it can be trusted: near 1, a single draw carries all the weight.
"""

import math
from collections.abc import Callable

import torch


def log_marginal(
    mean: torch.Tensor, variance: torch.Tensor, log_likelihood: Callable[[torch.Tensor], torch.Tensor], n_samples: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Estimate log p(x) of b cells whose latent has a standard normal prior.

    Args:
        mean, variance: (b, d) of the independent normal posterior q, from which is drawn.
        log_likelihood: from latents (b, d) to log p(x | latent) (b,).

    Returns:
        log p(x) in nats, and the effective number of draws, from 1 to `n_samples`; each (b,) float64.
    """
    deviation, half_log_variance = variance.sqrt(), 0.5 * variance.log().sum(dim=1)
    total = torch.full(mean.shape[:1], -math.inf, dtype=torch.float64, device=mean.device)
    squares = total.clone()
    for _ in range(n_samples):
        noise = torch.randn_like(mean)
        latent = mean + deviation * noise
        # log prior less log posterior: the factors of 2 pi cancel
        ratio = 0.5 * (noise.square() - latent.square()).sum(dim=1) + half_log_variance
        log_weight = log_likelihood(latent).double() + ratio.double()
        total = torch.logaddexp(total, log_weight)
        squares = torch.logaddexp(squares, 2 * log_weight)
    return total - math.log(n_samples), (2 * total - squares).exp()
