"""Precision against coverage as a curve of every way, and the same against the number of training labels."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.curve_figure import draw_curves
from benchmarks.curve_ways import (
    CHANCE,
    GENERATIONS,
    GUIDANCE,
    KEPT,
    LEARNER_VETOES,
    MARGINS,
    OURS,
    OWN_MARGINS,
    OWN_TEMPERATURES,
    STOPS,
    TEMPERATURES,
    VETOES,
    WAYS,
    Point,
    as_rows,
    best,
    families,
    knobs,
    point,
    sweep,
)  # fmt: skip
from benchmarks.world_learners import trained
from generators.wish import Wish
from generators.worlds.open import open_world
from generators.worlds.world import World

SAMPLES = {"elpasolite": 10_000, "perov_5": 2_000}
LABELS: dict[str, tuple[int | None, ...]] = {"elpasolite": (200, 1_000, None), "perov_5": (None,)}
FEWER = ("ours", "learners", "genetic", "bound")
CHECKED = "Means compared at coverage levels of 1, 2, ... 99 %, as far as each way reaches:"
LEVELS = (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
SAMPLING_SEEDS = 3


def main_wish(world: World) -> tuple[str, Wish]:
    """The target that curves are drawn for: the second, or the only one."""
    names = list(world.targets)
    name = names[min(1, len(names) - 1)]
    return name, world.targets[name]


def swept(
    world: World, wish: Wish, labels: int | None, seed: int, ways: Sequence[str], cache: Path
) -> dict[str, list[list[float]]]:
    """`sweep` of one learner; each way is kept in ``cache``, so that a stopped benchmark goes on."""
    found: dict[str, list[list[float]]] = {}
    for way in ways:
        path = cache / f"curves-{world.name}-{labels or 'all'}-{seed}-{way}-{knobs(way)}.json"
        if not path.is_file():
            learner, _, _ = trained(world, labels, seed, cache)
            points = sweep(world, learner, wish, SAMPLES[world.name], SAMPLING_SEEDS, way)
            path.write_text(json.dumps(points), encoding="utf-8")
        found |= json.loads(path.read_text(encoding="utf-8"))
    return found


def over_seeds(
    world: World, wish: Wish, labels: int | None, seeds: int, ways: Sequence[str], cache: Path
) -> list[Point]:
    """Every setting that all learners can give: mean and deviation over training and sampling seeds."""
    learners = [swept(world, wish, labels, seed, ways, cache) for seed in range(seeds)]
    return [
        point(key, [row for found in learners for row in found[key]])
        for key in learners[0]
        if all(key in found for found in learners)
    ]


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Needs ``--data FOLDER``; ``--seeds`` training seeds, few labels drawn anew with each; what was swept is kept in
    ``--cache``."""
    world = open_world(arguments.world, arguments.data, arguments.cache)
    target, wish = main_wish(world)
    panels: dict[int, list[Point]] = {}
    for labels in LABELS[world.name]:
        ways = list(WAYS) if labels is None else FEWER
        panels[labels or len(world.train_index)] = over_seeds(
            world, wish, labels, arguments.seeds, ways, arguments.cache
        )
    everything = panels[len(world.train_index)]
    images = [draw_curves(f"curves-{world.name}", world.name, target, {len(world.train_index): everything}, SAMPLES)]
    text = [_head(world, target, wish, arguments.seeds), "", _levels(everything),
            "", f"![Precision against coverage](images/{images[0]})", "", f"{CHECKED} {_verdict(everything)}"]  # fmt: skip
    if len(panels) > 1:
        images.append(draw_curves(f"curves-{world.name}-labels", world.name, target, panels, SAMPLES))
        text += ["", _by_labels(panels), "", f"![The same by the number of labels](images/{images[1]})", ""]
        text += [f"- {n:,} labels: {_verdict(points)}" for n, points in panels.items() if points is not everything]
    return {"markdown": "\n".join(text), "section": f"curves {world.name}", "sampling_seeds": SAMPLING_SEEDS,
            "points": {str(n): as_rows(points) for n, points in panels.items()}}  # fmt: skip


def _head(world: World, target: str, wish: Wish, seeds: int) -> str:
    n, existing = SAMPLES[world.name], int(world.hits(wish).sum())
    return f"""## Curves of {world.name}

`python scripts/benchmark.py curves --world {world.name} --data FOLDER --seeds {seeds}`: target {target} ({existing:,} crystals), {n:,} samples,
{seeds} training seeds (few labels are drawn anew with each) with {SAMPLING_SEEDS} sampling seeds. Each way is swept along its own knobs: raremat along
guidance (0.5 to 8), temperature ({min(OWN_TEMPERATURES):g} and {max(OWN_TEMPERATURES):g}), how far inside the wish it is asked (0 to {max(OWN_MARGINS):g} standard deviations of the labels) and veto (samples whose probability of a hit is
smaller by the surrogate are dropped; 0 to 0.95); the genetic algorithm along
generations (15 to 240), what its archive keeps, and whether its copies count; VAE and GAN along temperature and the label asked for; the policy
gradient along its stopping step. A setting that needs more than 3 draws per sample with any seed is left out.
"Same veto": the learner's samples dropped as raremat's are. "Screening" looks at every crystal of the space (the bound of an enumerable world).
All ways share the surrogate of each training seed. Given is the best precision among a way's settings whose mean coverage reaches the level (so settings
are picked by the truth, for all ways alike), with the standard deviation over all seeds.
What was swept is kept in `--cache` and only read the next time: the seconds below are those of the last run (3 to 8 CPU minutes for each
number of labels and training seed, without training). Settings: {len(GUIDANCE) * len(OWN_MARGINS) * len(OWN_TEMPERATURES) * len(VETOES)} of raremat, {len(GENERATIONS) * len(KEPT) * 2} of the
genetic algorithm, {len(TEMPERATURES) * len(MARGINS)} of VAE and GAN ({len(TEMPERATURES) * len(MARGINS) * (len(LEARNER_VETOES) - 1)} with the veto), {len(STOPS)} of the policy gradient."""


def _cell(x: Point | None) -> str:
    return "-" if x is None else f"{100 * x.precision[0]:.1f} ± {100 * x.precision[1]:.1f}"


def _levels(points: list[Point]) -> str:
    names = families(points)
    columns = [*names, "raremat's setting"]
    rows = [f"| coverage at least | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for level in LEVELS:
        ours = best(points, OURS, level)
        cells = [*(_cell(best(points, name, level)) for name in names), "-" if ours is None else ours.setting]
        rows.append(f"| {level:.0%} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _by_labels(panels: dict[int, list[Point]]) -> str:
    names = [name for name in families(next(iter(panels.values()))) if name not in CHANCE]
    rows = [f"| labels | coverage at least | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for n, points in panels.items():
        for level in (0.1, 0.3, 0.5, 0.7, 0.9):
            rows.append(f"| {n:,} | {level:.0%} | {' | '.join(_cell(best(points, name, level)) for name in names)} |")
    return "\n".join(rows)


def _verdict(points: list[Point]) -> str:
    """At every whole per cent of coverage that a way reaches: does raremat reach at least its precision?"""
    lines = []
    for name in families(points):
        pairs = [
            (level, other.precision[0], ours.precision[0] if (ours := best(points, OURS, level)) else 0.0)
            for level in np.arange(1, 100) / 100
            if name != OURS and (other := best(points, name, level)) is not None
        ]
        if not pairs:
            continue
        lost = [(level, theirs - ours) for level, theirs, ours in pairs if theirs > ours]
        equal = sum(theirs == ours for _, theirs, ours in pairs)
        said = f"{name}: above raremat at {len(lost)} of {len(pairs)} levels"
        if lost:
            said += f" ({lost[0][0]:.0%} to {lost[-1][0]:.0%}, by up to {100 * max(gap for _, gap in lost):.1f} points)"
        lines.append(said + (f", equal at {equal}" if equal else ""))
    return f"{'; '.join(lines)}."
