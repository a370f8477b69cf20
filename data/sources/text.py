"""Text of a file, plain or gzipped."""

from __future__ import annotations

import gzip
from pathlib import Path


def suffix_of(path: Path) -> str:
    """Lower-case suffix without ``.gz``: ``.cif`` for ``a.CIF.gz``; the file name where there is none."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix or name


def read_text(path: Path) -> str:
    """The whole text.

    Raises:
        ValueError: no such file, an empty one, or no text.
    """
    if not path.is_file():
        raise ValueError(f"path={str(path)!r}: no such file")
    try:
        if path.name.lower().endswith(".gz"):
            with gzip.open(path, "rt", encoding="utf-8") as handle:
                text = handle.read()
        else:
            text = path.read_text(encoding="utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"path={str(path)!r}: cannot be read as text ({error})") from None
    if not text.strip():
        raise ValueError(f"path={str(path)!r}: the file is empty")
    return text
