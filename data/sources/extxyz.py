"""Extended XYZ: one row per frame; numbers in the comment line are labels."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pymatgen.core import Structure

from data.sources.rows import RawRow
from data.sources.text import read_text

SUFFIXES = (".extxyz", ".xyz")


def rows(path: Path, name: str) -> Iterator[RawRow]:
    """Rows of one file; ids are ``name``, or ``name#0``, ``name#1``, ... for several frames."""
    frames = _frames(read_text(path).splitlines())
    first = next(frames)
    second = next(frames, None)
    if second is None:
        yield _row(name, first)
        return
    yield _row(f"{name}#0", first)
    yield _row(f"{name}#1", second)
    for i, frame in enumerate(frames, start=2):
        yield _row(f"{name}#{i}", frame)


def _row(name: str, frame: list[str]) -> RawRow:
    if len(frame) < 2:
        reason = f"line {frame[0]!r} is not a number of atoms, nothing after it was read"
        return RawRow(name, "unreadable", reason)
    return RawRow(name, "extxyz", "\n".join(frame) + "\n")


def _frames(lines: list[str]) -> Iterator[list[str]]:
    position = 0
    while position < len(lines):
        if not lines[position].strip():
            position += 1
            continue
        if not lines[position].strip().isdigit():
            yield [lines[position][:40]]
            return
        end = position + int(lines[position]) + 2
        yield lines[position:end]
        position = end


def parse(text: str) -> tuple[Structure, dict[str, float]]:
    """The structure of one frame and its labels.

    Raises:
        ValueError: the frame is broken, or has no lattice.
    """
    from ase.io import read

    try:
        atoms = read(io.StringIO(text), format="extxyz")
    except Exception as error:  # ASE raises whatever its parser met
        raise ValueError(f"the frame cannot be read: {error}") from None
    if not atoms.pbc.all() or abs(atoms.cell.volume) < 1e-9:
        raise ValueError('the frame has no three-dimensional lattice: write Lattice="..." and pbc="T T T"')
    labels = dict(atoms.info)
    if atoms.calc is not None:
        labels.update(atoms.calc.results)
    numbers = {
        str(key): float(value)
        for key, value in labels.items()
        if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    }
    structure = Structure(atoms.cell.array, atoms.numbers, atoms.get_scaled_positions(wrap=False))
    return structure, {key: value for key, value in numbers.items() if not math.isnan(value)}
