"""Speed of sampling, of compositions and of whole crystals, and of the surrogate."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import NAME, Bench
from benchmarks.crystal_sets import LARGEST, CrystalBench
from generators.conditioning import Conditions
from generators.crystals.draws import CrystalDraws, draw_shards, read_shards
from generators.crystals.model import load_crystal_model
from generators.crystals.usual import NEAR_HULL
from generators.sampling.crystal_task import CrystalTask
from generators.screening.baselines import random_decorations
from generators.shipped import shipped
from generators.wish import Interval

N, CRYSTALS, WORKERS = 10_000, 1_000, 2


def _whole_crystals() -> tuple[float, float]:
    """Seconds from asking for `CRYSTALS` crystals to the last file, and CPU seconds of the drawing alone."""
    path = shipped("crystal")
    names = [scale.name for scale in load_crystal_model(path).scales]
    draws = CrystalDraws(
        path, CrystalBench.guided, CrystalTask(n_atoms=(1, LARGEST)),
        Conditions.from_wish({"e_above_hull": NEAR_HULL}, names, 1), 0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        start = time.perf_counter()
        files = draw_shards(draws, Path(name), CRYSTALS, CRYSTALS // (2 * WORKERS), WORKERS)
        wall = time.perf_counter() - start
        return wall, sum(float(table["seconds"].sum()) for table in read_shards(files))


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """10,000 compositions and 10,000 surrogate predictions, with all threads of this machine; 1,000 whole crystals."""
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
    wall, cpu = _whole_crystals()
    figures = {
        "crystals": CRYSTALS,
        "crystals_seconds": round(wall, 1),
        "crystals_cpu_seconds": round(cpu, 1),
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
| surrogate ensemble | {figures["predictions_per_second"]:,} | {figures["surrogate_parameters"]:,} |

{CRYSTALS:,} whole crystals of at most {LARGEST} atoms, wished at most 0 eV/atom above the hull, `oracle.workers={WORKERS}` (one thread each), guidance
and temperatures of `task=crystals`: {wall:.0f} s, the start of the processes included; {cpu:.0f} CPU seconds of drawing."""
    return {"markdown": text, **figures}
