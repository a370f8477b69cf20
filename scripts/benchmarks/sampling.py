"""Speed of sampling and of the surrogate."""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch

from benchmarks.common import NAME, Bench
from generators.conditioning import Conditions
from generators.screening.baselines import random_decorations
from generators.wish import Interval

N = 10_000


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """10,000 compositions under a wish, and 10,000 surrogate predictions, with all threads of this machine."""
    bench = Bench()
    sampler = bench.module.sampler()
    names = [scale.name for scale in bench.module.scales]
    wish = {NAME: Interval(None, bench.quantile(0.01))}
    condition = Conditions.from_wish(wish, names, 1)
    table, rows = bench.module.table, torch.arange(len(bench.module.table))

    def sample(n: int) -> None:
        generator = torch.Generator().manual_seed(0)
        row = sampler.draw_prototypes(condition, rows, n, generator)
        sampler.draw_elements(table, row, condition, generator)

    sample(500)
    start = time.perf_counter()
    sample(N)
    seconds = time.perf_counter() - start
    generator = torch.Generator().manual_seed(0)
    row, elements = random_decorations(table, rows, bench.module.known_elements, N, generator)
    bench.surrogate.predict(table, row[:500], elements[:500])
    start = time.perf_counter()
    bench.surrogate.predict(table, row, elements)
    predicted = time.perf_counter() - start
    figures = {
        "samples_per_second": round(N / seconds),
        "predictions_per_second": round(N / predicted),
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in bench.module.averaged.parameters()),
        "surrogate_parameters": sum(p.numel() for p in bench.surrogate.module.parameters()),
    }
    text = f"""## Sampling

`python scripts/benchmark.py sampling`: {N:,} compositions with their prototypes under "lowest 1 %", guidance 1, and {N:,}
surrogate predictions (all members), {figures["threads"]} threads.

| | per second | parameters |
|---|---|---|
| generator | {figures["samples_per_second"]:,} | {figures["parameters"]:,} |
| surrogate ensemble | {figures["predictions_per_second"]:,} | {figures["surrogate_parameters"]:,} |"""
    return {"markdown": text, **figures}
