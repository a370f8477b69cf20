"""One entrance for every source of crystals."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch

from data.dataset import CrystalDataset
from data.orbit_batch import OrbitBatch
from data.prototypes import PrototypeLibrary, prototype_library
from data.sources import kept, tables
from data.sources.encoding import MAX_ORBITS, encode_rows
from data.sources.rows import EncodedRow, RawRow, Rejected
from data.sources.structure_files import file_rows, folder_rows, zip_rows
from data.sources.tables import TableColumns
from data.sources.text import suffix_of
from data.symmetry import DEFAULT_SYMPREC

_PART = 2000


@dataclass(frozen=True)
class Source:
    """How to read; every default is what `read_crystals` finds out by itself.

    Attributes:
        columns: what the columns of a table mean.
        symprec: tolerance of the symmetry search, Å.
        max_orbits: crystals with more orbits are left out.
        workers: processes for parsing and symmetry; None is one per core.
        limit: read only so many rows.
        labels: keep the labels, and leave out rows whose labels are impossible.
    """

    columns: TableColumns = field(default_factory=TableColumns)
    symprec: float = DEFAULT_SYMPREC
    max_orbits: int = MAX_ORBITS
    workers: int | None = None
    limit: int | None = None
    labels: bool = True


def read_crystals(
    path: Path,
    source: Source | None = None,
    library: PrototypeLibrary | None = None,
    progress: Callable[[int], object] | None = None,
) -> tuple[CrystalDataset, list[Rejected]]:
    """Crystals and labels: CIF, POSCAR, extxyz, pymatgen JSON (alone, in a
    folder or in a zip), CSV or Parquet.

    Rows that cannot be used are left out with a reason: partial occupancy, unknown elements, coordinates that
    are not finite, overlapping atoms, labels outside their bounds, an id that occurred before, and so on.

    Args:
        path: a structure file, a folder of them (searched through its subfolders), or a table.
        source: how to read.
        library: prototypes for tables of (prototype, elements).
        progress: called with the number of rows done since the last call.

    What a large file gave is kept for the next time (`data.sources.kept`).

    Raises:
        ValueError: the source as a whole is of no use; one line that names the path or the column.
    """
    source, path = source or Source(), Path(path)
    key = None
    if path.is_file() and source.limit is None and library is None:
        key = kept.fingerprint(path, (source.columns, source.symprec, source.max_orbits, source.labels, path.name))
        before = kept.load(key)
        if before is not None:
            if progress is not None:
                progress(len(before[0]) + len(before[1]))
            return before
    dataset, rejected = _read(path, source, library, progress)
    if key is not None:
        kept.keep(key, dataset, rejected)
    return dataset, rejected


def _read(
    path: Path, source: Source, library: PrototypeLibrary | None, progress: Callable[[int], object] | None
) -> tuple[CrystalDataset, list[Rejected]]:
    raw = islice(raw_rows(path, source, library or prototype_library()), source.limit)
    workers = source.workers if source.workers is not None else (os.cpu_count() or 1)
    rejected: list[Rejected] = []
    parts: list[CrystalDataset] = []
    part: list[EncodedRow] = []
    seen: set[str] = set()
    for row in encode_rows(raw, workers, source.symprec, source.max_orbits, source.labels):
        if progress is not None:
            progress(1)
        if row.id in seen:
            rejected.append(Rejected(row.id, f"id={row.id!r}: occurred before"))
        elif row.crystal is None:
            rejected.append(Rejected(row.id, row.reason))
        else:
            part.append(row)
        seen.add(row.id)
        if len(part) == _PART:
            parts.append(_dataset(part))
            part = []
    if part:
        parts.append(_dataset(part))
    if not parts:
        first = f"{rejected[0].id}: {rejected[0].reason}" if rejected else "there are none"
        raise ValueError(f"path={str(path)!r}: none of {len(rejected)} rows can be used ({first})")
    return CrystalDataset.concatenate(parts), rejected


def raw_rows(path: Path, source: Source, library: PrototypeLibrary) -> Iterator[RawRow]:
    """Unparsed rows of any source.

    Raises:
        ValueError: no such path, or the source as a whole cannot be read.
    """
    if path.is_dir():
        return folder_rows(path)
    if not path.exists():
        raise ValueError(f"path={str(path)!r}: no such file or folder")
    if suffix_of(path) == ".zip":
        return zip_rows(path)
    if suffix_of(path) in tables.SUFFIXES:
        return tables.rows(path, source.columns, library)
    name = path.name.removesuffix(".gz")
    return file_rows(path, name.removesuffix(Path(name).suffix))


def _dataset(rows: Iterable[EncodedRow]) -> CrystalDataset:
    rows = list(rows)
    names = dict.fromkeys(name for row in rows for name in row.properties)
    return CrystalDataset(
        batch=OrbitBatch.from_crystals([row.crystal for row in rows if row.crystal is not None]),
        properties={
            name: torch.tensor([row.properties.get(name, math.nan) for row in rows], dtype=torch.float64)
            for name in names
        },
        prototype=tuple(row.prototype for row in rows),
        ids=tuple(row.id for row in rows),
    )
