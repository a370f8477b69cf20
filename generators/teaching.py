"""Teaching a generator with a labelled pool: draw a wish first, then a crystal that fulfils it.

`generators.conditioning` goes from a label to an interval that contains it, with weights that undo the choice. Where
labels are plentiful (a surrogate labels what the generator proposes) the other direction is exact without weights, and
rare wishes are practised as often as common ones: an interval is drawn by the rarity of what lies inside, then a
crystal from the pool's distribution inside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from data.properties import known_property
from generators.conditioning import Conditions, PropertyScale, condition_features, random_conditions
from generators.denoiser.orbit_denoiser import HIDDEN, OrbitDenoiser
from generators.diffusion.masked import corrupt, negative_bound
from generators.diffusion.times import low_discrepancy_times
from generators.module import CompositionDiffusion
from generators.sampling.space import restrict


@dataclass(frozen=True, eq=False)
class LabelledPool:
    """Distinct crystals with labels, and how many crystals of the space each stands for.

    Attributes:
        elements: [n, K].
        labels: [n, P], NaN where unknown.
        weight: [n], positive.
        doubt: [n, P] standard deviation of each label on the scale that models see; None if all are certain.
    """

    elements: Tensor
    labels: Tensor
    weight: Tensor
    doubt: Tensor | None = None

    def __len__(self) -> int:
        return len(self.elements)

    def drawn(self, names: Sequence[str], generator: torch.Generator) -> LabelledPool:
        """The same crystals with certain labels, drawn from what is known of each property in ``names``."""
        if self.doubt is None:
            return self
        noise = self.doubt * torch.randn(self.labels.shape, generator=generator, dtype=self.labels.dtype)
        columns = []
        for p, spec in enumerate(map(known_property, names)):
            moved = spec.from_model(spec.to_model(self.labels[:, p]) + noise[:, p])
            columns.append(torch.where(noise[:, p] == 0, self.labels[:, p], moved))
        return replace(self, labels=torch.stack(columns, 1), doubt=None)


class WishFirst:
    """Draws (wish, crystal) pairs from a pool.

    Args:
        pool: of labelled crystals.
        scales: one per property.
        rarest: smallest share of the space that a wish may leave.
        unconditional: share of rows without any wish.
    """

    def __init__(
        self, pool: LabelledPool, scales: tuple[PropertyScale, ...], rarest: float = 2e-5, unconditional: float = 0.1
    ) -> None:
        self.pool, self.scales, self.rarest, self.unconditional = pool, scales, rarest, unconditional
        self.order: list[Tensor] = []
        self.ranks: list[Tensor] = []
        for p in range(len(scales)):
            known = (~torch.isnan(pool.labels[:, p])).nonzero().squeeze(1)
            order = known[torch.argsort(pool.labels[known, p], stable=True)]
            upper = torch.cumsum(pool.weight[order].double(), 0)
            self.order.append(order)
            self.ranks.append(upper / upper[-1])
        self.everything = torch.cumsum(pool.weight.double(), 0) / pool.weight.double().sum()

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Conditions, Tensor]:
        """Rows of the pool [n], their conditions, and loss weights [n] (1 unless several properties are wished for)."""
        p_count = len(self.scales)
        conditions = Conditions.nothing(n, p_count)
        rows = self._pick(self.everything, torch.rand(n, generator=generator, dtype=torch.float64))
        free = torch.rand(n, generator=generator) < self.unconditional
        first = torch.randint(p_count, (n,), generator=generator)
        for p in range(p_count):
            mine = (~free & (first == p)).nonzero().squeeze(1)
            low, high = self._ranks(len(mine), generator)
            u = low + (high - low) * torch.rand(len(mine), generator=generator, dtype=torch.float64)
            place = self._pick(self.ranks[p], u)
            rows[mine] = self.order[p][place]
            y = self.pool.labels[rows[mine], p].double()
            bottom, top = self._value(p, low), self._value(p, high)
            conditions.low[mine, p] = torch.where(low > 0, torch.minimum(bottom, y), -math.inf)
            conditions.high[mine, p] = torch.where(high < 1, torch.maximum(top, y), math.inf)
            conditions.given[mine, p] = True
        weight = torch.ones(n, dtype=torch.float64)
        if p_count > 1:
            weight = self._others(rows, first, free, conditions, generator)
        return rows, conditions, weight

    def _others(
        self, rows: Tensor, first: Tensor, free: Tensor, conditions: Conditions, generator: torch.Generator
    ) -> Tensor:
        """Show the other properties too, in half of the rows: intervals around the labels, with fair weights."""
        labels = self.pool.labels[rows].clone()
        labels[torch.arange(len(rows)), first] = torch.nan
        labels[free | (torch.rand(len(rows), generator=generator) < 0.5)] = torch.nan
        extra, weight = random_conditions(labels, self.scales, generator, unconditional=0.0)
        added = extra.given & ~torch.isnan(labels)
        conditions.low[added] = extra.low[added]
        conditions.high[added] = extra.high[added]
        conditions.given[added] = True
        return torch.where(added.any(1), weight, torch.ones_like(weight)).clamp(max=20.0)

    def _ranks(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Ends of the wish in ranks: the rarity is log-uniform; 65 % below, 20 % windows, 15 % above."""
        rare = torch.exp(torch.rand(n, generator=generator, dtype=torch.float64) * math.log(self.rarest))
        kind = torch.rand(n, generator=generator)
        inner = rare * torch.rand(n, generator=generator, dtype=torch.float64)
        zero, one = torch.zeros_like(rare), torch.ones_like(rare)
        low = torch.where(kind < 0.65, zero, torch.where(kind < 0.85, inner, 1 - rare))
        high = torch.where(kind < 0.85, rare, one)
        return low, high

    @staticmethod
    def _pick(ranks: Tensor, u: Tensor) -> Tensor:
        return torch.searchsorted(ranks, u).clamp(max=len(ranks) - 1)

    def _value(self, p: int, rank: Tensor) -> Tensor:
        """Label at a rank, between neighbours where it falls between them."""
        labels = self.pool.labels[self.order[p], p].double()
        right = self._pick(self.ranks[p], rank)
        left = (right - 1).clamp(min=0)
        gap = (self.ranks[p][right] - self.ranks[p][left]).clamp(min=1e-15)
        share = ((rank - self.ranks[p][left]) / gap).clamp(0, 1)
        return labels[left] + share * (labels[right] - labels[left])


def weighted_scale(name: str, labels: Tensor, weight: Tensor) -> PropertyScale:
    """`PropertyScale` of labels [n] that stand for ``weight`` [n] crystals each."""
    known = ~torch.isnan(labels)
    y, order = labels[known].double().sort()
    w = weight[known][order].double()
    middle = (torch.cumsum(w, 0) - 0.5 * w) / w.sum()
    plain = PropertyScale.fit(name, labels)
    right = torch.searchsorted(middle, plain.levels).clamp(1, len(y) - 1)
    share = ((plain.levels - middle[right - 1]) / (middle[right] - middle[right - 1]).clamp(min=1e-15)).clamp(0, 1)
    knots = y[right - 1] + share * (y[right] - y[right - 1])
    mean = float((w * y).sum() / w.sum())
    std = float((w * (y - mean) ** 2).sum() / w.sum()) ** 0.5
    return replace(plain, knots=knots, mean=mean, std=std)


@dataclass(frozen=True)
class TeachSettings:
    """One stretch of teaching: AdamW, warm-up, then a cosine to ``final`` of the learning rate.

    Labels in doubt are drawn again every ``redraw`` steps.
    """

    steps: int = 1000
    batch_size: int = 512
    learning_rate: float = 2e-3
    warmup: int = 50
    final: float = 0.02
    weight_decay: float = 0.01
    ema_decay: float = 0.99
    redraw: int = 10
    seed: int = 0


def teaching_loss(
    module: CompositionDiffusion,
    denoiser: OrbitDenoiser,
    elements: Tensor,
    conditions: Conditions,
    allowed: Tensor,
    distinct: bool,
    generator: torch.Generator,
) -> Tensor:
    """[B] negative evidence bound of elements [B, K] under ``conditions``, nats; one prototype.

    Elements that may not stand somewhere have no probability, in training as in sampling.
    """
    row = torch.zeros(len(elements), dtype=torch.long)
    slots = torch.ones_like(elements, dtype=torch.bool)
    hidden = corrupt(slots, low_discrepancy_times(len(elements), generator), generator)
    visible = elements.masked_fill(hidden, HIDDEN)
    features = condition_features(conditions, module.scales)
    logits = denoiser(module.table, row, visible, denoiser.embed_conditions(features, conditions.given))
    log_p = F.log_softmax(restrict(logits, visible, allowed, distinct), -1)
    return negative_bound(log_p, elements, hidden, slots)


def teach(
    module: CompositionDiffusion,
    pool: LabelledPool,
    allowed: Tensor,
    distinct: bool,
    settings: TeachSettings,
    rarest: float = 2e-5,
) -> list[float]:
    """Train ``module`` on a pool; the averaged weights follow. Returns the loss of every step, nats per crystal.

    With labels in doubt crystals come, under a wish and guidance g, in proportion to the g-th power of the probability
    that they fulfil it, even where no expected value does.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    names = [scale.name for scale in module.scales]
    denoiser = module.denoiser.train()
    optimizer = torch.optim.AdamW(
        denoiser.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, foreach=True
    )
    losses = []
    for step in range(settings.steps):
        if step == 0 or (pool.doubt is not None and step % settings.redraw == 0):
            wishes = WishFirst(pool.drawn(names, generator), module.scales, rarest)
        rate = min(1.0, (step + 1) / settings.warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * rate * (settings.final + (1 - settings.final) * cosine)
        rows, conditions, weight = wishes.draw(settings.batch_size, generator)
        loss = teaching_loss(module, denoiser, pool.elements[rows].long(), conditions, allowed, distinct, generator)
        loss = (loss * weight.to(loss)).sum() / weight.sum().to(loss)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        optimizer.step()
        decay = min(settings.ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            averaged: list[Tensor] = list(module.averaged.parameters())
            torch._foreach_lerp_(averaged, list(denoiser.parameters()), 1 - decay)
        losses.append(float(loss.detach()))
    module.averaged.eval()
    return losses
