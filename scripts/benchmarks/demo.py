"""The demo's comparison over several seeds."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import NAME, Bench
from generators.generate import Generation
from generators.generate_settings import GenerateSettings
from generators.report.figures import wilson
from generators.screening.baselines import SOURCES
from generators.wish import Interval, Wish

CALLS, POOL, BASELINE_POOL = 320, 4000, 20_000


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """``make demo`` with other seeds: hits per judge call for raremat and every baseline."""
    bench = Bench()
    wish = Wish({NAME: Interval(None, bench.quantile(0.01))})
    runs = []
    for seed in range(arguments.seeds):
        settings = GenerateSettings(
            seed=seed, judge_calls=CALLS, pool=POOL, baselines=True, baseline_pool=BASELINE_POOL
        )
        with tempfile.TemporaryDirectory() as folder:
            generation = Generation(bench.module, bench.surrogate, bench.training, wish, settings, Path(folder))
            runs.append(generation.run().summary)
    rate = float(runs[0]["random_hit_rate_in_training_data"])
    lines = [
        "## Hits per judge call",
        "",
        f"`python scripts/benchmark.py demo --seeds {arguments.seeds}`: the wish of `make demo` (lowest 1 % of formation",
        f"energies), {CALLS} CHGNet relaxations for each source, all of unique novel crystals; raremat draws a pool of {POOL:,} and",
        f"lets the surrogate choose, the screening lets the same surrogate choose among {BASELINE_POOL:,} random decorations.",
        f"Share of hits among the training data (random decorations): {rate:.4f}.",
        "",
        "| source | hits per call, mean of seeds | over the seeds | 95 % | times random | CPU s before the judge |",
        "|---|---|---|---|---|---|",
    ]
    figures: dict[str, Any] = {"seeds": arguments.seeds, "random_rate": rate}
    for name, label in SOURCES.items():
        rates = [r[name]["hits_per_call"] for r in runs]
        hits = sum(r[name]["hits"] for r in runs)
        calls = sum(r[name]["judge_calls"] for r in runs)
        low, high = wilson(hits, calls)
        seconds = float(np.mean([r[name]["cpu_seconds_before_judge"] for r in runs]))
        figures[name] = {
            "rates": [round(x, 4) for x in rates],
            "hits": hits,
            "calls": calls,
            "cpu_s": round(seconds, 2),
        }
        spread = ", ".join(f"{x:.3f}" for x in rates)
        lines.append(
            f"| {label} | {np.mean(rates):.3f} | {spread} | {low:.3f}–{high:.3f} | {np.mean(rates) / rate:.0f} | {seconds:.1f} |"
        )
    return {"markdown": "\n".join(lines), **figures}
