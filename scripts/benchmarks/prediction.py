"""Crystal structure prediction of held-out known crystals: nothing given but the composition, or prototype and elements."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from benchmarks.crystal_sets import LARGEST, RELAXED, CrystalBench
from data.cells import decode
from data.crystal import Crystal
from data.orbit_batch import OrbitBatch
from generators.judging import JudgeWorkers, judged_batch
from generators.sampling.crystal_geometry import CrystalSamplerSettings
from generators.sampling.crystal_task import CrystalTask, reduced

N, TRIES, TEMPERATURE = 100, 20, 0.3
SAME = 1e-3
"""eV/atom."""
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
    geometry, rms = _matched(matcher, truth, bench.sampler().draw_geometry(batch, nothing, generator))
    plain, _ = _matched(matcher, truth, bench.sampler(templates=False).draw_geometry(batch, nothing, generator))

    sampler = bench.sampler(CrystalSamplerSettings(prototype_temperature=TEMPERATURE, source=1))
    tries: list[OrbitBatch] = []
    start = time.perf_counter()
    for crystal in crystals:
        task = CrystalTask(composition=_formula_unit(crystal), n_atoms=(1, LARGEST))
        tries.append(sampler.draw(task, nothing, TRIES, generator))
    seconds = time.perf_counter() - start
    hits = np.array([[matcher.fit(t, s) for s in _structures(d)] for t, d in zip(truth, tries, strict=True)])
    relaxed, energy = _relaxed(tries)
    best = np.array([matcher.fit(t, s[e.argmin()]) for t, s, e in zip(truth, relaxed, energy, strict=True)])
    (_,), (known,) = _relaxed([batch])
    lower = np.array([e.min() < k - SAME for e, k in zip(energy, known, strict=True)])
    columns = {
        "from noise": plain, "from templates": geometry, "1 try": hits[:, 0], f"{TRIES} tries": hits.any(1),
        f"lowest energy of {TRIES}": best, "another, lower in energy": lower & ~best,
    }  # fmt: skip
    table = pd.DataFrame(columns).astype(float)
    names = [f"{low} to {high}" if high < 200 else f"{low} or more" for low, high in FREEDOM]
    groups = {
        name: table[(free >= low) & (free <= high)] for name, (low, high) in zip(names, FREEDOM, strict=True)
    } | {"all": table}  # fmt: skip
    rows = "\n".join(
        f"| {name} | {len(part)} | " + " | ".join(f"{100 * x:.0f}" for x in part.mean()) + " |"
        for name, part in groups.items()
    )
    text = f"""## Crystal structure prediction

`python scripts/benchmark.py prediction --structures STRUCTURES.parquet`: {len(truth)} known crystals of at most {LARGEST} atoms that no model was
trained on (split by protostructure and formula; what ion exchange made of them was left out, of the templates too). Match:
pymatgen's StructureMatcher (ltol 0.3, stol 0.5, angle_tol 10), as published; no relaxation, no filter. First with prototype and
elements given, from noise and from templates (1 try); then with nothing given but the composition (temperature {TEMPERATURE}): the first
try, any of {TRIES}, and the one of lowest energy after CHGNet had relaxed all {TRIES}. Last column: that one is no match, but CHGNet puts it
below the known crystal (by more than 1 meV/atom), so that the judge's order and not the sampling sets the limit.

| free coordinates | crystals | {" | ".join(columns)} |
|---|---|{"---|" * len(columns)}
{rows}

Root mean square distance of the matches from templates: {rms:.3f} (normalised). {TRIES * len(truth):,} predictions in {seconds:.0f} s, one thread."""
    return {
        "markdown": text, "rms": rms, "n": len(truth), "seed": 0, "seconds": seconds,
        "match": {name: part.mean().to_dict() for name, part in groups.items()},
    }  # fmt: skip


def _matched(matcher: StructureMatcher, truth: list[Structure], made: OrbitBatch) -> tuple[NDArray[np.bool_], float]:
    """Which match, and the mean normalised distance of those."""
    found = [matcher.get_rms_dist(a, b) for a, b in zip(truth, _structures(made), strict=True)]
    return np.array([x is not None for x in found]), float(np.mean([x[0] for x in found if x is not None]))


def _relaxed(tries: list[OrbitBatch]) -> tuple[list[list[Structure]], list[NDArray[np.float64]]]:
    """Relaxed structures and energies (eV/atom, infinite where invalid), grouped as the tries are."""
    judge = JudgeWorkers(RELAXED)
    with tempfile.TemporaryDirectory() as name, judge:
        frame = judge.judge(OrbitBatch.concatenate(tries), Path(name), "prediction")
    structures = _structures(judged_batch(frame))
    energy = frame["energy_per_atom"].where(frame["valid"], np.inf).fillna(np.inf).to_numpy(np.float64)
    ends = np.cumsum([len(d) for d in tries])[:-1]
    pieces = np.split(np.arange(len(structures)), ends)
    return [[structures[i] for i in rows] for rows in pieces], [energy[rows] for rows in pieces]
