"""Crystals as columns of a table, and back."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd
import torch

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
    flat = {
        name: [np.asarray(row, dtype=np.float64) for row in frame[name]]
        for name in ("atomic_numbers", "coordinates", "strain")
    }
    for sites, zs, us, strain in zip(positions, *flat.values(), strict=True):
        if not sites or (len(zs), us.size, len(strain)) != (len(sites), 3 * len(sites), N_STRAIN):
            raise ValueError(
                f"letters, atomic_numbers, coordinates, strain: {len(sites)} orbits need as many atomic numbers, three "
                f"times as many coordinates and {N_STRAIN} strains, got {len(zs)}, {us.size} and {len(strain)}"
            )
    return OrbitBatch.from_sites(
        torch.tensor(groups),
        torch.tensor([len(sites) for sites in positions]),
        torch.tensor([p for sites in positions for p in sites]),
        torch.from_numpy(np.concatenate(flat["atomic_numbers"])).long(),
        torch.from_numpy(np.concatenate([us.reshape(-1, 3) for us in flat["coordinates"]])),
        torch.from_numpy(np.stack(flat["strain"])),
    )


@lru_cache(maxsize=65536)
def _split(letters: str) -> tuple[str, ...]:
    return tuple(letters.split())
