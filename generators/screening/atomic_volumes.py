"""Cells from atomic volumes: how large a crystal is when nothing but its elements is known.

The volume per atom of a compound is nearly the mean of its elements' volumes, each taken from known compounds.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from data.orbit_batch import OrbitBatch
from generators.oracles.hull import N_ELEMENTS, fractions_of, fractions_of_batch
from generators.oracles.hull_tables import reference_compounds

_STIFFNESS = 1.0
"""Weight (in compounds) that pulls the volume of a rare element to the mean of all."""


@lru_cache(maxsize=1)
def atomic_volumes() -> Tensor:
    """[119] Å^3 by atomic number: least squares to CHGNet's volumes of the embedded known compounds."""
    table = reference_compounds().dropna(subset=["volume_per_atom"])
    shares, volume = fractions_of(table["formula"]), table["volume_per_atom"].to_numpy(dtype=np.float64)
    mean = volume.mean()
    matrix = shares.T @ shares + _STIFFNESS * np.eye(N_ELEMENTS)
    return torch.from_numpy(mean + np.linalg.solve(matrix, shares.T @ (volume - mean)))


def additive_volume(batch: OrbitBatch) -> Tensor:
    """[B] Å^3 per atom: the mean of the atoms' volumes."""
    return torch.from_numpy(fractions_of_batch(batch)) @ atomic_volumes()
