"""Interval conditions: how labels are shown to the model in training, and wishes in sampling.

In training a label is shown as a random interval that contains it. If intervals were drawn without care,
the model would learn a tilted distribution inside the interval. Here every interval kind has a known density
given the label, and the loss weight undoes its dependence on the label, so that the model learns
``p(x | y in interval)`` of the data, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from generators.wish import Interval

N_FEATURES = 7
_MIN_TAIL = 1e-5
_MAX_LOGIT = 12.0


def _levels() -> Tensor:
    tail = torch.logspace(-4, -2, 41, dtype=torch.float64)
    middle = torch.linspace(0.01, 0.99, 197, dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.float64)
    return torch.cat([zero, tail[:-1], middle, (1 - tail).flip(0)[1:], zero + 1])


@dataclass(frozen=True, eq=False)
class PropertyScale:
    """Distribution of one property's training labels.

    Attributes:
        name: the property.
        levels, knots: [L] cumulative probabilities and the label values there.
        mean, std: of the labels.
    """

    name: str
    levels: Tensor
    knots: Tensor
    mean: float
    std: float

    @classmethod
    def fit(cls, name: str, labels: Tensor) -> PropertyScale:
        """From labels [B], NaN ignored. Raises ValueError for fewer than 10 or constant labels."""
        known = labels[~torch.isnan(labels)].double()
        if len(known) < 10:
            raise ValueError(f"{name}: has {len(known)} labels, at least 10 are needed")
        std = float(known.std())
        if std == 0:
            raise ValueError(f"{name}: all labels are {float(known[0])}, nothing to condition on")
        levels = _levels()
        return cls(name, levels, torch.quantile(known, levels), float(known.mean()), std)

    def cdf(self, x: Tensor) -> Tensor:
        """Share of the training labels below ``x``, linear between knots; NaN for NaN."""
        return _interpolate(x.double(), self.knots, self.levels)

    def quantile(self, q: Tensor) -> Tensor:
        """Inverse of `cdf`."""
        return _interpolate(q.double(), self.levels, self.knots)

    def state(self) -> dict[str, object]:
        """Plain data for a checkpoint."""
        return {"name": self.name, "knots": self.knots, "mean": self.mean, "std": self.std}

    @classmethod
    def from_state(cls, state: Mapping[str, object]) -> PropertyScale:
        """Inverse of `state`."""
        return cls(str(state["name"]), _levels(), state["knots"], state["mean"], state["std"])  # type: ignore[arg-type]


def _interpolate(x: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    right = torch.searchsorted(xs.contiguous(), x.contiguous()).clamp(1, len(xs) - 1)
    x0, x1, y0, y1 = xs[right - 1], xs[right], ys[right - 1], ys[right]
    share = ((x - x0) / (x1 - x0).clamp(min=1e-12)).clamp(0, 1)
    return y0 + share * (y1 - y0)


@dataclass(frozen=True, eq=False)
class Conditions:
    """Intervals for B rows and P properties.

    Attributes:
        low, high: [B, P] in the property's unit; -inf and +inf for open sides.
        given: [B, P] bool; where false, nothing is said of the property.
    """

    low: Tensor
    high: Tensor
    given: Tensor

    def select(self, rows: Tensor) -> Conditions:
        """The rows at ``rows``."""
        return Conditions(self.low[rows], self.high[rows], self.given[rows])

    @classmethod
    def from_wish(cls, intervals: Mapping[str, Interval], names: Sequence[str], n: int) -> Conditions:
        """The same wish for ``n`` rows."""
        low = torch.full((n, len(names)), -math.inf, dtype=torch.float64)
        high = torch.full((n, len(names)), math.inf, dtype=torch.float64)
        given = torch.zeros(n, len(names), dtype=torch.bool)
        for name, interval in intervals.items():
            column = list(names).index(name)
            given[:, column] = True
            if interval.low is not None:
                low[:, column] = interval.low
            if interval.high is not None:
                high[:, column] = interval.high
        return cls(low, high, given)

    @classmethod
    def nothing(cls, n: int, n_properties: int) -> Conditions:
        """No condition at all."""
        return cls.from_wish({}, [str(i) for i in range(n_properties)], n)


def condition_features(conditions: Conditions, scales: Sequence[PropertyScale]) -> Tensor:
    """[B, P, 7] what the network sees: sides present, standardised sides, logits of their training ranks,
    and the logarithm of the share of training labels inside; all 0 where nothing is given."""
    columns = []
    for p, scale in enumerate(scales):
        low, high = conditions.low[:, p].double(), conditions.high[:, p].double()
        has_low, has_high = torch.isfinite(low), torch.isfinite(high)
        rank_low = torch.where(has_low, scale.cdf(low), torch.zeros_like(low))
        rank_high = torch.where(has_high, scale.cdf(high), torch.ones_like(high))
        z_low = torch.where(has_low, (low - scale.mean) / scale.std, torch.zeros_like(low))
        z_high = torch.where(has_high, (high - scale.mean) / scale.std, torch.zeros_like(high))
        inside = (rank_high - rank_low).clamp(min=_MIN_TAIL).log()
        features = torch.stack(
            [
                has_low.double(),
                has_high.double(),
                z_low.clamp(-10, 10),
                z_high.clamp(-10, 10),
                torch.where(has_low, _logit(rank_low), torch.zeros_like(low)) / 3,
                torch.where(has_high, _logit(rank_high), torch.zeros_like(high)) / 3,
                inside / 3,
            ],
            -1,
        )
        columns.append(features * conditions.given[:, p, None])
    return torch.stack(columns, 1).float()


def _logit(q: Tensor) -> Tensor:
    clipped = q.clamp(_MIN_TAIL, 1 - _MIN_TAIL)
    return (clipped / (1 - clipped)).log().clamp(-_MAX_LOGIT, _MAX_LOGIT)


def random_conditions(
    labels: Tensor,
    scales: Sequence[PropertyScale],
    generator: torch.Generator,
    unconditional: float = 0.15,
    kinds: tuple[float, float, float] = (0.4, 0.25, 0.35),
    narrowest: float = 1e-3,
) -> tuple[Conditions, Tensor]:
    """Random intervals around labels, and the weights that make them fair.

    In ranks (q = cdf(label)), with r uniform:

    - below: high side at ``q^(1-r)``, density ``1 / (Q log(1/q))``, weight ``log(1/q)`` (mean 1);
    - above: the mirror image;
    - window: width m log-uniform on [narrowest, 1], position uniform among those inside [0, 1] that contain
      q; with L their range, density 1/L, weight ``L / m``.

    Args:
        labels: [B, P] in the property's unit, NaN where unknown.
        scales: P scales.
        generator: CPU generator.
        unconditional: share of rows that get no condition at all; in the others a random non-empty subset
            of the known labels is shown.
        kinds: probabilities of below, above, window.
        narrowest: smallest window, as a share of the training labels.

    Returns:
        The conditions, and weights [B].
    """
    n, p = labels.shape
    known = ~torch.isnan(labels)
    keep_share = torch.rand(n, 1, generator=generator)
    given = known & (torch.rand(n, p, generator=generator) < keep_share)
    forced = torch.where(known, torch.rand(n, p, generator=generator), torch.full((n, p), -1.0)).argmax(1)
    given[torch.arange(n), forced] |= known[torch.arange(n), forced]
    given &= (torch.rand(n, 1, generator=generator) >= unconditional).expand(n, p)

    low = torch.full((n, p), -math.inf, dtype=torch.float64)
    high = torch.full((n, p), math.inf, dtype=torch.float64)
    weight = torch.ones(n, dtype=torch.float64)
    for column, scale in enumerate(scales):
        on = given[:, column]
        floor = 0.5 * float(scale.levels[1])
        q = scale.cdf(labels[:, column]).nan_to_num(0.5).clamp(floor, 1 - floor)
        r = torch.rand(n, generator=generator, dtype=torch.float64)
        kind = torch.multinomial(torch.tensor(kinds), n, replacement=True, generator=generator)
        width = torch.exp(torch.rand(n, generator=generator, dtype=torch.float64) * math.log(narrowest))
        start_min, start_max = (q - width).clamp(min=0), torch.minimum(q, 1 - width)
        start = start_min + r * (start_max - start_min)
        rank_low = torch.where(kind == 1, 1 - (1 - q) ** (1 - r), start)
        rank_high = torch.where(kind == 0, q ** (1 - r), start + width)
        fair = torch.where(
            kind == 0,
            -torch.log(q),
            torch.where(kind == 1, -torch.log1p(-q), (start_max - start_min) / width),
        )
        y = labels[:, column].nan_to_num(0.0)
        side_low = torch.minimum(scale.quantile(rank_low), y)
        side_high = torch.maximum(scale.quantile(rank_high), y)
        low[:, column] = torch.where(on & (kind != 0), side_low, low[:, column])
        high[:, column] = torch.where(on & (kind != 1), side_high, high[:, column])
        weight = torch.where(on, weight * fair, weight)
    return Conditions(low, high, given), weight
