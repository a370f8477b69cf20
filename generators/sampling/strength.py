"""Choose the strength of guidance by different hits per judge call, and a veto by the precision that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from generators.sampling.space import SpaceSampler

STRENGTHS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


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
        judged = drawn[_first_of_each(identify(drawn))[:calls]]
        expected[strength] = float(probability(judged).sum())
    return max(expected, key=lambda strength: expected[strength]), expected


def _first_of_each(numbers: Tensor) -> Tensor:
    """Rows at which each of ``numbers`` [n] occurs first, ascending."""
    _, place = torch.unique(numbers, return_inverse=True)
    first = torch.full((int(place.max()) + 1 if len(numbers) else 0,), len(numbers), dtype=torch.long)
    first.scatter_reduce_(0, place, torch.arange(len(numbers)), "amin")
    return first.sort().values


def choose_for_precision(
    sampler: SpaceSampler,
    identify: Callable[[Tensor], Tensor],
    probability: Callable[[Tensor], Tensor],
    n: int,
    precision: float,
    generator: torch.Generator,
    strengths: Sequence[float] = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0),
    draws_per_sample: float = 3.0,
) -> tuple[float, float, dict[float, float]]:
    """The strength and the veto with most expected different hits among ``n`` samples of an expected ``precision``.

    Weak guidance covers more and is vetoed more. Nobody but ``probability`` is asked, so the choice looks at no truth.

    Args:
        sampler, identify, probability, generator: as in `choose_strength`.
        n: samples that will be drawn; at most ``draws_per_sample`` times as many draws are made for them.
        precision: asked for.
        strengths: to choose from.

    Returns:
        Strength, least probability of a draw that is kept, and the expectation of each strength that can reach the
        precision.

    Raises:
        ValueError: no strength can.
    """
    vetoes, expected = {}, {}
    for strength in strengths:
        drawn = replace(sampler, guidance=strength).draw(int(n * draws_per_sample), generator)
        chance = probability(drawn)
        try:
            vetoes[strength] = veto_for_precision(chance, precision)
        except ValueError:
            continue
        kept = (chance >= vetoes[strength]).nonzero().squeeze(1)[:n]
        expected[strength] = float(chance[kept[_first_of_each(identify(drawn[kept]))]].sum())
    if not expected:
        raise ValueError(
            f"precision={precision}: no strength of guidance reaches it by the probabilities, ask for less"
        )
    best = max(expected, key=lambda strength: expected[strength])
    return best, vetoes[best], expected


def veto_for_precision(probability: Tensor, precision: float) -> float:
    """Smallest probability t such that the draws with at least t hit, by their own probabilities, with ``precision``.

    Draws below t are dropped: the least veto, which costs least coverage, that still expects the precision. It is as
    good as the probabilities are calibrated; no judge is asked.

    Args:
        probability: [n] of a hit, of draws that a sampler makes.
        precision: wanted mean probability of the draws that are kept.

    Raises:
        ValueError: not even the likeliest draws reach it.
    """
    ordered = probability.double().sort(descending=True).values
    mean = ordered.cumsum(0) / torch.arange(1, len(ordered) + 1)
    last = torch.ones(len(ordered), dtype=torch.bool)  # equal draws are kept together
    last[:-1] = ordered[1:] < ordered[:-1]
    enough = (last & (mean >= precision)).nonzero().squeeze(1)
    if len(enough) == 0:
        best = float(ordered[0]) if len(ordered) else float("nan")
        raise ValueError(f"precision={precision}: the likeliest draw has a probability of {best:.3f}, ask for less")
    return float(ordered[enough[-1]])


def recalibrate(probability: Tensor, hits: Tensor, prior: float = 1.0) -> Callable[[Tensor], Tensor]:
    """What turns a surrogate's probabilities into those of the judge, from a few of its answers.

    Log-odds are stretched and shifted (Platt scaling; Platt, 1999), with a prior of ``prior`` answers for leaving them
    as they are, so that few answers change little. The order of crystals stays.

    Args:
        probability: [n] of a hit by the surrogate, of crystals that the judge was asked about; best spread over all
            probabilities.
        hits: [n] bool, the judge's answers.

    Returns:
        Probabilities of any shape to probabilities; 0 and 1, for what is certain, stay.
    """
    odds = torch.logit(probability.double(), eps=1e-9)
    weights = torch.tensor([0.0, 0.0], dtype=torch.float64, requires_grad=True)  # log stretch, shift
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.binary_cross_entropy_with_logits(
            weights[0].exp() * odds + weights[1], hits.double(), reduction="sum"
        ) + 0.5 * prior * weights.square().sum()  # fmt: skip
        value.backward()
        return value

    optimizer.step(loss)
    stretch, shift = float(weights[0].detach().exp()), float(weights[1].detach())

    def apply(chance: Tensor) -> Tensor:
        certain = (chance <= 0) | (chance >= 1)
        return torch.where(certain, chance, torch.sigmoid(stretch * torch.logit(chance.double(), eps=1e-9) + shift))

    return apply


def spread_rows(probability: Tensor, n: int, least: float = 0.02) -> Tensor:
    """``n`` rows evenly spaced in the order of their probability, of those at least ``least`` away from 0 and 1."""
    rows = ((probability > least) & (probability < 1 - least)).nonzero().squeeze(1)
    ordered = rows[probability[rows].argsort(stable=True)]
    return ordered[torch.linspace(0, max(len(ordered) - 1, 0), min(n, len(ordered))).round().long()]
