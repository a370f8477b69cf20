"""Guidance and intervals: what they do to hits and to diversity, judged by CHGNet."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import NAME, Bench, Judged
from generators.wish import Interval

CALLS = 96
STRENGTHS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
IMAGE = Path(__file__).resolve().parents[2] / "docs" / "images" / "guidance.png"


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Strengths at the lowest 1 %, then intervals of other widths and places at strength 1."""
    bench = Bench()
    lowest = {NAME: Interval(None, bench.quantile(0.01))}
    by_strength = {g: bench.samples(lowest, g, CALLS, seed=0) for g in STRENGTHS}
    places = {
        "lowest 10 %": (None, bench.quantile(0.1), 0.1),
        "lowest 1 %": (None, bench.quantile(0.01), 0.01),
        "lowest 0.2 %": (None, bench.quantile(0.002), 0.002),
        "5 to 10 %": (bench.quantile(0.05), bench.quantile(0.1), 0.05),
        "48 to 52 %": (bench.quantile(0.48), bench.quantile(0.52), 0.04),
        "highest 1 %": (bench.quantile(0.99), None, 0.01),
    }
    by_place: dict[str, tuple[Judged, float]] = {}
    for label, (low, high, share) in places.items():
        judged = (
            by_strength[1.0]
            if label == "lowest 1 %"
            else bench.samples({NAME: Interval(low, high)}, 1.0, CALLS, seed=0)
        )
        by_place[label] = (judged, share)
    _picture(by_strength, by_place)
    lines = [
        "## What guidance and intervals do",
        "",
        f"`python scripts/benchmark.py guidance`: {CALLS} unique novel samples each, judged by CHGNet without any screening,",
        "seed 0. Diversity: share of unique crystals among the draws, elements and prototypes among the hits.",
        "",
        "![Hit rate and diversity](images/guidance.png)",
        "",
        "Wish: formation energy in the lowest 1 % of the training data.",
        "",
        "| guidance | hit rate | times random | unique draws | elements in hits | prototypes in hits |",
        "|---|---|---|---|---|---|",
    ]
    for g, one in by_strength.items():
        lines.append(
            f"| {g:g} | {one.rate:.3f} | {one.rate / 0.01:.0f} | {one.unique:.3f} | {one.elements} | {one.prototypes} |"
        )
    lines += ["", "Guidance 1, other intervals:", "", "| interval | share of training data | hit rate | times random |"]
    lines.append("|---|---|---|---|")
    for label, (one, share) in by_place.items():
        lines.append(f"| {label} | {share:g} | {one.rate:.3f} | {one.rate / share:.0f} |")
    return {
        "markdown": "\n".join(lines),
        "calls": CALLS,
        "seed": 0,
        "guidance": {g: round(one.rate, 4) for g, one in by_strength.items()},
        "unique": {g: round(one.unique, 4) for g, one in by_strength.items()},
        "intervals": {label: round(one.rate, 4) for label, (one, _) in by_place.items()},
    }


def _picture(by_strength: dict[float, Judged], by_place: dict[str, tuple[Judged, float]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), constrained_layout=True)
    strengths = list(by_strength)
    left.plot(strengths, [one.rate for one in by_strength.values()], "o-", color="#0b6e4f", label="hit rate")
    left.plot(strengths, [one.unique for one in by_strength.values()], "s--", color="#c77d2e", label="unique draws")
    left.axhline(0.01, color="#999", lw=1, ls=":")
    left.text(strengths[-1], 0.02, "random", ha="right", color="#777", fontsize=9)
    left.set(xlabel="guidance strength", ylabel="share", ylim=(0, 1.02), title="lowest 1 % of formation energies")
    left.legend(frameon=False)
    for label in ("lowest 10 %", "lowest 0.2 %", "48 to 52 %", "highest 1 %"):
        values = by_place[label][0].values
        right.hist(
            values[np.isfinite(values)], bins=np.linspace(-4, 2, 49), histtype="step", lw=1.8, label=label, density=True
        )
    right.set(
        xlabel="formation energy (eV/atom), judged by CHGNet", ylabel="density", title="the wish moves the samples"
    )
    right.legend(frameon=False)
    IMAGE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(IMAGE, dpi=110)
