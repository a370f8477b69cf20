"""CIF: one row per data block that holds atoms."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from pymatgen.core import Structure

from data.sources.rows import RawRow
from data.sources.text import read_text

SUFFIXES = (".cif", ".mcif")
_BLOCK = re.compile(r"(?m)^(?=data_)")


def rows(path: Path, name: str) -> Iterator[RawRow]:
    """Rows of one CIF; ``name`` is the row's id, with ``#block`` added where there are several."""
    blocks = [b for b in _BLOCK.split(read_text(path)) if "_atom_site_" in b]
    if not blocks:
        yield RawRow(name, "unreadable", "the CIF lists no atom sites")
    for block in blocks:
        title = block.split(maxsplit=1)[0].removeprefix("data_")
        yield RawRow(name if len(blocks) == 1 else f"{name}#{title}", "cif", block)


def parse(text: str) -> Structure:
    """The structure of one data block.

    Raises:
        ValueError: the block does not describe one.
    """
    from pymatgen.io.cif import CifParser

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = CifParser.from_str(text).parse_structures(primitive=False)
    return found[0]
