"""Our batched SevenNet against SevenNet's own calculator."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
import torch
from ase import Atoms

from data.cells import CellBatch
from data.orbit_batch import OrbitBatch
from data.prototypes import prototype_library
from generators.oracles import sevennet_potential
from generators.oracles.judge import elemental_references, formation_energy
from generators.oracles.sevennet_potential import SCALE, SevenNetPotential

pytest.importorskip("sevenn")


@pytest.fixture(scope="module")
def potential() -> SevenNetPotential:
    torch.set_num_threads(1)
    return SevenNetPotential()


def random_cells(n_cells: int, seed: int = 0) -> CellBatch:
    """Skewed cells of 2 to 6 atoms at random places, no two closer than 1.6 Å; coordinates not wrapped."""
    rng = np.random.default_rng(seed)
    elements = [1, 3, 8, 11, 17, 22, 26, 29, 38, 57, 79]
    lattices, coords, numbers, counts = [], [], [], []
    while len(counts) < n_cells:
        n = int(rng.integers(2, 7))
        lattice = rng.normal(size=(3, 3)) + 2 * np.eye(3)
        lattice *= (20 * n / abs(np.linalg.det(lattice))) ** (1 / 3)
        x = rng.random((n, 3)) * 3 - 1
        z = rng.choice(elements, n)
        atoms = Atoms(z, cell=lattice, scaled_positions=x, pbc=True)
        distance = atoms.get_all_distances(mic=True)[np.triu_indices(n, 1)]
        if distance.min() > 1.6 and np.linalg.norm(lattice, axis=1).min() > 2:
            lattices.append(lattice)
            coords.append(x)
            numbers.append(z)
            counts.append(n)
    return CellBatch(
        torch.from_numpy(np.array(lattices)),
        torch.from_numpy(np.concatenate(coords)),
        torch.from_numpy(np.concatenate(numbers)),
        torch.tensor(counts),
        torch.zeros(sum(counts), dtype=torch.long),
    )


def test_energies_forces_and_stresses_equal_sevennets_own(potential: SevenNetPotential) -> None:
    from sevenn.calculator import SevenNetCalculator

    calculator = SevenNetCalculator("7net-0", device="cpu")
    cells = random_cells(5)
    coords, lattices = cells.frac_coords.clone().requires_grad_(), cells.lattice.clone().requires_grad_()
    output = potential.evaluate(dataclasses.replace(cells, frac_coords=coords, lattice=lattices))
    slope, strain = torch.autograd.grad(output.energy.sum(), [coords, lattices])
    start = 0
    for i, n in enumerate(cells.n_atoms.tolist()):
        span, box = slice(start, start + n), cells.lattice[i].numpy()
        atoms = Atoms(cells.atomic_number[span], cell=box, scaled_positions=cells.frac_coords[span], pbc=True)
        atoms.calc = calculator
        assert float(output.energy[i]) / n == pytest.approx(atoms.get_potential_energy() / n, abs=1e-4)
        forces = -slope[span].numpy() @ np.linalg.inv(box).T
        assert np.allclose(forces, atoms.get_forces(), atol=1e-3, rtol=1e-4)
        stress = box.T @ strain[i].numpy() / abs(np.linalg.det(box))
        assert np.allclose(stress, atoms.get_stress(voigt=False), atol=1e-5, rtol=1e-4)
        start += n


def test_unknown_elements_are_named_and_others_judged(potential: SevenNetPotential) -> None:
    cells = random_cells(2)
    numbers = cells.atomic_number.clone()
    numbers[0] = 85  # astatine is in no training set
    output = potential.evaluate(dataclasses.replace(cells, atomic_number=numbers))
    assert output.reason == ("unknown element", "")
    assert output.energy.tolist() == [0.0, pytest.approx(float(potential.evaluate(cells).energy[1]), abs=1e-4)]


def test_references_of_another_scale_are_refused() -> None:
    batch = OrbitBatch.from_crystals([prototype_library().get("rocksalt").crystal([11, 17])])
    energy = torch.zeros(len(batch), dtype=torch.float64)
    with pytest.raises(ValueError, match=r"SevenNet-0.*references are 'CHGNet 0.3.0'"):
        formation_energy(batch, energy, elemental_references("CHGNet 0.3.0"), SCALE)
    with pytest.raises(ValueError, match="no elemental references, there are CHGNet"):
        elemental_references("GFN2-xTB")


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sevenn", None)
    with pytest.raises(ImportError, match=r"^SevenNet is not installed: pip install 'raremat\[second\]'$"):
        SevenNetPotential()


def test_one_cell_larger_than_a_chunk_is_still_judged(
    potential: SevenNetPotential, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = random_cells(3)
    expected = potential.evaluate(cells).energy
    monkeypatch.setattr(sevennet_potential, "CHUNK_EDGES", 1)
    assert torch.allclose(potential.evaluate(cells).energy, expected, atol=1e-4)
