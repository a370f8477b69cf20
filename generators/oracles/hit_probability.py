"""How likely a property predicted as a normal distribution lies in an interval, in logarithms and with derivatives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from generators.wish import Interval, Wish

FAR = 1e4
"""Standard deviations that stand for an open side."""


def log_interval(a: Tensor, b: Tensor) -> Tensor:
    """log(Phi(b) - Phi(a)) for a <= b, stable in both tails, with finite derivatives."""
    a, b = a.clamp(-FAR, FAR), b.clamp(-FAR, FAR)
    flip = a > 0  # use the tail on the small side
    low, high = torch.where(flip, -b, a), torch.where(flip, -a, b)
    log_high, log_low = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
    return log_high + torch.log1p(-torch.exp((log_low - log_high).clamp(max=-1e-12)))


def log_inside(mean: Tensor, std: Tensor, interval: Interval) -> Tensor:
    """[B] that normals of ``mean`` and ``std`` [B] lie in the interval."""
    width = std.clamp(min=1e-9)
    low, high = (
        torch.full_like(mean, side) if edge is None else (edge - mean) / width
        for side, edge in ((-FAR, interval.low), (FAR, interval.high))
    )
    return log_interval(low, high)


def log_hit_probability(mean: Tensor, std: Tensor, properties: Sequence[str], wish: Wish) -> Tensor:
    """[B] that every interval of the wish holds, from means and standard deviations [B, P], properties as independent
    normals. Logarithms keep the order far in the tails, where probabilities underflow."""
    columns = [list(properties).index(name) for name in wish.intervals]
    parts = [log_inside(mean[:, p], std[:, p], i) for p, i in zip(columns, wish.intervals.values(), strict=True)]
    return torch.stack(parts).sum(0) if parts else torch.zeros(len(mean), dtype=torch.float64)
