"""What learns in a world: a surrogate of the judged labels, and a generator that the surrogate teaches.

The labels alone are too few to draw the edge of a rare set. The surrogate is fitted on them and labels crystals that
are drawn from the space and, round after round, by the generator itself under rare wishes; that pool teaches the
generator. How likely a crystal fulfils a wish counts, not whether its expected value does: with few labels no expected
value lies far out. The space is never enumerated. The surrogate is not the judge and never sees it except through the
labels.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from generators.conditioning import Conditions, PropertyScale
from generators.denoiser.orbit_denoiser import DenoiserConfig
from generators.module import CompositionDiffusion
from generators.oracles.hit_probability import log_hit_probability
from generators.oracles.slot_ensemble import SlotConfig, SlotEnsemble, SlotFit, fit_slot_ensemble
from generators.sampling.gradient_guidance import GradientTilt, spread
from generators.sampling.space import SpaceSampler
from generators.teaching import LabelledPool, TeachSettings, teach, weighted_scale
from generators.wish import Interval, Wish
from generators.worlds.space import Space

STRATA = (0.0, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0)
RARITIES = (0.02, 0.003, 0.001, 0.0002)


@dataclass(frozen=True)
class LearnerSettings:
    """Sizes of everything that is learnt.

    Attributes:
        uniform: crystals drawn uniformly from the space that the surrogate labels.
        on_policy: draws of the generator in each stretch that it labels.
        stretches: of teaching, with on-policy draws between them.
        steps: of teaching in all; teach: the rest of the optimizer's settings.
        denoiser, surrogate, fit: of the two models.
        rarest: smallest share of the space that a practised wish leaves.
    """

    uniform: int = 60_000
    on_policy: int = 6_000
    stretches: int = 4
    steps: int = 1_000
    rarest: float = 3e-5
    teach: TeachSettings = field(default_factory=TeachSettings)
    denoiser: DenoiserConfig = field(default_factory=lambda: DenoiserConfig(width=96, depth=3))
    surrogate: SlotConfig = field(default_factory=SlotConfig)
    fit: SlotFit = field(default_factory=SlotFit)


class Learner:
    """Surrogate and generator of one space; `learn` may be called again with more labels.

    Attributes:
        surrogate, generator: None before the first `learn`.
        visited: indices of all crystals that the generator has proposed.
        seconds: of the parts of the last `learn`.
    """

    surrogate: SlotEnsemble | None = None
    generator: CompositionDiffusion | None = None

    def __init__(self, space: Space, properties: Sequence[str], settings: LearnerSettings | None = None, seed: int = 0):
        self.space, self.properties, self.seed = space, tuple(properties), seed
        self.settings = settings or LearnerSettings()
        self.visited = torch.zeros(0, dtype=torch.long)
        self.seconds: dict[str, float] = {}

    def learn(self, index: Tensor, labels: Tensor, round_: int = 0) -> None:
        """Fit the surrogate on the labels [n, P] of crystals ``index`` [n], and let it teach the generator."""
        settings, start = self.settings, time.perf_counter()
        seed = self.seed * 1009 + round_
        elements = self.space.at(index)
        self.surrogate = fit_slot_ensemble(
            self.space.table, self.properties, elements, labels, settings.surrogate, replace(settings.fit, seed=seed)
        )
        fitted = time.perf_counter()
        generator = torch.Generator().manual_seed(seed)
        uniform = self.space.uniform(settings.uniform, generator)
        uniform_labels, std = self.surrogate.predict(self.space.at(uniform))
        self.surrogate.measure_doubt(uniform_labels, std)
        edges = torch.quantile(uniform_labels[:, 0], torch.tensor(STRATA[1:-1], dtype=torch.float64))
        if self.generator is None:
            torch.manual_seed(seed)
            one = torch.ones(len(uniform))
            spread = self.surrogate.doubt.expand_as(std)
            pool = LabelledPool(self.space.elements[uniform], uniform_labels, one, spread)
            guess = pool.drawn(self.properties, generator).labels
            scales = [weighted_scale(name, guess[:, p], one) for p, name in enumerate(self.properties)]
            known = sorted(self.space.allowed.any(0).nonzero().squeeze(1).tolist())
            self.generator = CompositionDiffusion(self.space.table, scales, known, settings.denoiser, seed=self.seed)
        stratum = torch.bucketize(uniform_labels[:, 0].contiguous(), edges)
        shares = torch.bincount(stratum, minlength=len(STRATA) - 1).double()
        for stretch in range(settings.stretches):
            if stretch or len(self.visited):
                self._visit(generator)
            pool = self._pool(uniform, shares / len(uniform), edges, index, labels)
            self._teach(pool, stretch, seed)
        self.seconds = {"surrogate": fitted - start, "generator": time.perf_counter() - fitted}

    def _teach(self, pool: LabelledPool, stretch: int, seed: int) -> None:
        assert self.generator is not None
        settings = self.settings
        steps, last = settings.steps // settings.stretches, stretch == settings.stretches - 1
        teaching = replace(
            settings.teach, steps=steps, seed=seed * 31 + stretch, final=0.02 if last else 0.7,
            warmup=settings.teach.warmup if stretch == 0 else 5,
        )  # fmt: skip
        teach(self.generator, pool, self.space.allowed, self.space.distinct, teaching, settings.rarest)

    def _visit(self, generator: torch.Generator) -> None:
        """Draw under wishes of several rarities, both tails where there are several properties, and remember."""
        assert self.generator is not None
        found = [self.visited]
        wishes = [
            Wish({scale.name: interval})
            for share in RARITIES
            for scale in self.generator.scales
            for interval in self._tails(scale, share)
        ]
        for wish in wishes:
            drawn = self.space.index(self.sampler(wish).draw(self.settings.on_policy // len(wishes), generator))
            found.append(drawn[drawn >= 0])
        self.visited = torch.unique(torch.cat(found))

    def _tails(self, scale: PropertyScale, share: float) -> list[Interval]:
        low, high = scale.quantile(torch.tensor([1 - share, share], dtype=torch.float64)).tolist()
        below = Interval(None, high)
        return [below] if len(self.properties) == 1 else [below, Interval(low, None)]

    def _pool(self, uniform: Tensor, shares: Tensor, edges: Tensor, index: Tensor, labels: Tensor) -> LabelledPool:
        """All crystals met so far, each with the weight of its stratum: crystals of the space over crystals here."""
        assert self.surrogate is not None
        everything = torch.unique(torch.cat([uniform, self.visited, index]))
        values = self.surrogate.predict(self.space.at(everything))[0]
        place = torch.searchsorted(everything, index)
        values[place] = torch.where(torch.isnan(labels), values[place], labels)
        spread = self.surrogate.doubt.expand_as(values).clone()
        spread[place] = torch.where(torch.isnan(labels), spread[place], 0.0)
        stratum = torch.bucketize(values[:, 0].contiguous(), edges)
        count = torch.bincount(stratum, minlength=len(STRATA) - 1).double()
        # A tail that was found completely counts once each, whatever the uniform draws say of its size.
        size = torch.maximum(shares * len(self.space), count)
        return LabelledPool(self.space.elements[everything], values, (size / count.clamp(min=1))[stratum], spread)

    def gradient(self, wish: Wish, strength: float = 1.0) -> GradientTilt:
        """Guidance by the surrogate's log-probability that the wish is fulfilled. Raises ValueError before `learn`."""
        surrogate = self.surrogate
        if surrogate is None:
            raise ValueError("surrogate: has learnt nothing yet")

        def reward(distributions: Tensor) -> Tensor:
            mean, _ = surrogate.predict_relaxed(distributions)
            std = (surrogate.doubted(mean).square() + spread(mean, distributions).square()).sqrt()
            return log_hit_probability(mean, std, self.properties, wish)

        return GradientTilt(reward, strength)

    def sampler(self, wish: Wish, guidance: float | tuple[float, ...] = 1.0, temperature: float = 1.0) -> SpaceSampler:
        """The generator under one wish. Raises ValueError before the first `learn`, or if no element is left."""
        if self.generator is None:
            raise ValueError("generator: has learnt nothing yet")
        allowed = self.space.allowed.clone()
        if wish.allowed_elements is not None:
            keep = torch.zeros_like(allowed[0])
            keep[sorted(wish.allowed_elements)] = True
            allowed &= keep
        allowed[:, sorted(wish.forbidden_elements)] = False
        if not bool(allowed.any(1).all()):
            raise ValueError("allowed_elements: an orbit is left without any element")
        condition = Conditions.from_wish(wish.intervals, self.properties, 1)
        return SpaceSampler(
            self.generator.averaged.eval(), self.generator.scales, self.space.table, allowed, self.space.distinct,
            condition, guidance, temperature,
        )  # fmt: skip
