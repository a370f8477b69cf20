"""VASP's POSCAR and CONTCAR."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

from pymatgen.core import Structure

from data.sources.rows import RawRow
from data.sources.text import read_text

SUFFIXES = ("poscar", "contcar", ".vasp", ".poscar", ".contcar")


def rows(path: Path, name: str) -> Iterator[RawRow]:
    """The one row of a POSCAR."""
    yield RawRow(name, "poscar", read_text(path))


def parse(text: str) -> Structure:
    """The structure.

    Raises:
        ValueError: not a POSCAR, or one that does not name its elements.
    """
    from pymatgen.io.vasp.inputs import BadPoscarWarning, Poscar

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", BadPoscarWarning)
        try:
            return Poscar.from_str(text).structure
        except BadPoscarWarning:
            raise ValueError("the POSCAR does not name its elements: add them as line 6") from None
