"""Candidates as files that other programs read."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pymatgen.core import Structure
from pymatgen.io.cif import CifWriter

from data.cells import decode
from data.orbit_batch import OrbitBatch
from generators.judging import write_parquet

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


def file_stem(identifier: str, formula: str) -> str:
    """A file name that cannot leave its folder."""
    return _UNSAFE.sub("_", f"{identifier}_{formula}")[:80]


def write_candidates(table: pd.DataFrame, batch: OrbitBatch, folder: Path, top: int) -> None:
    """``candidates.parquet`` (all), ``candidates.extxyz`` (all) and ``structures/*.cif`` (the first ``top``).

    Args:
        table: one row per crystal of ``batch``, best first, with ``id``, ``formula`` and properties.
        batch: relaxed crystals.
    """
    write_parquet(table, folder / "candidates.parquet")
    structures = write_extxyz(table, batch, folder / "candidates.extxyz")
    cifs = folder / "structures"
    cifs.mkdir(exist_ok=True)
    for structure, row in zip(structures[:top], table.itertuples(), strict=False):
        path = cifs / f"{file_stem(str(row.id), str(row.formula))}.cif"
        if not path.exists():
            _write_text(path, str(CifWriter(structure, symprec=0.01)))


def write_extxyz(table: pd.DataFrame, batch: OrbitBatch, path: Path) -> list[Structure]:
    """Crystals with every number and name of their row; returns the structures that were written."""
    structures = list(decode(batch).structures()) if len(table) else []
    _write_text(path, _extxyz(table, structures))
    return structures


def conventional(structure: Structure) -> Structure:
    """Conventional cell, for pictures."""
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    return SpacegroupAnalyzer(structure, symprec=0.01).get_conventional_standard_structure()


def _extxyz(table: pd.DataFrame, structures: list[Structure]) -> str:
    """Extended XYZ with every number and name of the table in the comment line."""
    blocks = []
    skip = {"atomic_numbers", "coordinates", "strain", "letters"}
    for structure, (_, row) in zip(structures, table.iterrows(), strict=True):
        lattice = " ".join(f"{x:.8f}" for x in structure.lattice.matrix.ravel())
        fields = [f'Lattice="{lattice}"', "Properties=species:S:1:pos:R:3", 'pbc="T T T"']
        for name, value in row.items():
            if name in skip:
                continue
            if isinstance(value, (bool, np.bool_)):
                fields.append(f"{name}={'T' if value else 'F'}")
            elif isinstance(value, (int, float, np.integer, np.floating)):
                if np.isfinite(value):
                    fields.append(f"{name}={value:.8g}")
            else:
                text = str(value).replace('"', "'").replace("\n", " ")
                fields.append(f'{name}="{text}"')
        lines = [str(len(structure)), " ".join(fields)]
        for site in structure:
            x, y, z = site.coords
            lines.append(f"{site.specie.symbol:3s}{x:16.8f}{y:16.8f}{z:16.8f}")
        blocks.append("\n".join(lines))
    return "\n".join(blocks) + ("\n" if blocks else "")


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def structures_of(batch: OrbitBatch, rows: list[int]) -> list[Structure]:
    """pymatgen structures of some rows."""
    return list(decode(batch.select(torch.tensor(rows, dtype=torch.long))).structures()) if rows else []
