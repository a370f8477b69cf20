"""Crystals as columns of a table, and back."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from data.crystal import positions_of
from data.lattice import N_STRAIN
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
    """Inverse of `to_frame`. Raises ValueError if a column is missing or a row is no crystal."""
    missing = [name for name in CRYSTAL_COLUMNS if name not in frame.columns]
    if missing:
        raise ValueError(f"columns={missing}: not in the table, it has {', '.join(map(str, frame.columns))}")
    if not len(frame):
        raise ValueError("crystals=[]: a batch needs at least one crystal")
    groups, letters = frame["space_group"].astype(int).tolist(), frame["letters"].astype(str).tolist()
    positions = [positions_of(group, _split(text)) for group, text in zip(groups, letters, strict=True)]
    orbits = np.fromiter(map(len, positions), dtype=np.int64, count=len(positions))
    n_numbers, numbers = _rows(frame["atomic_numbers"])
    n_coordinates, coordinates = _rows(frame["coordinates"])
    n_strains, strains = _rows(frame["strain"])
    fits = (orbits > 0) & (n_numbers == orbits) & (n_coordinates == 3 * orbits) & (n_strains == N_STRAIN)
    if not fits.all():
        i = int(np.argmin(fits))
        raise ValueError(
            f"letters, atomic_numbers, coordinates, strain: {orbits[i]} orbits need as many atomic numbers, three "
            f"times as many coordinates and {N_STRAIN} strains, got {n_numbers[i]}, {n_coordinates[i]} and "
            f"{n_strains[i]}"
        )
    return OrbitBatch.from_sites(
        torch.tensor(groups),
        torch.from_numpy(orbits),
        torch.tensor([p for sites in positions for p in sites]),
        torch.from_numpy(numbers).long(),
        torch.from_numpy(coordinates.reshape(-1, 3)),
        torch.from_numpy(strains.reshape(-1, N_STRAIN)),
    )


def _rows(column: pd.Series) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Lengths of the lists of a column, and all their numbers one after the other."""
    lists = column.tolist()
    lengths = np.fromiter(map(len, lists), dtype=np.int64, count=len(lists))
    return lengths, np.concatenate(lists).astype(np.float64)


@lru_cache(maxsize=65536)
def _split(letters: str) -> tuple[str, ...]:
    return tuple(letters.split())
