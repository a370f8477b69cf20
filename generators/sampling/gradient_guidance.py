"""Gradient guidance: a differentiable surrogate's probability of a hit tilts the odds of every element.

Discrete classifier guidance by first-order expansion (Grathwohl et al., ICML 2021; Nisonoff et al., ICLR 2025): with
r(x) the log-probability of a hit and x the crystal as one-hot vectors, replacing what stands on orbit k by element z
changes r by about ``dr/dx[k, z]``. Hidden orbits stand as the denoiser's expectation, so that one backward pass gives
all elements of all orbits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from generators.denoiser.orbit_denoiser import HIDDEN

LogReward = Callable[[Tensor], Tensor]
"""Crystals as distributions over elements [B, K, 119] -> log-potential [B], differentiable."""


def spread(mean: Tensor, distributions: Tensor) -> Tensor:
    """[B, P] standard deviation of predictions ``mean`` [B, P] that comes from what ``distributions`` [B, K, 119] leave
    open, to first order. Without it a hidden orbit counts as known, and the far tail's slopes drown the model."""
    columns = []
    for p in range(mean.shape[1]):
        (slope,) = torch.autograd.grad(mean[:, p].sum(), distributions, retain_graph=True)
        middle = (slope * distributions).sum(-1, keepdim=True)
        columns.append((distributions * (slope - middle).square()).sum((1, 2)).sqrt())
    return torch.stack(columns, 1).detach()


@dataclass(frozen=True)
class GradientTilt:
    """What is added to the log-odds of a `SpaceSampler`.

    Attributes:
        reward: for instance the surrogate's log-probability of a hit.
        strength: 1 asks for ``p(x) exp(r(x))``, exactly so if ``r`` is a sum over the orbits.
        most: steps are cut there, in nats: a first-order expansion is not worth more.
    """

    reward: LogReward
    strength: float = 1.0
    most: float = 8.0

    def __call__(self, elements: Tensor, log_probabilities: Tensor) -> Tensor:
        """[B, K, 119] from visible elements [B, K] (`HIDDEN` elsewhere) and the denoiser's log-probabilities."""
        shown = F.one_hot(elements, log_probabilities.shape[-1]).to(torch.float32)
        hidden = (elements == HIDDEN)[..., None]
        clean = torch.where(hidden, log_probabilities.exp().float(), shown)
        with torch.enable_grad():
            clean.requires_grad_(True)
            (slope,) = torch.autograd.grad(self.reward(clean).sum(), clean)
        allowed = torch.isfinite(log_probabilities)
        middle = (slope * clean.detach()).sum(-1, keepdim=True)
        return torch.where(allowed, self.strength * (slope - middle), 0.0).clamp(-self.most, self.most).double()
