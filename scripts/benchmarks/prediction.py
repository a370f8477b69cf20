"""Crystal structure prediction of held-out known crystals: nothing given but the composition, or prototype and elements."""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from benchmarks.crystal_sets import LARGEST, CrystalBench
from data.cells import decode
from data.crystal import Crystal
from data.orbit_batch import OrbitBatch
from generators.sampling.crystal_geometry import CrystalSamplerSettings
from generators.sampling.crystal_task import CrystalTask, reduced

N, TRIES = 100, 20
FREEDOM = ((0, 0), (1, 3), (4, 9), (10, 200))


def _matcher() -> StructureMatcher:
    return StructureMatcher(ltol=0.3, stol=0.5, angle_tol=10)


def _formula_unit(crystal: Crystal) -> dict[int, int]:
    counts: dict[int, int] = {}
    for z, m in zip(crystal.atomic_numbers, crystal.multiplicities, strict=True):
        counts[z] = counts.get(z, 0) + m
    return reduced(counts)


def _structures(batch: OrbitBatch) -> list[Structure]:
    return list(decode(batch).structures())


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Needs ``--structures`` (known crystals)."""
    if arguments.structures is None:
        raise SystemExit("benchmark: prediction needs --structures TABLE")
    bench = CrystalBench(arguments.structures, arguments.model)
    batch = bench.test.batch
    usable = ((batch.n_atoms <= LARGEST) & (batch.n_orbits <= 32)).nonzero().squeeze(-1)
    order = torch.randperm(len(usable), generator=torch.Generator().manual_seed(0))
    batch = batch.select(usable[order][:N])
    truth, crystals = _structures(batch), batch.to_crystals()
    free = batch.coordinate_mask.flatten(1).sum(1).numpy()
    matcher, nothing = _matcher(), bench.wish()
    generator = torch.Generator().manual_seed(0)
    sampler = bench.sampler()

    made = _structures(sampler.draw_geometry(batch, nothing, generator))
    found = [matcher.get_rms_dist(a, b) for a, b in zip(truth, made, strict=True)]
    geometry = np.array([x is not None for x in found])
    rms = float(np.mean([x[0] for x in found if x is not None]))

    sampler = bench.sampler(CrystalSamplerSettings(source=1))
    first, any_, impossible = np.zeros(len(truth), bool), np.zeros(len(truth), bool), 0
    start = time.perf_counter()
    for i, crystal in enumerate(crystals):
        try:
            task = CrystalTask(composition=_formula_unit(crystal), n_atoms=(1, LARGEST))
            drawn = sampler.draw(task, nothing, TRIES, generator)
        except ValueError:
            impossible += 1
            continue
        hits = [matcher.fit(truth[i], s) for s in _structures(drawn)]
        first[i], any_[i] = hits[0], any(hits)
    seconds = time.perf_counter() - start
    by_freedom = {
        f"{low} to {high}" if high < 200 else f"{low} or more": [
            float(x[(free >= low) & (free <= high)].mean()) for x in (geometry, first, any_)
        ]
        for low, high in FREEDOM
        if ((free >= low) & (free <= high)).any()
    }
    rows = "\n".join(
        f"| {name} | {int(((free >= low) & (free <= high)).sum())} | "
        + " | ".join(f"{100 * x:.0f}" for x in values)
        + " |"
        for (name, values), (low, high) in zip(by_freedom.items(), FREEDOM, strict=False)
    )
    text = f"""## Crystal structure prediction

`python scripts/benchmark.py prediction --structures STRUCTURES.parquet`: {len(truth)} known crystals of at most {LARGEST} atoms that no model was
trained on (split by protostructure and formula; what ion exchange made of them was left out too). Match: pymatgen's
StructureMatcher (ltol 0.3, stol 0.5, angle_tol 10), as published; no relaxation, no filter.

| free coordinates | crystals | prototype and elements given, 1 try, % | composition given, 1 try, % | {TRIES} tries, % |
|---|---|---|---|---|
{rows}
| all | {len(truth)} | {100 * geometry.mean():.0f} | {100 * first.mean():.0f} | {100 * any_.mean():.0f} |

Root mean square distance of the matches with prototype and elements given: {rms:.3f} (normalised). {TRIES * len(truth):,} predictions in
{seconds:.0f} s, matching included; not possible: {impossible}."""
    return {
        "markdown": text, "geometry": float(geometry.mean()), "rms": rms, "match_1": float(first.mean()),
        f"match_{TRIES}": float(any_.mean()), "by_freedom": by_freedom, "n": len(truth), "seed": 0,
    }  # fmt: skip
