"""The exact probability that a sampler draws a crystal: the sum over all orders of revealing its orbits."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from generators.denoiser.orbit_denoiser import HIDDEN
from generators.sampling.space import SpaceSampler

CHUNK = 65_536


@torch.no_grad()
def log_likelihood(sampler: SpaceSampler, elements: Tensor) -> Tensor:
    """[B] log-probability of drawing exactly ``elements`` [B, K].

    With f(S) the probability of what is left when the orbits S are visible, f(all) = 1 and
    ``f(S) = mean over hidden k of p(x_k | x_S) f(S + k)``; the answer is f(nothing). It takes 2^K - 1 contexts per
    crystal instead of K! orders, and equal contexts of different crystals are evaluated once.
    """
    return torch.cat([_log_likelihood(sampler, part) for part in elements.split(CHUNK)])


def _log_likelihood(sampler: SpaceSampler, elements: Tensor) -> Tensor:
    n, k = elements.shape
    orbits = frozenset(range(k))
    left = {orbits: torch.zeros(n, dtype=torch.float64)}
    for size in range(k - 1, -1, -1):
        before: dict[frozenset[int], Tensor] = {}
        for visible in map(frozenset, combinations(range(k), size)):
            shown = torch.full_like(elements, HIDDEN)
            for orbit in visible:
                shown[:, orbit] = elements[:, orbit]
            log_p = sampler.log_probabilities(shown)
            hidden = sorted(orbits - visible)
            terms = [
                log_p[:, orbit].gather(1, elements[:, orbit, None]).squeeze(1) + left[visible | {orbit}]
                for orbit in hidden
            ]
            before[visible] = torch.logsumexp(torch.stack(terms), 0) - torch.log(torch.tensor(float(len(hidden))))
        left = before
    return left[frozenset()]


@torch.no_grad()
def crystal_log_likelihood(sampler: SpaceSampler, elements: Tensor) -> Tensor:
    """[B] log-probability of drawing the crystal in any of its equivalent spellings."""
    orders = torch.tensor(sampler.table.prototypes[0].equivalent_orders)
    spelled = torch.stack([elements[:, order] for order in orders], 1)
    total = torch.stack([log_likelihood(sampler, spelled[:, i]) for i in range(len(orders))], 1)
    base = 119 ** torch.arange(elements.shape[1], dtype=torch.long)
    keys = (spelled * base).sum(-1)
    repeated = torch.stack([(keys[:, :i] == keys[:, i : i + 1]).any(1) for i in range(len(orders))], 1)
    return torch.logsumexp(total.masked_fill(repeated, -torch.inf), 1)
