"""Precision against coverage, every way of finding rare crystals on the same axes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "images"


def draw(world: str, target: str, lines: Sequence[Any]) -> str:
    """Write ``docs/images/world-NAME.png``; ``lines`` have way, precision and coverage (mean, deviation), one size."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6.4, 4.4), constrained_layout=True)
    ours = [x for x in lines if x.way.startswith("raremat, guidance")]
    steered = [x for x in ours if x.way.endswith("steered")]
    gradient = [x for x in ours if "gradient" in x.way]
    plain = [x for x in ours if x not in steered and x not in gradient]
    for curve, color, label in (
        (plain, "#0b6e4f", "raremat (guidance 1 to 2.5)"),
        (steered, "#2d6cdf", "raremat, steered (guidance 1 to 2.5)"),
        (gradient, "#d98e04", "raremat, guidance 1 and the surrogate's gradient (0.5 to 4)"),
    ):
        axis.errorbar(
            [x.coverage[0] for x in curve], [x.precision[0] for x in curve],
            xerr=[x.coverage[1] for x in curve], yerr=[x.precision[1] for x in curve],
            fmt="o-", color=color, label=label, capsize=2,
        )  # fmt: skip
    others = [x for x in lines if not x.way.startswith("raremat, guidance") and not x.way.endswith("never learnt from")]
    for x, marker in zip(others, "*sv^D<>Pxh", strict=False):
        axis.errorbar(
            x.coverage[0], x.precision[0], xerr=x.coverage[1], yerr=x.precision[1], fmt=marker,
            label=x.way.split(":")[0], capsize=2,
        )  # fmt: skip
    axis.set(
        xlabel="coverage: share of all existing hits found", ylabel="precision: share of samples that hit",
        title=f"{world}: {target}, {lines[0].samples:,} samples", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02),
    )  # fmt: skip
    axis.legend(frameon=False, fontsize=8)
    FOLDER.mkdir(parents=True, exist_ok=True)
    figure.savefig(FOLDER / f"world-{world}.png", dpi=110)
    return f"world-{world}.png"
