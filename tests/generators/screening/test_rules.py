"""Distances of a start, by hand: rock salt at a known lattice constant."""

from __future__ import annotations

import pytest
import torch
from ase.data import covalent_radii

from data.prototype_table import PrototypeTable
from data.prototypes import prototype_library
from generators.screening.rules import MIN_START_RATIO, distance_reasons


@pytest.mark.parametrize(("factor", "reason"), [(0.98, "sites too close"), (1.02, "")])
def test_rocksalt_at_the_edge(factor: float, reason: str) -> None:
    table = PrototypeTable.build([prototype_library().get("rocksalt")])
    nearest = MIN_START_RATIO * (covalent_radii[11] + covalent_radii[17]) * factor  # Na-Cl = a / 2
    volume_per_atom = (2 * nearest) ** 3 / 8
    got = distance_reasons(
        table, torch.tensor([0]), torch.tensor([[11, 17]]), torch.tensor([volume_per_atom], dtype=torch.float64)
    )
    assert got == [reason]
