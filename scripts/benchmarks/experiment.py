"""Volumes and bulk moduli of the elements under both potentials, beside experiment."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from ase.collections import dcdft
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from data.cells import decode
from data.orbit_batch import OrbitBatch
from data.symmetry import encode_arrays
from generators.oracles.chgnet_potential import CHGNetPotential
from generators.oracles.potential import Potential
from generators.oracles.relaxation import RelaxationSettings, bulk_modulus, relax
from generators.oracles.sevennet_potential import SevenNetPotential

SETTINGS = RelaxationSettings(max_force=0.02, max_stress=0.1, max_evaluations=100)
PBE_VOLUME_ERROR = 0.10
"""Beyond this PBE itself is wrong (dispersion binds the crystal), or another structure was measured."""


def elements() -> tuple[list[str], OrbitBatch]:
    """Symbols and crystals of the elements with measured values, in the geometry of PBE calculations."""
    names = [name for name in dcdft.names if {"exp_volume", "exp_B"} <= dcdft.data[name].keys()]
    crystals = []
    for name in names:
        atoms = dcdft[name]
        crystals.append(encode_arrays(atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers.tolist()))
    return names, OrbitBatch.from_crystals(crystals)


def measure(potential: Potential, batch: OrbitBatch, name: str) -> tuple[Tensor, Tensor, list[str]]:
    """Volumes per atom (Å^3), bulk moduli (GPa; shape and coordinates relaxed at +-2 % volume), reasons."""
    volumes, moduli, reasons = [], [], []
    for i in tqdm(range(len(batch)), unit="element", desc=name):
        relaxed = relax(batch.select(torch.tensor([i])), potential, SETTINGS)
        valid = bool(relaxed.valid[0])
        volumes.append(relaxed.volume_per_atom if valid else torch.tensor([torch.nan]))
        modulus = bulk_modulus(relaxed.batch, potential, settings=SETTINGS) if valid else torch.tensor([torch.nan])
        moduli.append(modulus)
        reasons += [relaxed.reason[0] or ("" if bool(torch.isfinite(modulus)) else "no bulk modulus")]
    return torch.cat(volumes), torch.cat(moduli), reasons


def errors(value: NDArray[np.float64], truth: NDArray[np.float64], rows: NDArray[np.bool_]) -> dict[str, float]:
    """Relative errors, %."""
    relative = 100 * (value - truth)[rows] / truth[rows]
    return {
        "mean_absolute": round(float(np.abs(relative).mean()), 2),
        "median_absolute": round(float(np.median(np.abs(relative))), 2),
        "mean": round(float(relative.mean()), 2),
    }


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """All elements of the set, one thread."""
    torch.set_num_threads(1)
    names, batch = elements()
    data = dcdft.data
    volume = np.array([data[n]["exp_volume"] for n in names], dtype=float)
    modulus = np.array([data[n]["exp_B"] for n in names], dtype=float)
    found: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {
        "PBE (WIEN2k)": (
            np.array([data[n]["wien2k_volume"] for n in names], dtype=float),
            np.array([data[n]["wien2k_B"] for n in names], dtype=float),
        )
    }
    seconds: dict[str, float] = {}
    failed: dict[str, dict[str, str]] = {}
    potentials: dict[str, Callable[[], Potential]] = {"CHGNet 0.3.0": CHGNetPotential, "SevenNet-0": SevenNetPotential}
    for title, make in potentials.items():
        potential = make()
        start = time.perf_counter()
        v, b, reasons = measure(potential, batch, title)
        seconds[title] = round((time.perf_counter() - start) / len(names), 3)
        failed[title] = {n: r for n, r in zip(names, reasons, strict=True) if r}
        found[title] = (v.double().numpy(), b.double().numpy())
    known = np.ones(len(names), dtype=bool)
    for v_found, b_found in found.values():
        known &= np.isfinite(v_found) & np.isfinite(b_found)
    strong = known & (np.abs(found["PBE (WIEN2k)"][0] / volume - 1) < PBE_VOLUME_ERROR)
    figures: dict[str, Any] = {
        "elements": len(names),
        "compared": int(known.sum()),
        "strongly_bound": int(strong.sum()),
        "failed": failed,
        "seconds_per_element": seconds,
        "errors_percent": {
            title: {
                "volume": errors(v, volume, strong),
                "bulk_modulus": errors(b, modulus, strong),
                "volume_all": errors(v, volume, known),
                "bulk_modulus_all": errors(b, modulus, known),
            }
            for title, (v, b) in found.items()
        },
        "atoms_in_cells": int(decode(batch).n_atoms.sum()),
    }
    return {"markdown": markdown(figures), **figures}


def markdown(figures: dict[str, Any]) -> str:
    """This part of the page."""
    rows = []
    for title, error in figures["errors_percent"].items():
        cells = [
            f"{error[name]['mean_absolute']:.1f} ({error[name]['median_absolute']:.1f}, {error[name]['mean']:+.1f})"
            for name in ("volume", "bulk_modulus")
        ]
        seconds = figures["seconds_per_element"].get(title)
        rows.append(f"| {title} | {' | '.join(cells)} | {'' if seconds is None else f'{seconds:.2f}'} |")
    failed = "; ".join(
        f"{title}: {', '.join(f'{n} ({r})' for n, r in names.items()) or 'none'}"
        for title, names in figures["failed"].items()
    )
    wide = "; ".join(
        f"{title} {error['volume_all']['mean_absolute']:.1f} and {error['bulk_modulus_all']['mean_absolute']:.1f} %"
        for title, error in figures["errors_percent"].items()
    )
    table = "\n".join(rows)
    return f"""## Judges beside experiment

`python scripts/benchmark.py experiment`: the {figures["elements"]} elemental crystals of ASE's `dcdft` collection whose volumes and bulk
moduli are measured (Lejaeghere et al., Crit. Rev. Solid State 39, 1 (2014); corrected for zero-point motion). Relaxed within
symmetry, bulk moduli from the pressures at ±2 % volume with shape and coordinates relaxed; PBE's are those of that paper, with
the shape kept. Relative errors in %: mean absolute (median absolute, mean), over the {figures["strongly_bound"]} elements whose volume PBE itself
gives within {PBE_VOLUME_ERROR:.0%} and that both potentials finish.

| | volume | bulk modulus | s per element |
|---|---|---|---|
{table}

Over all {figures["compared"]} elements that both finish the mean absolute errors of volume and bulk modulus are: {wide}.
Not finished: {failed}."""
