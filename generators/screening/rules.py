"""Cheap rules before anything costly: can these atoms stand there at all?"""

from __future__ import annotations

import torch
from torch import Tensor

from data.cells import decode
from data.contact import covalent_radii, shortest_ratio
from data.decoration import to_orbit_batch, with_volume_per_atom
from data.prototype_table import PrototypeTable

MIN_START_RATIO = 0.5
"""Shortest distance over the sum of covalent radii that a start of a relaxation must have."""


def distance_reasons(table: PrototypeTable, row: Tensor, elements: Tensor, volume_per_atom: Tensor) -> list[str]:
    """Per decoration: ``"sites too close"`` if, in the prototype's reference shape at the expected volume [B] (Å^3
    per atom), two sites are nearer than half the sum of their covalent radii; else empty."""
    batch = with_volume_per_atom(to_orbit_batch(table, row, elements), volume_per_atom)
    with torch.no_grad():
        ratio = shortest_ratio(decode(batch), covalent_radii())
    return ["sites too close" if close else "" for close in (ratio < MIN_START_RATIO).tolist()]
