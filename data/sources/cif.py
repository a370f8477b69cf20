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

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            return CifParser.from_str(text).parse_structures(primitive=False)[0]
        except ValueError as error:
            # pymatgen turns the cause into a warning and raises something general.
            causes = [str(w.message) for w in caught if str(w.message).startswith("No structure parsed")]
            cause = causes[-1].split("CIF.", 1)[-1].strip() if causes else str(error)
            raise ValueError(f"the CIF cannot be read: {cause or error}") from None
        except (ArithmeticError, LookupError, TypeError, AttributeError, AssertionError):
            raise ValueError("the CIF cannot be read: it is broken or cut short") from None
