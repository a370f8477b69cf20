"""Crystals in two spellings, one of them with less symmetry than it has."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pymatgen.core import Lattice, Structure

from data.crystal import Crystal
from data.lattice import lattice_to_strain
from data.symmetry import encode

Rocksalt = Callable[[str, str, float], tuple[Crystal, Crystal]]


@pytest.fixture
def rocksalt() -> Rocksalt:
    """Of two elements and a cell length (Å), in its own space group and in P1."""

    def both(a: str, b: str, size: float) -> tuple[Crystal, Crystal]:
        structure = Structure.from_spacegroup(225, Lattice.cubic(size), [a, b], [[0, 0, 0], [0.5, 0.5, 0.5]])
        small = structure.get_primitive_structure()
        lattice = torch.tensor(small.lattice.matrix, dtype=torch.float64)
        in_p1 = Crystal(
            1, ("a", "a"), tuple(site.specie.Z for site in small), tuple(tuple(u) for u in small.frac_coords.tolist()),
            tuple(lattice_to_strain(torch.tensor(1), lattice).tolist()),
        )  # fmt: skip
        return encode(structure), in_p1

    return both
