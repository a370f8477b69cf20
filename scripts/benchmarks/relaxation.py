"""Batched relaxation side by side with CHGNet's own optimizer."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pymatgen.core import Element

from data.cells import decode
from data.contact import touching_volume
from data.decoration import to_orbit_batch, with_volume_per_atom
from data.orbit_batch import OrbitBatch
from data.prototype_table import PrototypeTable
from data.prototypes import prototype_library
from generators.evaluation.samples import without_symmetry
from generators.judging import JudgeWorkers
from generators.oracles.chgnet_potential import CHGNetPotential
from generators.oracles.judge import JudgeSettings
from generators.oracles.potential import best_device
from generators.oracles.relaxation import RelaxationResult, RelaxationSettings, relax
from generators.screening.baselines import random_decorations

PROTOTYPES = ("rocksalt", "perovskite", "half_heusler", "rutile", "pbfcl", "elpasolite")
ELEMENTS = [
    "Li",
    "Na",
    "K",
    "Mg",
    "Ca",
    "Sr",
    "Al",
    "Ga",
    "In",
    "Si",
    "Ge",
    "O",
    "S",
    "F",
    "Cl",
    "Ti",
    "V",
    "Cr",
    "Mn",
    "Fe",
    "Co",
    "Ni",
    "Cu",
    "Zn",
]
N, N_ON_GPU, N_ALL_ATOMS, N_SHARED = 24, 1_536, 384, 12_288
"""Crystals that both relax; that ours relaxes at once on a GPU, within symmetry and by all atoms; and in several
processes that share it."""


def _same_minimum(optimizer: Any, ours: RelaxationResult) -> float:
    """Share of our ends, relaxed by all atoms, that the other optimizer leaves as they are: its energy falls by less
    than 2 meV/atom when it starts there."""
    stays = []
    first = decode(ours.batch.select(torch.arange(N))).structures()
    for structure, energy, valid in zip(first, ours.energy_per_atom.tolist(), ours.valid.tolist(), strict=False):
        if valid:
            energies = optimizer.relax(structure, fmax=0.05, steps=200, verbose=False)["trajectory"].energies
            stays.append(abs(float(energies[-1]) / len(structure) - energy) < 2e-3)
    return float(np.mean(stays))


def _decorations(n: int) -> OrbitBatch:
    """The first rows do not depend on how many follow."""
    library = prototype_library()
    table = PrototypeTable.build([library.get(name) for name in PROTOTYPES])
    numbers = [Element(x).Z for x in ELEMENTS]
    parts = []
    for i in range(-(-n // N)):
        generator = torch.Generator().manual_seed(i)
        row, elements = random_decorations(table, torch.arange(len(table)), numbers, N, generator)
        parts.append(to_orbit_batch(table, row, elements))
    batch = OrbitBatch.concatenate(parts)
    return with_volume_per_atom(batch, 0.75 * touching_volume(batch))


def _shared(batch: OrbitBatch, settings: RelaxationSettings, workers: int) -> float:
    """Seconds until ``workers`` processes on one GPU have relaxed all, without their start."""
    judge = JudgeSettings(settings.max_force, settings.max_stress, settings.max_evaluations, with_bulk_modulus=False)
    with tempfile.TemporaryDirectory() as name, JudgeWorkers(judge, workers) as pool:
        first = torch.arange(2 * workers)
        pool.judge(batch.select(first), Path(name), "first", shard_size=1)
        start = time.perf_counter()
        pool.judge(batch, Path(name), "all", shard_size=256)
        return time.perf_counter() - start


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Random decorations from the same rough volumes, one thread; energies and throughput of both.

    With a GPU both run there, ours on many more crystals at once.
    """
    from chgnet.model import StructOptimizer

    torch.set_num_threads(1)
    device = best_device()
    many = _decorations(N if device == "cpu" else N_ON_GPU)
    batch = many.select(torch.arange(N))
    potential = CHGNetPotential(device)
    settings = RelaxationSettings(max_force=0.05, max_stress=0.3, max_evaluations=100)
    relax(batch, potential, settings)
    ours, seconds = {}, {}
    some = without_symmetry(many.select(torch.arange(min(len(many), N_ALL_ATOMS))))
    for name, start_batch in (("within symmetry", many), ("all atoms", some)):
        start = time.perf_counter()
        ours[name] = relax(start_batch, potential, settings)
        seconds[name] = (time.perf_counter() - start) / len(start_batch)
    optimizer = StructOptimizer(use_device=device)
    structures = list(decode(batch).structures())
    optimizer.relax(structures[0], fmax=0.05, steps=2, verbose=False)
    energies, steps, seconds_theirs = [], [], 0.0
    for structure in structures:
        start = time.perf_counter()
        result = optimizer.relax(structure, fmax=0.05, steps=200, verbose=False)
        seconds_theirs += (time.perf_counter() - start) / N
        trajectory = result["trajectory"]
        steps.append(len(trajectory.energies))
        energies.append(float(trajectory.energies[-1]) / len(structure) if steps[-1] < 200 else np.nan)
    figures: dict[str, Any] = {"structures": N, "their_evaluations": round(float(np.mean(steps)), 1)}
    rows = []
    for name, one in ours.items():
        gap = one.energy_per_atom.numpy()[:N] - np.array(energies)
        gap = gap[np.isfinite(gap)]
        figures[name] = {
            "per_second": round(1 / seconds[name], 1),
            "ratio": round(seconds_theirs / seconds[name], 1),
            "evaluations": round(float(one.n_evaluations.double().mean()), 1),
            "compared": len(gap),
            "median_difference": round(float(np.median(np.abs(gap))), 5),
            "within_2_meV": round(float((np.abs(gap) < 2e-3).mean()), 3),
            "lower_or_equal": round(float((gap < 2e-3).mean()), 3),
            "valid": round(float(one.valid.double().mean()), 3),
            "same_minimum": _same_minimum(optimizer, one) if name == "all atoms" else None,
        }
        x = figures[name]
        rows.append(
            f"| ours, {name} | {x['per_second']:,.0f} | **{x['ratio']:.1f}** | {x['evaluations']} | {x['compared']} | "
            f"{x['within_2_meV']:.0%} | {x['median_difference'] * 1000:.2f} | {x['lower_or_equal']:.0%} | "
            + (f"{x['same_minimum']:.0%} |" if x["same_minimum"] is not None else " |")
        )
    lines = "\n".join(rows)
    rest = """
Random decorations at rough volumes have several minima, and the two go different ways to the same or another one: where their energies
differ, either end is a minimum for both (last column: StructOptimizer started from our end, within 2 meV/atom). In the same minimum they
agree within a meV/atom. "Not higher": a crystal whose end lies lower than theirs counts. torch-sim 0.3 was looked at before: it has no
CHGNet, and moves all atoms."""
    where = "one thread each"
    if device != "cpu":
        workers = max((os.cpu_count() or 2) - 1, 1)
        rate = N_SHARED / _shared(_decorations(N_SHARED), settings, workers)
        figures |= {"workers": workers, "shared_per_second": round(rate, 1)}
        where = f"one process each on one GPU, ours {len(many):,} crystals ({len(some):,} by all atoms) at once, of which the first {N} are compared"
        rest = f"""
{workers} processes of ours that share the GPU relax {rate:,.0f} crystals/s within symmetry, {rate * seconds_theirs:,.0f} times
as many as one StructOptimizer ({N_SHARED:,} crystals, `oracle.workers={workers}`)."""
    text = f"""## Relaxation in batches{"" if device == "cpu" else " on a GPU"}

`python scripts/benchmark.py relaxation`: {N} random decorations of {", ".join(PROTOTYPES)} from rough volumes, {where},
forces below 0.05 eV/Å. CHGNet's own `StructOptimizer` (FIRE) relaxes all coordinates one by one, ours the free
parameters of the space group, or all atoms (P1), in one batch by a quasi-Newton method.

| | crystals/s | throughput, ratio | evaluations per crystal | both finish | within 2 meV/atom | median difference, meV/atom | not higher by 2 meV/atom | theirs stays at our end |
|---|---|---|---|---|---|---|---|---|
{lines}
| StructOptimizer | {1 / seconds_theirs:.1f} | 1 | {figures["their_evaluations"]} | | | | | |
{rest}"""
    section = {} if device == "cpu" else {"section": "relaxation on a GPU"}
    return {"markdown": text, **section, **figures}
