"""Crystals that are written with less symmetry than they have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from data.crystal import Crystal
from data.full_symmetry import in_full_symmetry
from data.lattice import lattice_to_strain
from data.orbit_batch import OrbitBatch
from data.protostructure import crystal_key
from data.symmetry import encode


def tetragonal_perovskite(c: float, titanium: float) -> Crystal:
    """BaTiO3 in P4mm, a = 4 Å: the positions 1a (Ba), 1b (Ti, O) and 2c (O) with their heights."""
    strain = lattice_to_strain(torch.tensor(99), torch.diag(torch.tensor([4.0, 4.0, c], dtype=torch.float64)))
    heights = [(0.0, 0.0, 0.0), (0.0, 0.0, titanium), (0.0, 0.0, 0.0), (0.0, 0.0, 0.5)]
    return Crystal(99, ("a", "b", "b", "c"), (56, 22, 8, 8), tuple(heights), tuple(strain.tolist()))


def test_more_symmetry_is_found_and_less_is_kept() -> None:
    cubic = encode(
        Structure.from_spacegroup(
            221, Lattice.cubic(4.0), ["Ba", "Ti", "O"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]
        )
    )
    given = [tetragonal_perovskite(4.02, 0.505), tetragonal_perovskite(4.4, 0.58), cubic]
    found = in_full_symmetry(OrbitBatch.from_crystals(given))
    assert [crystal.space_group for crystal in found] == [221, 99, 221]
    assert crystal_key(found[0]) == crystal_key(cubic)
    for kept, before in zip(found[1:], given[1:], strict=True):
        assert kept.letters == before.letters
        assert np.asarray(kept.coordinates) == pytest.approx(np.asarray(before.coordinates), abs=1e-6)
