"""Crystals as columns of a table, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from data.crystal import Crystal
from data.orbit_batch import OrbitBatch

CRYSTAL_COLUMNS = ("space_group", "letters", "atomic_numbers", "coordinates", "strain")


def to_frame(batch: OrbitBatch) -> pd.DataFrame:
    """One row per crystal: ``space_group`` (int), ``letters`` (string of k letters separated by blanks),
    ``atomic_numbers`` (k), ``coordinates`` (3 k, flattened) and ``strain`` (6)."""
    crystals = batch.to_crystals()
    return pd.DataFrame(
        {
            "space_group": [c.space_group for c in crystals],
            "letters": [" ".join(c.letters) for c in crystals],
            "atomic_numbers": [list(c.atomic_numbers) for c in crystals],
            "coordinates": [[x for u in c.coordinates for x in u] for c in crystals],
            "strain": [list(c.strain) for c in crystals],
        }
    )


def from_frame(frame: pd.DataFrame) -> OrbitBatch:
    """Inverse of `to_frame`. Raises ValueError if a column is missing."""
    missing = [name for name in CRYSTAL_COLUMNS if name not in frame.columns]
    if missing:
        raise ValueError(f"columns={missing}: not in the table, it has {', '.join(map(str, frame.columns))}")
    columns: list[list[Any]] = [frame[name].tolist() for name in CRYSTAL_COLUMNS]
    crystals = [
        Crystal(
            space_group=int(group),
            letters=tuple(str(letters).split()),
            atomic_numbers=tuple(int(z) for z in numbers),
            coordinates=_triples([float(x) for x in flat]),
            strain=tuple(float(s) for s in strain),
        )
        for group, letters, numbers, flat, strain in zip(*columns, strict=True)
    ]
    return OrbitBatch.from_crystals(crystals)


def _triples(flat: Sequence[float]) -> tuple[tuple[float, float, float], ...]:
    return tuple((flat[i], flat[i + 1], flat[i + 2]) for i in range(0, len(flat), 3))
