"""Precision against coverage: the front of every way on the same axes, one panel per number of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.curve_ways import BOUND, CHANCE, LEARNERS, OURS, VETO, Point, families, front
from benchmarks.world_figure import FOLDER

COLORS = {OURS: "#0b6e4f", "genetic algorithm": "#c77d2e", BOUND: "#888888"}
COLORS |= dict(zip(LEARNERS, ("#2d6cdf", "#b03a6f", "#6b4fa0"), strict=True))


def draw_curves(
    name: str, world: str, target: str, panels: Mapping[int, Sequence[Point]], samples: Mapping[str, int]
) -> str:
    """Write ``docs/images/NAME.png``; the same veto is drawn dashed, bars are standard deviations over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(panels), figsize=(3.2 + 4.4 * len(panels), 4.6), sharey=True, squeeze=False, constrained_layout=True
    )
    for axis, (labels, points) in zip(axes[0], panels.items(), strict=True):
        for family in families(points):
            if family in CHANCE:
                continue
            curve = front(points, family)
            style = ":" if family == BOUND else "--" if family.endswith(VETO) else "-"
            axis.errorbar(
                [x.coverage[0] for x in curve], [x.precision[0] for x in curve],
                xerr=[x.coverage[1] for x in curve], yerr=[x.precision[1] for x in curve],
                color=COLORS[family.removesuffix(VETO)], linestyle=style, marker="o", markersize=3, capsize=2,
                linewidth=2 if family == OURS else 1.2, label=family, zorder=3 if family == OURS else 2,
            )  # fmt: skip
        axis.set(
            xlabel="coverage: share of all existing hits found", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02),
            title=f"{labels:,} labels",
        )  # fmt: skip
    axes[0][0].set_ylabel("precision: share of samples that hit")
    figure.legend(*axes[0][-1].get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside right center")
    figure.suptitle(f"{world}: {target}, {samples[world]:,} samples")
    FOLDER.mkdir(parents=True, exist_ok=True)
    figure.savefig(FOLDER / f"{name}.png", dpi=110)
    plt.close(figure)
    return f"{name}.png"
