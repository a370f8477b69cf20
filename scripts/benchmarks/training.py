"""Both shipped models trained again from nothing, against their cards."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from generators.checkpoints import load_checkpoint
from generators.shipped import shipped

TRAIN = Path(__file__).parents[1] / "train.py"
MODELS = {"composition": "decorations", "surrogate": "surrogate"}
"""Shipped weights and the experiment that makes them."""
SHOWN = ("seconds", "test/loss", "test/mae/formation_energy_per_atom", "test/coverage_90/formation_energy_per_atom")


def _card(model: str) -> dict[str, str]:
    text = shipped(model).with_suffix(".md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| (\S+) \| (\S+) \|$", text, re.MULTILINE))


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train both side by side, one thread each; what is finished is not trained again."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, TRAIN, f"experiment={experiment}", f"run=again-{model}", "logger=none"], env=environment
        )
        for model, experiment in MODELS.items()
    ]
    if sum(abs(process.wait()) for process in processes):
        raise SystemExit("benchmark: a training failed, see above")
    figures: dict[str, Any] = {}
    rows = []
    for model in MODELS:
        folder = Path("outputs") / f"again-{model}"
        again = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        new, old = load_checkpoint(folder / "model.pt", model)[1], load_checkpoint(shipped(model), model)[1]
        apart = max(float((new[name].double() - old[name].double()).abs().max()) for name in old)
        card = _card(model)
        figures[model] = {"largest_weight_difference": apart} | {key: again[key] for key in SHOWN if key in again}
        rows += [f"| {model}, {key} | {card[key]} | {again[key]:.4g} |" for key in SHOWN if key in again]
        rows.append(f"| {model}, largest difference of a weight | | {apart:.1e} |")
    table = "\n".join(rows)
    text = f"""## Training from nothing

`python scripts/benchmark.py training`: the commands of both model cards, run side by side with one thread
each (what is already trained in `outputs/` is read). Seconds are wall time. The same weights bit by bit come out on the same kind of
processor only; elsewhere rounding sets the runs apart, and the test figures agree within their noise.

| | shipped | again |
|---|---|---|
{table}"""
    return {"markdown": text, "seed": 0, **figures}
