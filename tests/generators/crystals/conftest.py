"""Crystals in two spellings, one of them with less symmetry than it has; and a model that can learn."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pymatgen.core import Lattice, Structure

from data.crystal import Crystal
from data.exchanges import load_exchanges
from data.lattice import lattice_to_strain
from data.symmetry import encode
from generators.crystals.datamodule import CrystalDataModule, CrystalSource
from generators.crystals.model import load_crystal_model
from generators.crystals.module import CrystalDiffusion
from generators.crystals.task_schema import SOURCES
from generators.shipped import shipped

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


@pytest.fixture(scope="module")
def taught() -> tuple[CrystalDataModule, CrystalDiffusion]:
    """A model without weights, of the shipped one's size, and some embedded exchanges to learn from."""
    model = load_crystal_model(shipped("crystal"))
    module = CrystalDiffusion(model.scales, model.strain_scale, model.known_elements, model.denoiser.config)
    some = load_exchanges().select(torch.arange(0, 30_000, 100))
    source = CrystalSource(SOURCES.index("exchanged"), some, some.keys())
    return CrystalDataModule([source], [scale.name for scale in module.scales], batch_size=8), module
