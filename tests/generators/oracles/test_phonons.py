"""Phonons against a lattice that can be solved by hand, CHGNet's own forces, and textbook crystals."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from pymatgen.core import Element, Lattice, Structure
from torch import Tensor

from data.cells import CellBatch, decode
from data.contact import touching_volume
from data.decoration import with_volume_per_atom
from data.orbit_batch import OrbitBatch
from data.prototypes import prototype_library
from data.symmetry import encode
from generators.oracles.chgnet_potential import CHGNetPotential
from generators.oracles.phonons import (
    PhononOracle,
    PhononSettings,
    displaced,
    forces_of,
    lowest_frequency,
    shortest_vector,
    supercell,
)
from generators.oracles.potential import PotentialOutput

EV_PER_A2_AMU_IN_THZ2 = 1.602176634e-19 / 1e-20 / 1.66053906892e-27 / 1e24
SIMPLE_CUBIC, EDGE = Structure(Lattice.cubic(3.0), ["Po"], [[0, 0, 0]]), 3.0


class Springs:
    """A simple cubic lattice whose neighbours are joined by isotropic springs (k, eV/Å^2)."""

    scale = "springs"

    def __init__(self, k: float) -> None:
        self.k = k

    def evaluate(self, cells: CellBatch, **_: Any) -> PotentialOutput:
        energies = []
        start = 0
        for box, n in zip(cells.lattice, cells.n_atoms.tolist(), strict=True):
            r = cells.frac_coords[start : start + n] @ box
            u = r - torch.round(r.detach() / EDGE) * EDGE
            times = torch.round(box.diagonal() / EDGE).long()
            site = torch.round(r.detach() / EDGE).long() % times
            index = {tuple(x): i for i, x in enumerate(site.tolist())}
            pairs = [
                (i, index[tuple((np.array(x) + step) % times.numpy())])
                for x, i in index.items()
                for step in np.eye(3, dtype=int)
            ]
            a, b = torch.tensor(pairs).T
            energies.append(0.5 * self.k * ((u[a] - u[b]) ** 2).sum())
            start += n
        valid = torch.ones(len(cells), dtype=torch.bool)
        return PotentialOutput(torch.stack(energies), valid, ("",) * len(cells), None)


def spring_frequency(k: float) -> float:
    potential: Any = Springs(k)
    cell = decode(OrbitBatch.from_crystals([encode(SIMPLE_CUBIC)]))
    phonons = displaced(cell, PhononSettings(min_length=11.9))
    assert phonons is not None
    forces, reason = forces_of(phonons.supercells_with_displacements, potential)
    assert reason == ""
    return lowest_frequency(phonons, forces, 24.0)


def test_springs_that_push_give_the_imaginary_mode_of_the_zone_corner() -> None:
    # m w^2 = 2 k sum(1 - cos q a), at the corner 12 k.
    exact = math.sqrt(12 * 0.5 / float(Element("Po").atomic_mass) * EV_PER_A2_AMU_IN_THZ2) / (2 * math.pi)
    assert spring_frequency(-0.5) == pytest.approx(-exact, rel=1e-5)
    assert spring_frequency(0.5) == pytest.approx(0, abs=1e-5)


def test_supercells_are_long_enough_and_no_larger_than_needed() -> None:
    assert supercell(np.eye(3) * 4.0, 1, 9.0, 200) == (3, 3, 3)
    assert supercell(np.diag([4.0, 4.0, 20.0]), 2, 9.0, 200) == (3, 3, 1)
    assert supercell(np.eye(3) * 4.0, 5, 9.0, 100) is None
    needle = np.array([[3.0, 0, 0], [0, 3.0, 0], [1.5, 1.5, 12.0]])
    times = supercell(needle, 1, 9.0, 200)
    assert times is not None and shortest_vector(needle * np.array(times)[:, None]) >= 9.0


@pytest.fixture(scope="module")
def potential() -> CHGNetPotential:
    return CHGNetPotential()


def test_forces_are_those_of_chgnet(potential: CHGNetPotential) -> None:
    from phonopy.structure.atoms import PhonopyAtoms

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.7), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
        salt.perturb(0.1, seed=0)
        wurtzite = Structure.from_spacegroup(
            "P6_3mc", Lattice.hexagonal(3.25, 5.2), ["Zn", "O"], [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.38]]
        )
        wurtzite.perturb(0.1, seed=0)
    cells = [
        PhonopyAtoms(numbers=[x.Z for x in s.species], cell=s.lattice.matrix, scaled_positions=s.frac_coords)
        for s in (salt, wurtzite)
    ]
    forces, reason = forces_of(cells, potential)
    assert reason == ""
    for structure, ours in zip((salt, wurtzite), forces, strict=True):
        theirs = potential.model.predict_structure(structure)["f"]
        assert np.abs(ours - theirs).max() < 2e-4 and np.abs(theirs).max() > 0.1


def crystals(*names: tuple[str, ...]) -> OrbitBatch:
    library = prototype_library()
    batch = OrbitBatch.from_crystals(
        [library.get(name).crystal([int(Element(e).Z) for e in elements]) for name, *elements in names]
    )
    volume: Tensor = touching_volume(batch) * 0.8
    return with_volume_per_atom(batch, volume)


def test_textbook_crystals(potential: CHGNetPotential) -> None:
    oracle = PhononOracle(potential, PhononSettings(max_atoms=70))
    batch = crystals(
        ("rocksalt", "Na", "Cl"), ("diamond", "Si"), ("cscl", "Na", "Cl"), ("perovskite", "Cs", "Pb", "I"),
        ("garnet", "Al", "Ca", "O", "Si"),
    )  # fmt: skip
    before = batch.strain.clone()
    result = oracle.evaluate(batch)
    assert torch.equal(before, batch.strain)
    assert result.values["dynamically_stable"][:4].tolist() == [1, 1, 0, 0]
    assert result.values["lowest_frequency"][2] < -1
    assert result.valid.tolist() == [True] * 4 + [False]
    assert result.reason[4] == "cell too large for phonons"
    assert torch.isnan(result.values["dynamically_stable"][4])
    again = oracle.evaluate(batch.select(torch.tensor([2])))
    assert again.values["lowest_frequency"][0] == pytest.approx(float(result.values["lowest_frequency"][2]), abs=1e-3)
