"""What the format readers hand on: one row per crystal, not yet parsed; and rows that were left out."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from data.crystal import Crystal
from data.properties import known_property

Kind = Literal["cif", "poscar", "extxyz", "json", "arrays", "crystal", "unreadable"]


@dataclass(frozen=True)
class RawRow:
    """One row of a source.

    Attributes:
        id: identifier in the source.
        kind: what ``payload`` is: the text of a CIF, POSCAR or extxyz frame, the plain data of a pymatgen
            JSON, arrays (lattice, fractional coordinates, atomic numbers), a `Crystal`, or, for what
            could not be read at all, the reason.
        payload: see ``kind``.
        properties: labels of the row.
        prototype: name in the library, or empty.
    """

    id: str
    kind: Kind
    payload: Any
    properties: Mapping[str, float] = field(default_factory=dict)
    prototype: str = ""


@dataclass(frozen=True)
class EncodedRow:
    """A `RawRow` after encoding: a crystal, or the reason why there is none."""

    id: str
    crystal: Crystal | None
    reason: str
    properties: Mapping[str, float]
    prototype: str


@dataclass(frozen=True)
class Rejected:
    """A row that was left out, and why."""

    id: str
    reason: str


def label_problem(properties: Mapping[str, float]) -> str:
    """The first label outside its physical bounds, as a reason; empty if there is none."""
    for name, value in properties.items():
        problem = known_property(name).problem(value)
        if problem:
            return problem
    return ""


def as_label(name: str, value: object) -> float:
    """A label from a table's cell; NaN for an empty one.

    Raises:
        ValueError: not a number.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in {"", "nan", "null", "none"}):
        return math.nan
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(f"{name}={value!r}: is not a number") from None


def write_rejected(rejected: Sequence[Rejected], path: Path) -> None:
    """``rejected.parquet``: columns ``id`` and ``reason``. Written under a temporary name, then renamed."""
    frame = pd.DataFrame({"id": [r.id for r in rejected], "reason": [r.reason for r in rejected]}, dtype="str")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    frame.to_parquet(temporary, index=False)
    temporary.replace(path)
