"""Structure files of any format, alone or in a folder."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from pymatgen.core import Structure

from data.sources import cif, extxyz, poscar, pymatgen_json
from data.sources.encoding import parse_row
from data.sources.rows import RawRow
from data.sources.text import suffix_of

_FORMATS = (cif, poscar, extxyz, pymatgen_json)
_LARGEST_ARCHIVE = 8 << 30
SUFFIXES = tuple(suffix for module in _FORMATS for suffix in module.SUFFIXES)


def _format_of(path: Path) -> str:
    """The suffix, where names such as ``POSCAR_NaCl`` and ``NaCl.poscar`` count as ``poscar``."""
    suffix = suffix_of(path)
    stem = suffix.split("_")[0].split("-")[0]
    return stem if stem in ("poscar", "contcar") else suffix


def file_rows(path: Path, name: str) -> Iterator[RawRow]:
    """Rows of one structure file.

    Raises:
        ValueError: unknown suffix, or the file as a whole cannot be read.
    """
    suffix = _format_of(path)
    for module in _FORMATS:
        if suffix in module.SUFFIXES:
            yield from module.rows(path, name)
            return
    raise ValueError(f"path={str(path)!r}: unknown format, use {' '.join(SUFFIXES)}, .csv or .parquet")


def folder_rows(folder: Path) -> Iterator[RawRow]:
    """Rows of all structure files below ``folder``, sorted by path; ids are relative paths without suffix.

    A file that cannot be read becomes one unreadable row.

    Raises:
        ValueError: no structure file in the folder.
    """
    empty = True
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        if _format_of(path) not in SUFFIXES:
            continue
        empty = False
        name = path.relative_to(folder).as_posix().removesuffix(".gz")
        name = name.removesuffix(Path(name).suffix)
        try:
            yield from file_rows(path, name)
        except ValueError as error:
            yield RawRow(name, "unreadable", str(error).split(": ", 1)[-1])
    if empty:
        raise ValueError(f"path={str(folder)!r}: the folder holds no structure file ({' '.join(SUFFIXES)})")


def zip_rows(path: Path) -> Iterator[RawRow]:
    """Rows of all structure files in a zip archive.

    Raises:
        ValueError: not a zip archive, far larger than it looks, or no structure file in it.
    """
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
            if sum(member.file_size for member in archive.infolist()) > _LARGEST_ARCHIVE:
                raise ValueError(f"path={str(path)!r}: unpacks to more than {_LARGEST_ARCHIVE >> 30} GiB")
            archive.extractall(folder)  # members cannot leave it
            try:
                yield from folder_rows(Path(folder))
            except ValueError:
                raise ValueError(f"path={str(path)!r}: holds no structure file ({' '.join(SUFFIXES)})") from None
    except zipfile.BadZipFile:
        raise ValueError(f"path={str(path)!r}: is not a zip archive") from None


def read_structures(path: Path) -> Iterator[tuple[str, Structure]]:
    """(id, structure) of everything in one file.

    Raises:
        ValueError: the file or one of its rows cannot be read.
    """
    for row in file_rows(Path(path), Path(path).stem):
        if row.kind == "unreadable":
            raise ValueError(f"path={str(path)!r}: {row.payload}")
        try:
            yield row.id, parse_row(row)[0]
        except ValueError as error:
            raise ValueError(f"path={str(path)!r}: {error}") from None
