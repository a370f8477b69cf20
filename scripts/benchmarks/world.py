"""A world whose truth is known: precision and coverage of every way to find its rare crystals."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.world_baselines import Baselines
from benchmarks.world_figure import draw
from benchmarks.world_learners import trained
from benchmarks.world_predict import predict
from generators.oracles.hit_probability import log_hit_probability
from generators.sampling.space import SpaceSampler
from generators.sampling.steering import draw_accepted
from generators.sampling.strength import choose_for_precision, choose_strength, recalibrate, spread_rows
from generators.wish import Interval, Wish
from generators.worlds.learner import Learner
from generators.worlds.open import open_world
from generators.worlds.scores import score_samples
from generators.worlds.world import World

SIZES = {
    "elpasolite": (100, 1_000, 10_000), "perov_5": (100, 500, 2_000), "perov_5_gap": (100, 500, 2_000),
    "decorations": (100, 500, 2_000),
}  # fmt: skip
SAMPLING_SEEDS = 5
STRENGTHS = (1.0, 1.5, 2.0, 3.0, 4.0)
CALIBRATION = 200
"""Judge calls that tell how far the surrogate's probabilities can be believed."""
GRADIENTS = (0.5, 1.0, 2.0, 4.0)
ASKED = {"elpasolite": 0.97, "perov_5": 0.8, "perov_5_gap": 0.8, "decorations": 0.8}
"""Precision that the automatic choice is asked for."""
Propose = Callable[[int, torch.Generator], Tensor]


@dataclass(frozen=True)
class Line:
    """One way, one number of samples: mean and standard deviation over the sampling seeds."""

    way: str
    samples: int
    precision: tuple[float, float]
    coverage: tuple[float, float]
    spelling_coverage: float
    unique: float
    unique_precision: float
    novel: float
    elements: float
    seconds: float


def measure(world: World, wish: Wish, way: str, propose: Propose, n: int, learnt: Tensor) -> Line:
    start = time.process_time()
    drawn = [propose(n, torch.Generator().manual_seed(1000 + seed)) for seed in range(SAMPLING_SEEDS)]
    seconds = (time.process_time() - start) / SAMPLING_SEEDS
    scores = [score_samples(world, wish, elements, learnt) for elements in drawn]

    def both(name: str) -> tuple[float, float]:
        values = [getattr(score, name) for score in scores]
        return float(np.mean(values)), float(np.std(values, ddof=1))

    return Line(
        way, n, both("precision"), both("coverage"), both("spelling_coverage")[0], both("unique")[0],
        both("unique_precision")[0], both("novel_hits")[0], both("elements")[0], round(seconds, 2),
    )  # fmt: skip


def our_ways(learner: Learner, wish: Wish, strengths: tuple[float, ...]) -> dict[str, Propose]:
    """The generator at several strengths, alone and with the surrogate's veto."""
    surrogate = learner.surrogate
    assert surrogate is not None

    def accept(elements: Tensor) -> Tensor:
        return wish.hits(surrogate.values(elements))

    ways: dict[str, Propose] = {}
    for strength in strengths:
        sampler = learner.sampler(wish, strength)
        ways[f"raremat, guidance {strength:g}"] = sampler.draw
        ways[f"raremat, guidance {strength:g}, steered"] = partial(_accepted, sampler, accept)
    return ways


def gradient_ways(learner: Learner, wish: Wish) -> dict[str, Propose]:
    """The surrogate's gradient in place of guidance, and beside it."""
    ways: dict[str, Propose] = {}
    plain = learner.sampler(Wish({}))
    ways["raremat without the wish, gradient of the surrogate 1"] = replace(plain, tilt=learner.gradient(wish)).draw
    for strength in GRADIENTS:
        sampler = replace(learner.sampler(wish), tilt=learner.gradient(wish, strength))
        ways[f"raremat, guidance 1, gradient of the surrogate {strength:g}"] = sampler.draw
    return ways


def automatic_way(
    world: World, learner: Learner, wish: Wish, learnt: Tensor, n: int, calls: int = 0
) -> tuple[str, Propose]:
    """Guidance and veto chosen for the precision asked for, by the surrogate and the labels learnt from alone, or after
    ``calls`` answers of the judge about what the generator draws."""
    assert learner.surrogate is not None
    surrogate, asked = learner.surrogate, ASKED[world.name]
    labels = torch.full((len(world.space), len(world.properties)), torch.nan, dtype=torch.float64)
    place = torch.searchsorted(world.train_index.sort().values, learnt)
    rows = world.train_index.argsort()[place]
    labels[learnt] = torch.stack([world.train_labels[name][rows] for name in world.properties], 1)
    generator = torch.Generator().manual_seed(0)

    def guess(elements: Tensor) -> Tensor:
        return surrogate.log_probability(elements, wish).exp()

    change: Callable[[Tensor], Tensor] | None = None
    if calls:
        drawn = torch.unique(world.space.index(learner.sampler(wish).draw(n, generator)))
        drawn = drawn[(drawn >= 0) & world.known(wish)[drawn]]
        chance = guess(world.space.at(drawn))
        shown = spread_rows(chance, calls)
        change = recalibrate(chance[shown], world.hits(wish)[drawn[shown]])
        labels[drawn[shown]] = torch.stack([world.truth[name][drawn[shown]] for name in world.properties], 1)

    def probability(elements: Tensor) -> Tensor:
        """Of a hit: 0 or 1 where a label is known, 0 outside the space."""
        index = world.space.index(elements)
        given = labels[index]
        hit = wish.hits(dict(zip(world.properties, given.T, strict=True)))
        known = ~torch.stack([torch.isnan(given[:, world.properties.index(name)]) for name in wish.intervals]).any(0)
        chance = guess(elements) if change is None else change(guess(elements))
        return torch.where(index < 0, 0.0, torch.where(known, hit.double(), chance))

    strength, least, _ = choose_for_precision(
        learner.sampler(wish), world.space.index, probability, n, asked, generator
    )
    sampler = learner.sampler(wish, strength)
    after = f", {calls} judge calls" if calls else ""
    name = f"raremat, automatic for {asked:.0%}{after}: guidance {strength:g}, veto below {least:.2f}"
    return name, partial(_accepted, sampler, lambda elements: probability(elements) >= least)


def _accepted(sampler: SpaceSampler, accept: Callable[[Tensor], Tensor], n: int, generator: torch.Generator) -> Tensor:
    return draw_accepted(sampler, accept, n, generator)[0]


def screening(world: World, mean: Tensor, std: Tensor, wish: Wish) -> Propose:
    """Uniform draws from all crystals of the space that the surrogate calls hits: every crystal is looked at, which no
    larger space allows. A sampler that prefers what lies deep inside the wish trades coverage for precision."""
    best = torch.argsort(log_hit_probability(mean, std, world.properties, wish), descending=True)
    expected = best[wish.hits(dict(zip(world.properties, mean[best].T, strict=True)))]

    def propose(n: int, generator: torch.Generator) -> Tensor:
        rows = expected[torch.randint(len(expected), (n,), generator=generator)] if len(expected) else best[:n]
        return world.space.at(rows)

    return propose


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Needs ``--data FOLDER``; ``--cache`` keeps the judge and trained models."""
    world = open_world(arguments.world, arguments.data, arguments.cache)
    learner, learnt, seconds = trained(world, arguments.labels, 0, arguments.cache)
    targets = {name: wish for name, wish in world.targets.items() if int(world.hits(wish).sum()) > 1}
    if arguments.predict is not None:
        wish = list(targets.values())[min(1, len(targets) - 1)]
        if arguments.high is not None:
            wish = Wish({world.properties[0]: Interval(None, arguments.high)})
        return predict(world, learner, wish, arguments.predict)
    sizes = SIZES[arguments.world]
    assert learner.surrogate is not None
    mean, _ = learner.surrogate.predict(world.space.elements.long())
    figures: dict[str, Any] = {}
    text = [_head(world, arguments, learnt, seconds)]
    for name, wish in targets.items():
        main = name == list(targets)[min(1, len(targets) - 1)]
        lines = _target(world, learner, wish, sizes, learnt, mean, main and arguments.labels is None)
        strength, expected = _strength(world, learner, wish)
        text += ["", _table(world, name, wish, lines)]
        text += ["", f"Strength chosen automatically for {sizes[1]:,} judge calls: {strength:g}."]
        figures[name] = {"lines": [line.__dict__ for line in lines], "strength": strength, "expected": expected}
        if main and arguments.labels is None:
            image = draw(world.name, name, [line for line in lines if line.samples == sizes[-1]])
            text += ["", f"![Precision and coverage](images/{image})"]
    section = f"world {world.name}" + (f" {arguments.labels}" if arguments.labels else "")
    return {"markdown": "\n".join(text), "section": section, "sampling_seeds": SAMPLING_SEEDS, "training_seed": 0,
            "training_cpu_seconds": round(seconds, 1), "targets": figures}  # fmt: skip


def _target(
    world: World,
    learner: Learner,
    wish: Wish,
    sizes: tuple[int, ...],
    learnt: Tensor,
    mean: Tensor,
    main: bool,
) -> list[Line]:
    assert learner.surrogate is not None
    lines = []
    for way, propose in our_ways(learner, wish, STRENGTHS if main else (2.0, 3.0)).items():
        for n in sizes if main and way.endswith(("guidance 2, steered", "guidance 3")) else sizes[-1:]:
            lines.append(measure(world, wish, way, propose, n, learnt))
    if main:
        for way, propose in gradient_ways(learner, wish).items():
            lines.append(measure(world, wish, way, propose, sizes[-1], learnt))
        name, propose = automatic_way(world, learner, wish, learnt, sizes[-1])
        lines.append(measure(world, wish, name, propose, sizes[-1], learnt))
        truth = {key: values.index_fill(0, learnt, torch.nan) for key, values in world.truth.items()}
        unseen = replace(world, truth=truth)
        lines.append(measure(unseen, wish, f"{name}; only crystals never learnt from", propose, sizes[-1], learnt))
        name, propose = automatic_way(world, learner, wish, learnt, sizes[-1], CALIBRATION)
        lines.append(measure(world, wish, name, propose, sizes[-1], learnt))
    others = Baselines(world.space, learner.surrogate, wish, seed=0)
    ways: dict[str, Callable[[], Propose]] = {"random": others.random}
    if main:
        ways |= {
            "random, charge-balanced": others.balanced,
            "genetic algorithm": others.genetic,
            "policy gradient": others.policy_gradient,
        }
    if main and len(wish.intervals) == 1:  # these two are conditioned on one label
        ways |= {"conditional VAE": others.vae, "conditional GAN": others.gan}
    for way, make in ways.items():
        lines.append(measure(world, wish, way, make(), sizes[-1], learnt))
    bound = screening(world, mean, learner.surrogate.doubted(mean), wish)
    lines.append(measure(world, wish, "surrogate screening of everything", bound, sizes[-1], learnt))
    return lines


def _strength(world: World, learner: Learner, wish: Wish) -> tuple[float, dict[float, float]]:
    assert learner.surrogate is not None
    surrogate = learner.surrogate

    def probability(elements: Tensor) -> Tensor:
        return surrogate.log_probability(elements, wish).exp()

    calls = SIZES[world.name][1]
    generator = torch.Generator().manual_seed(0)
    return choose_strength(learner.sampler(wish), world.space.index, probability, calls, generator)


def _head(world: World, arguments: argparse.Namespace, learnt: Tensor, seconds: float) -> str:
    labels = f" labels={arguments.labels}" if arguments.labels else ""
    labels = labels if arguments.data is None else f" data=FOLDER{labels}"
    return f"""## World {world.name}{f", {arguments.labels} labels" if arguments.labels else ""}

`python scripts/benchmark.py world={world.name}{labels}`: {len(world.space):,} crystals; judge: {world.judge}.
Learnt from {len(learnt):,} labels, one training seed, {seconds:.0f} CPU seconds (one thread) for surrogate and generator; {SAMPLING_SEEDS} sampling
seeds (mean ± standard deviation). The surrogate (an ensemble of small networks over the orbits' elements) saw these labels only and taught the
generator with 60,000 random crystals and what the generator itself proposed; "steered" drops samples that the surrogate calls misses.
"Automatic": guidance and veto are chosen for a precision that is asked for, by the surrogate's probabilities and the labels learnt from; no
truth is looked at, but for {CALIBRATION} judge calls in the row that says so: they correct the
probabilities (Platt scaling), and what they answered is known.
Precision counts samples, repeated ones too; coverage counts crystals (equivalent sites exchanged are one), "ordered" each element order for itself."""


def _table(world: World, name: str, wish: Wish, lines: list[Line]) -> str:
    existing = int(world.hits(wish).sum())
    among = "" if bool(world.known(wish).all()) else ", ends included, among the crystals that the judge knows"
    rows = [
        f"Target {name}{among}: {existing:,} crystals exist ({existing / len(world.space):.4%}).",
        "",
        "| way | samples | precision, % | coverage, % | ordered, % | unique, % | unique precision, % | novel hits, % | CPU s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for x in lines:
        p, c = (f"{100 * m:.1f} ± {100 * s:.1f}" for m, s in (x.precision, x.coverage))
        rows.append(
            f"| {x.way} | {x.samples:,} | {p} | {c} | {100 * x.spelling_coverage:.1f} | {100 * x.unique:.1f} | "
            f"{100 * x.unique_precision:.1f} | {100 * x.novel:.1f} | {x.seconds:.1f} |"
        )
    return "\n".join(rows)
