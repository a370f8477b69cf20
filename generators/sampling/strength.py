"""Choose the strength of guidance for what it is wanted for: different hits per judge call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from generators.sampling.space import SpaceSampler

STRENGTHS = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0)


def choose_strength(
    sampler: SpaceSampler,
    identify: Callable[[Tensor], Tensor],
    probability: Callable[[Tensor], Tensor],
    calls: int,
    generator: torch.Generator,
    strengths: Sequence[float] = STRENGTHS,
    draws_per_call: float = 3.0,
) -> tuple[float, dict[float, float]]:
    """The strength with most expected different hits in ``calls`` judge calls, and the expectation of each.

    A judge is never asked twice about one crystal: precision alone is no measure, strong guidance repeats itself.

    Args:
        sampler: its own guidance is not looked at.
        identify: [n, K] elements to [n] numbers, the same for the same crystal.
        probability: [n, K] elements to [n] probabilities of a hit, for instance a surrogate's.
        calls: judge calls to be spent; at most ``draws_per_call`` times as many draws are made for them.
        generator: of the draws.
        strengths: to choose from.
    """
    expected = {}
    for strength in strengths:
        drawn = replace(sampler, guidance=strength).draw(int(calls * draws_per_call), generator)
        _, place = torch.unique(identify(drawn), return_inverse=True)
        first = torch.full((int(place.max()) + 1,), len(drawn), dtype=torch.long)
        first.scatter_reduce_(0, place, torch.arange(len(drawn)), "amin")
        judged = drawn[first.sort().values[:calls]]
        expected[strength] = float(probability(judged).sum())
    return max(expected, key=lambda strength: expected[strength]), expected
