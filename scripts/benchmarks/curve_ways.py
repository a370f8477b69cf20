"""The ways of finding rare crystals, each swept along its own knobs: precision and coverage of every setting."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product

import numpy as np
import torch
from torch import Tensor

from benchmarks.world_baselines import MARGIN, Asked, Baselines
from generators.wish import Interval, Wish
from generators.worlds.learner import Learner
from generators.worlds.scores import score_samples
from generators.worlds.world import World

OURS, BOUND = "raremat", "surrogate screening of everything"
LEARNERS = ("conditional VAE", "conditional GAN", "policy gradient")
CHANCE = ("random", "random, charge-balanced")
VETO = ", same veto"
GUIDANCE = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
VETOES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
OWN_MARGINS, OWN_TEMPERATURES = (0.0, MARGIN, 0.5, 1.0), (0.7, 1.0)
LEARNER_VETOES = (0.0, 0.1, 0.3, 0.5, 0.8)
TEMPERATURES, MARGINS = (0.6, 0.8, 1.0), (-0.5, MARGIN, 0.5)
STOPS = (30, 45, 60, 80, 120)
GENERATIONS, KEPT = (15, 30, 60, 120, 240), (1e-3, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9)
MOST = 3
"""Draws per wanted sample that a veto may cost; a setting that needs more is left out."""

Propose = Callable[[int, torch.Generator], Tensor]
Probability = Callable[[Tensor], Tensor]
Samples = tuple[str, str, Tensor]
"""Family, setting, elements [n, K]."""


@dataclass(frozen=True)
class Point:
    """One setting: mean and standard deviation over seeds."""

    family: str
    setting: str
    precision: tuple[float, float]
    coverage: tuple[float, float]
    ordered: float


def sweep(world: World, learner: Learner, wish: Wish, n: int, seeds: int, way: str) -> dict[str, list[list[float]]]:
    """(precision, coverage, ordered coverage) of every sampling seed by "family|setting", of one of `WAYS`. A setting that
    does not give ``n`` samples with every seed is left out."""
    assert learner.surrogate is not None
    surrogate = learner.surrogate

    def probability(elements: Tensor) -> Tensor:
        different, place = torch.unique(elements, dim=0, return_inverse=True)
        return surrogate.log_probability(different, wish).exp()[place]

    found: dict[str, list[list[float]]] = {}
    for family, setting, elements in WAYS[way](world, learner, wish, probability, n, range(2000, 2000 + seeds)):
        if len(elements) == n:
            score = score_samples(world, wish, elements)
            found.setdefault(f"{family}|{setting}", []).append(
                [score.precision, score.coverage, score.spelling_coverage]
            )
    return {key: values for key, values in found.items() if len(values) == seeds}


def point(key: str, values: Sequence[Sequence[float]]) -> Point:
    """Mean and deviation of the (precision, coverage, ordered coverage) of several seeds."""
    family, setting = key.split("|")
    table = np.array(values)
    mean, std = table.mean(0), table.std(0, ddof=1) if len(table) > 1 else np.zeros(3)
    return Point(family, setting, (mean[0], std[0]), (mean[1], std[1]), float(mean[2]))


def vetoed(
    propose: Propose,
    probability: Callable[[Tensor], Tensor],
    least: Sequence[float],
    n: int,
    generator: torch.Generator,
) -> dict[float, Tensor]:
    """For each of ``least`` the first ``n`` draws whose probability of a hit is not smaller; all share the draws."""
    elements = propose(n, generator)
    chance = probability(elements)
    while int((chance >= max(least)).sum()) < n and len(elements) < MOST * n:
        more = propose(n, generator)
        elements, chance = torch.cat([elements, more]), torch.cat([chance, probability(more)])
    return {t: elements[chance >= t][:n] for t in least}


def _ours(
    world: World, learner: Learner, wish: Wish, probability: Probability, n: int, seeds: Sequence[int]
) -> Iterator[Samples]:
    spread = float(_baselines(world, learner, wish).spread)
    for strength, margin, temperature in product(GUIDANCE, OWN_MARGINS, OWN_TEMPERATURES):
        sampler = learner.sampler(_stricter(wish, margin * spread), strength, temperature)
        asked = f"guidance {strength:g}" + (f", margin {margin:g}" if margin else "")
        asked += f", temperature {temperature:g}" if temperature != 1 else ""
        for seed in seeds:
            kept = vetoed(sampler.draw, probability, VETOES, n, torch.Generator().manual_seed(seed))
            for least, elements in kept.items():
                yield OURS, asked + (f", veto {least:g}" if least else ""), elements


def _stricter(wish: Wish, by: float) -> Wish:
    ((name, interval),) = wish.intervals.items()
    assert interval.high is not None
    return replace(wish, intervals={name: Interval(interval.low, interval.high - by)})


def _learners(
    world: World, learner: Learner, wish: Wish, probability: Probability, n: int, seeds: Sequence[int]
) -> Iterator[Samples]:
    others = _baselines(world, learner, wish)

    def swept(family: str, name: str, propose: Asked, temperature: float, margin: float) -> Iterator[Samples]:
        draw = partial(propose, temperature=temperature, margin=margin)
        for seed in seeds:
            kept = vetoed(draw, probability, LEARNER_VETOES, n, torch.Generator().manual_seed(seed))
            for least, elements in kept.items():
                yield (family + VETO, f"{name}, veto {least:g}", elements) if least else (family, name, elements)

    for family, propose in (("conditional VAE", others.vae()), ("conditional GAN", others.gan())):
        for temperature, margin in product(TEMPERATURES, MARGINS):
            yield from swept(family, f"temperature {temperature:g}, margin {margin:g}", propose, temperature, margin)
    for stop, policy in others.policies(STOPS).items():
        yield from swept("policy gradient", f"{stop} steps", policy, 1.0, 0.0)


def _genetic(
    world: World, learner: Learner, wish: Wish, probability: Probability, n: int, seeds: Sequence[int]
) -> Iterator[Samples]:
    others = _baselines(world, learner, wish)
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        people, score = others.evolve(max(GENERATIONS), generator)
        for stop, kept in product(GENERATIONS, KEPT):
            archive = people[:stop][score[:stop].exp() >= kept]
            for name, crystals in (("", archive), (", each once", torch.unique(archive, dim=0))):
                if len(crystals):
                    rows = torch.randint(len(crystals), (n,), generator=generator)
                    yield "genetic algorithm", f"{stop} generations, archive from {kept:g}{name}", crystals[rows]


def _chance(
    world: World, learner: Learner, wish: Wish, probability: Probability, n: int, seeds: Sequence[int]
) -> Iterator[Samples]:
    others = _baselines(world, learner, wish)
    for name, propose in zip(CHANCE, (others.random(), others.balanced()), strict=True):
        for seed in seeds:
            yield name, "no knob", propose(n, torch.Generator().manual_seed(seed))


def _bound(
    world: World, learner: Learner, wish: Wish, probability: Probability, n: int, seeds: Sequence[int]
) -> Iterator[Samples]:
    chance = probability(world.space.elements.long())
    for least in VETOES[1:]:
        expected = (chance >= least).nonzero().squeeze(1)
        for seed in seeds:
            if len(expected):
                rows = torch.randint(len(expected), (n,), generator=torch.Generator().manual_seed(seed))
                yield BOUND, f"probability from {least:g}", world.space.at(expected[rows])


def _baselines(world: World, learner: Learner, wish: Wish) -> Baselines:
    assert learner.surrogate is not None
    return Baselines(world.space, learner.surrogate, wish, seed=0)


WAYS: dict[str, Callable[..., Iterator[Samples]]] = {
    "ours": _ours,
    "learners": _learners,
    "genetic": _genetic,
    "chance": _chance,
    "bound": _bound,
}
_KNOBS = {
    "ours": (GUIDANCE, OWN_MARGINS, OWN_TEMPERATURES, VETOES),
    "learners": (TEMPERATURES, MARGINS, STOPS, LEARNER_VETOES),
    "genetic": (GENERATIONS, KEPT),
    "chance": (),
    "bound": VETOES[1:],
}


def knobs(way: str) -> str:
    """A short name of all settings of one of `WAYS`: what was swept with others is not the same sweep."""
    return hashlib.sha256(repr((MOST, _KNOBS[way])).encode()).hexdigest()[:8]


def best(points: Sequence[Point], family: str, coverage: float) -> Point | None:
    """The setting of ``family`` with most precision among those with at least that coverage; None if there is none."""
    able = [x for x in points if x.family == family and x.coverage[0] >= coverage]
    return max(able, key=lambda x: x.precision[0], default=None)


def front(points: Sequence[Point], family: str) -> list[Point]:
    """Settings of ``family`` that no other of its settings beats in precision and coverage, by coverage."""
    mine = [x for x in points if x.family == family]

    def beaten(x: Point) -> bool:
        return any(
            (y.precision[0] >= x.precision[0] and y.coverage[0] > x.coverage[0])
            or (y.precision[0] > x.precision[0] and y.coverage[0] >= x.coverage[0])
            for y in mine
        )

    return sorted((x for x in mine if not beaten(x)), key=lambda x: x.coverage[0])


def families(points: Sequence[Point]) -> list[str]:
    """In the order of tables: ours, the baselines, the bound last."""
    order = [OURS, "genetic algorithm", *(f + v for f in LEARNERS for v in ("", VETO)), *CHANCE, BOUND]
    present = {x.family for x in points}
    return [family for family in order if family in present]


def as_rows(points: Sequence[Point]) -> list[dict[str, object]]:
    """Plain, for the last line of the benchmark."""
    return [asdict(x) for x in points]
