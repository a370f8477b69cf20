"""Structures in and out: speed, and whether what comes out is what went in."""

from __future__ import annotations

import argparse
import logging
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from data.cells import decode
from data.crystal import Crystal
from data.orbit_batch import OrbitBatch
from data.symmetry import SymmetryError, encode

WORKERS = 2


def _encode(structure: Structure) -> Crystal | str:
    logging.getLogger("moyopy").setLevel(logging.ERROR)
    try:
        return encode(structure)
    except SymmetryError as error:
        return str(error)


def _matches(pair: tuple[Structure, Structure]) -> bool:
    return bool(StructureMatcher().fit(*pair))


def _round_trip(structures: list[Structure], pool: ProcessPoolExecutor) -> dict[str, Any]:
    start = time.perf_counter()
    encoded = list(pool.map(_encode, structures, chunksize=64))
    seconds_in = time.perf_counter() - start
    good = [i for i, c in enumerate(encoded) if isinstance(c, Crystal)]
    crystals = [c for c in encoded if isinstance(c, Crystal)]
    batch = OrbitBatch.from_crystals(crystals)
    decode(batch.select(torch.arange(1)))  # tables are read once per process
    start = time.perf_counter()
    cells = decode(batch)
    seconds_cells = time.perf_counter() - start
    back = list(cells.structures())
    matched = sum(pool.map(_matches, [(structures[i], s) for i, s in zip(good, back, strict=True)], chunksize=32))
    return {
        "structures": len(structures),
        "encoded_per_second": round(len(structures) / seconds_in),
        "decoded_per_second": round(len(crystals) / seconds_cells),
        "not_encoded": len(structures) - len(good),
        "matched": int(matched),
        "share": round(matched / len(structures), 5),
    }


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """AFLOW's prototypes, and the table given with ``--structures`` (columns lattice, frac_coords, atomic_numbers)."""
    from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY

    figures: dict[str, Any] = {}
    with ProcessPoolExecutor(WORKERS) as pool:
        list(pool.map(_encode, [entry["snl"].structure for entry in AFLOW_PROTOTYPE_LIBRARY[:8]]))
        aflow = [entry["snl"].structure for entry in AFLOW_PROTOTYPE_LIBRARY]
        figures["aflow"] = _round_trip(aflow, pool)
        if arguments.structures is not None:
            table = pd.read_parquet(arguments.structures)
            structures = [
                Structure(
                    np.asarray(row.lattice).reshape(3, 3), np.asarray(row.atomic_numbers, dtype=int).tolist(),
                    np.asarray(row.frac_coords).reshape(-1, 3),
                )
                for row in table.itertuples()
            ]  # fmt: skip
            figures["materials_project"] = _round_trip(structures, pool)
    lines = [
        "## Structures in and out",
        "",
        "`python scripts/benchmark.py geometry --structures STRUCTURES.parquet`: structure to orbits (moyopy, symprec",
        f"0.01 Å, {WORKERS} processes), orbits to primitive cells (one batch, one process, after the tables were read), and",
        "pymatgen's StructureMatcher with its default tolerances between the two ends.",
        "",
        "| set | structures | in, 1/s | out, 1/s | not encoded | matched | share |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in figures.items():
        label = {"aflow": "AFLOW prototypes (pymatgen)", "materials_project": "MP subset"}[name]
        lines.append(
            f"| {label} | {row['structures']:,} | {row['encoded_per_second']:,} | {row['decoded_per_second']:,} "
            f"| {row['not_encoded']} | {row['matched']:,} | {row['share']:.4f} |"
        )
    return {"markdown": "\n".join(lines), **figures}
