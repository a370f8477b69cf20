"""CSV and Parquet tables, read in chunks: one crystal per row, every numeric column a label.

The crystals may be written as a CIF, POSCAR or pymatgen JSON in one column; as the columns ``lattice``,
``atomic_numbers`` and ``frac_coords``; as a prototype and its elements; or as `data.frames` writes them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pymatgen.core import Element

from data.contact import touching_volume
from data.crystal import Crystal
from data.decoration import with_volume_per_atom
from data.frames import CRYSTAL_COLUMNS, from_frame
from data.orbit_batch import OrbitBatch
from data.prototypes import Prototype, PrototypeLibrary
from data.sources.rows import Kind, RawRow, as_label
from data.sources.text import suffix_of

SUFFIXES = (".csv", ".parquet")
CHUNK = 1000
STRUCTURE_COLUMNS = ("structure", "cif", "poscar")
ARRAY_COLUMNS = ("lattice", "frac_coords", "atomic_numbers")
ID_COLUMNS = ("material_id", "id", "entry_id")
_ROW_NUMBERS = ("", "index", "Unnamed: 0", "__index_level_0__")


_Reader = Callable[[pd.DataFrame, list[dict[str, float]]], list[tuple[Kind, Any, str]]]


@dataclass(frozen=True)
class TableColumns:
    """What the columns of a table mean; None is found out from their names.

    Attributes:
        structure: column with a CIF, POSCAR or pymatgen JSON per row.
        identifier: column with ids; row numbers without one.
        prototype: name of the prototype of all rows; without it the column ``prototype`` says it row by row.
        elements: columns with the element of each slot of the prototype, in its order; without it the
            column ``elements`` lists them (``"K Na Al F"`` or a list).
        properties: numeric columns to read; all of them without it.
    """

    structure: str | None = None
    identifier: str | None = None
    prototype: str | None = None
    elements: Sequence[str] | None = None
    properties: Sequence[str] | None = None


def rows(path: Path, columns: TableColumns, library: PrototypeLibrary) -> Iterator[RawRow]:
    """Rows of a table.

    Raises:
        ValueError: unreadable file, no rows, a column that is not there, no column with crystals, or an
            unknown prototype.
    """
    number = 0
    plan: _Plan | None = None
    for chunk in _chunks(path):
        plan = plan or _Plan.make(chunk, columns, path.name, library)
        yield from plan.rows(chunk, number)
        number += len(chunk)
    if number == 0:
        raise ValueError(f"path={str(path)!r}: the table holds no rows")


def _chunks(path: Path) -> Iterator[pd.DataFrame]:
    if not path.is_file():
        raise ValueError(f"path={str(path)!r}: no such file")
    try:
        if suffix_of(path) == ".csv":
            yield from pd.read_csv(path, dtype=str, keep_default_na=False, chunksize=CHUNK)
        else:
            import pyarrow.parquet as pq

            with pq.ParquetFile(path) as table:
                for batch in table.iter_batches(batch_size=CHUNK):
                    yield batch.to_pandas()
    except (OSError, ValueError) as error:  # pandas' and Arrow's errors are ValueErrors
        text = " ".join(str(error).split())
        raise ValueError(f"path={str(path)!r}: cannot be read as {suffix_of(path)[1:]} ({text})") from None


@dataclass(frozen=True)
class _Plan:
    """How to read a table, decided on its first chunk."""

    identifier: str | None
    labels: tuple[str, ...]
    read: _Reader

    @classmethod
    def make(cls, chunk: pd.DataFrame, columns: TableColumns, table: str, library: PrototypeLibrary) -> _Plan:
        present = [str(c) for c in chunk.columns]
        listed = f"{table} has {', '.join(present)}"

        def need(name: str, key: str) -> str:
            if name not in present:
                raise ValueError(f"{key}={name!r}: no such column, {listed}")
            return name

        if columns.identifier is not None:
            need(columns.identifier, "identifier")
        identifier = columns.identifier or next((c for c in ID_COLUMNS if c in present), None)
        used = {*ID_COLUMNS, *_ROW_NUMBERS, *([identifier] if identifier else [])}

        structure = columns.structure or next((c for c in STRUCTURE_COLUMNS if c in present), None)
        read: _Reader
        if columns.structure is None and (
            columns.prototype is not None
            or {"prototype", "elements"} <= set(present)
            or ("prototype" in present and columns.elements is not None)
        ):
            elements = tuple(need(c, "elements") for c in columns.elements or ("elements",))
            fixed = None if columns.prototype is None else library.get(columns.prototype)
            read = _DecorationReader(library, fixed, elements)
            used |= {"prototype", *elements}
        elif columns.structure is None and set(CRYSTAL_COLUMNS) <= set(present):
            read = _read_own
            used |= set(CRYSTAL_COLUMNS)
        elif structure is not None:
            read = _TextReader(need(structure, "structure"))
            used.add(structure)
        elif set(ARRAY_COLUMNS) <= set(present):
            read = _read_arrays
            used |= set(ARRAY_COLUMNS)
        else:
            raise ValueError(
                "structure=null: no column holds crystals, name one with a CIF, POSCAR or pymatgen JSON, or "
                f"give prototype and elements; {listed}"
            )
        numeric = [c for c in present if c not in used and _is_numeric(chunk[c])]
        if columns.properties is not None:
            for name in columns.properties:
                need(name, "properties")
                if name not in numeric:
                    raise ValueError(f"properties={name!r}: the column is not numeric")
            numeric = list(columns.properties)
        return cls(identifier, tuple(numeric), read)

    def rows(self, chunk: pd.DataFrame, start: int) -> Iterator[RawRow]:
        n = len(chunk)
        names = [str(start + i) for i in range(n)]
        if self.identifier is not None:
            names = [str(x) if str(x).strip() else names[i] for i, x in enumerate(chunk[self.identifier])]
        labels: list[dict[str, float]] = [{} for _ in range(n)]
        reasons = [""] * n
        for column in self.labels:
            for i, value in enumerate(chunk[column].tolist()):
                try:
                    labels[i][column] = as_label(column, value)
                except ValueError as error:
                    reasons[i] = reasons[i] or str(error)
        for i, (kind, payload, prototype) in enumerate(self.read(chunk, labels)):
            if reasons[i]:
                yield RawRow(names[i], "unreadable", reasons[i])
            else:
                yield RawRow(names[i], kind, payload, labels[i], prototype)


def _is_numeric(values: pd.Series) -> bool:
    if pd.api.types.is_bool_dtype(values):
        return False
    if pd.api.types.is_numeric_dtype(values):
        return True
    texts = [x for x in values.tolist() if isinstance(x, str) and x.strip()]
    return (
        bool(texts)
        and len(texts) == sum(isinstance(x, str) and x != "" for x in values.tolist())
        and (pd.to_numeric(pd.Series(texts), errors="coerce").notna().mean() >= 0.5)
    )


@dataclass(frozen=True)
class _TextReader:
    column: str

    def __call__(self, chunk: pd.DataFrame, _: list[dict[str, float]]) -> list[tuple[Kind, Any, str]]:
        return [(*_text_kind(value), "") for value in chunk[self.column].tolist()]


def _text_kind(value: Any) -> tuple[Kind, Any]:
    if isinstance(value, dict):
        return "json", value
    if not isinstance(value, str) or not value.strip():
        return "unreadable", "the structure is empty"
    if value.lstrip().startswith("{"):
        return "json", value
    if "_atom_site_" in value or "_cell_length" in value:
        return "cif", value
    return "poscar", value


def _read_arrays(chunk: pd.DataFrame, _: list[dict[str, float]]) -> list[tuple[Kind, Any, str]]:
    columns = [[_numbers(x) for x in chunk[name].tolist()] for name in ARRAY_COLUMNS]
    return [
        ("unreadable", f"{', '.join(ARRAY_COLUMNS)}: are not lists of numbers", "")
        if any(x is None for x in row)
        else ("arrays", row, "")
        for row in zip(*columns, strict=True)
    ]


def _numbers(value: Any) -> Any:
    """A list, also from its text; None for anything else."""
    if isinstance(value, str):
        try:
            return [float(x) for x in re.split(r"[\s,;\[\]()]+", value) if x]
        except ValueError:
            return None
    return value if isinstance(value, (list, tuple, np.ndarray)) else None


def _read_own(chunk: pd.DataFrame, _: list[dict[str, float]]) -> list[tuple[Kind, Any, str]]:
    prototypes = [str(x) for x in chunk["prototype"]] if "prototype" in chunk.columns else [""] * len(chunk)
    result: list[tuple[Kind, Any, str]] = []
    for i in range(len(chunk)):
        row = chunk.iloc[[i]].copy()
        for name in ("atomic_numbers", "coordinates", "strain"):
            row[name] = [_numbers(row[name].iloc[0])]
        try:
            result.append(("crystal", from_frame(row).to_crystals()[0], prototypes[i]))
        except (ValueError, TypeError, IndexError) as error:
            result.append(("unreadable", f"not a crystal: {error}", ""))
    return result


@dataclass(frozen=True)
class _DecorationReader:
    library: PrototypeLibrary
    prototype: Prototype | None
    elements: tuple[str, ...]

    def __call__(self, chunk: pd.DataFrame, labels: list[dict[str, float]]) -> list[tuple[Kind, Any, str]]:
        result: list[tuple[Kind, Any, str]] = []
        names = chunk["prototype"].tolist() if self.prototype is None else [""] * len(chunk)
        columns = zip(*(chunk[name].tolist() for name in self.elements), strict=True)
        for name, written in zip(names, columns, strict=True):
            try:
                prototype = self.prototype or self.library.get(str(name))
                numbers = _elements(written[0] if self.elements == ("elements",) else written)
                result.append(("crystal", prototype.crystal(numbers), prototype.name))
            except ValueError as error:
                result.append(("unreadable", str(error), ""))
        return _with_volumes(result, labels)


def _elements(written: Any) -> list[int]:
    tokens = re.split(r"[\s,;|\[\]'\"-]+", written) if isinstance(written, str) else list(written)
    return [_element(str(x)) for x in tokens if str(x)]


@cache
def _element(symbol: str) -> int:
    try:
        number = Element.from_Z(int(symbol)).Z if symbol.isdigit() else Element(symbol).Z
    except ValueError:
        raise ValueError(f"elements={symbol!r}: is not an element") from None
    return int(number)


def _with_volumes(read: list[tuple[Kind, Any, str]], labels: list[dict[str, float]]) -> list[tuple[Kind, Any, str]]:
    """Crystals on the reference geometry, at the labelled volume or else at the one where atoms touch."""
    index = [i for i, (kind, _, _) in enumerate(read) if kind == "crystal"]
    if not index:
        return read
    batch = OrbitBatch.from_crystals([read[i][1] for i in index])
    known = torch.tensor([labels[i].get("volume_per_atom", torch.nan) for i in index], dtype=torch.float64)
    volume = torch.where(known > 0, known, touching_volume(batch))
    crystals: list[Crystal] = with_volume_per_atom(batch, volume).to_crystals()
    result = list(read)
    for i, crystal in zip(index, crystals, strict=True):
        result[i] = ("crystal", crystal, read[i][2])
    return result
