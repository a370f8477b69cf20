"""Build ``docs/images/demo.png`` from a finished demo: ``python scripts/readme_picture.py outputs/demo``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from data.decorations import load_decorations
from generators.report.figures import COLORS, wilson
from generators.screening.baselines import SOURCES


def main(folder: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    ((name, (low, high)),) = summary["wish"].items()
    candidates = pd.read_parquet(folder / "candidates.parquet")[name]
    training = load_decorations().properties[name].numpy()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), width_ratios=(1, 1.4), constrained_layout=True)
    sources = [s for s in SOURCES if s in summary]
    rates = [summary[s]["hits_per_call"] for s in sources]
    bounds = [wilson(summary[s]["hits"], summary[s]["judge_calls"]) for s in sources]
    errors = np.array([[r - b[0], b[1] - r] for r, b in zip(rates, bounds, strict=True)]).T.clip(min=0)
    left.barh([SOURCES[s] for s in sources], rates, xerr=errors, color=[COLORS[s] for s in sources], ecolor="#333")
    left.invert_yaxis()
    left.set(xlabel="hits per judge call", xlim=(0, 1.05))
    bins = np.linspace(min(training.min(), candidates.min()), np.quantile(training, 0.999), 70)
    right.hist(training, bins, density=True, color=COLORS["training"], label="training data: random decorations")
    right.hist(
        candidates, bins, density=True, color=COLORS["raremat"], alpha=0.85, label="raremat, all that were judged"
    )
    right.axvspan(
        bins[0] if low is None else low,
        bins[-1] if high is None else high,
        color="#0b6e4f",
        alpha=0.1,
        label="the wish",
    )
    right.set(xlabel="formation energy (eV/atom), judged by CHGNet", yticks=[])
    right.legend(frameon=False)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    path = Path(__file__).resolve().parents[1] / "docs" / "images" / "demo.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/demo"))
