"""Steering without gradients: sequential Monte Carlo over the orbits, with any oracle on predicted clean crystals.

Feynman-Kac steering (Singhal et al., 2025; Chopin and Papaspiliopoulos, 2020, chapter 10): the target is
``p(x) exp(r(x))`` with p what the sampler draws. Particles carry weights that telescope: a step multiplies by
``phi_t / phi_(t-1)`` with ``phi_t = exp(t/K r(predicted clean crystal))`` and the last one by the true ``exp(r(x))``,
so the target is exact for many particles whatever the predictions are worth. With ``correct_guidance`` the weights
also undo that guided conditionals, normalised one by one, do not multiply to the guided joint (Skreta et al., 2025).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from generators.denoiser.orbit_denoiser import HIDDEN
from generators.diffusion.masked import reveal_order
from generators.sampling.space import SpaceSampler

Reward = Callable[[Tensor], Tensor]
"""Complete crystals [n, K] -> log-potential [n]; it need not be normalised."""


@dataclass(frozen=True, eq=False)
class Steered:
    """What steering gives.

    Attributes:
        elements: [n, K] crystals of equal weight.
        effective: [K] effective sample size after each orbit, before any resampling, as a share of n.
        log_normalizer: estimate of the log of the mean of exp(r) over the sampler's own draws.
    """

    elements: Tensor
    effective: Tensor
    log_normalizer: float


def systematic(log_weight: Tensor, generator: torch.Generator) -> Tensor:
    """[n] rows drawn in proportion to exp(log_weight) [n], with one random number (lowest variance)."""
    n = len(log_weight)
    edges = torch.softmax(log_weight, 0).cumsum(0)
    points = (torch.arange(n, dtype=torch.float64) + torch.rand((), generator=generator, dtype=torch.float64)) / n
    return torch.searchsorted(edges / edges[-1], points).clamp(max=n - 1)


def effective_share(log_weight: Tensor) -> float:
    """Effective sample size ``(sum w)^2 / sum w^2`` over n."""
    weight = torch.softmax(log_weight, 0)
    return float(1 / (weight.square().sum() * len(weight)))


@torch.no_grad()
def steer(
    sampler: SpaceSampler,
    reward: Reward,
    n: int,
    generator: torch.Generator,
    resample_below: float = 0.5,
    correct_guidance: bool = False,
) -> Steered:
    """Draw ``n`` crystals from ``p(x) exp(r(x))``; resample when the effective share falls below ``resample_below``.

    Raises:
        ValueError: fewer than two particles.
    """
    if n < 2:
        raise ValueError(f"n={n}: steering needs at least 2 particles")
    k = sampler.n_orbits
    elements = torch.full((n, k), HIDDEN, dtype=torch.long)
    order = reveal_order(torch.ones_like(elements, dtype=torch.bool), generator)
    log_weight = torch.zeros(n, dtype=torch.float64)
    potential = torch.zeros(n, dtype=torch.float64)
    effective, log_z = [], 0.0
    for step in range(k):
        orbit = (order == step).long().argmax(1)
        if correct_guidance:
            guided = sampler.guided(elements)[torch.arange(n), orbit].double()
            log_weight = log_weight + torch.logsumexp(guided, -1)
        elements = sampler.reveal(elements, orbit, generator)
        clean = elements if step == k - 1 else _complete(sampler, elements)
        now = (step + 1) / k * reward(clean).double()
        log_weight = log_weight + now - potential
        potential = now
        effective.append(effective_share(log_weight))
        if step == k - 1 or effective[-1] < resample_below:
            log_z += float(torch.logsumexp(log_weight, 0) - torch.log(torch.tensor(float(n))))
            rows = systematic(log_weight, generator)
            elements, order, potential = elements[rows], order[rows], potential[rows]
            log_weight = torch.zeros_like(log_weight)
    return Steered(elements, torch.tensor(effective), log_z)


def _complete(sampler: SpaceSampler, elements: Tensor) -> Tensor:
    """The predicted clean crystals: the likeliest element on each hidden orbit, one orbit after the other."""
    complete = elements.clone()
    for orbit in range(elements.shape[1]):
        hidden = (complete[:, orbit] == HIDDEN).nonzero().squeeze(1)
        if len(hidden):
            complete[hidden, orbit] = sampler.log_probabilities(complete[hidden])[:, orbit].argmax(-1)
    return complete


@torch.no_grad()
def draw_accepted(
    sampler: SpaceSampler, accept: Callable[[Tensor], Tensor], n: int, generator: torch.Generator, most: int = 20
) -> tuple[Tensor, int]:
    """``n`` crystals that ``accept`` ([m, K] -> [m] bool) lets pass, and how many were drawn for them: steering by a
    potential of 0 and 1, without approximation. Fewer than ``n`` if ``most * n`` draws do not suffice."""
    kept: list[Tensor] = []
    drawn = found = 0
    while found < n and drawn < most * n:
        rate = max(found / drawn, 0.02) if drawn else 0.9
        size = min(max(int((n - found) / rate * 1.02) + 16, 256), most * n - drawn)
        batch = sampler.draw(size, generator)
        kept.append(batch[accept(batch)])
        drawn, found = drawn + size, found + len(kept[-1])
    return torch.cat(kept)[:n], drawn
