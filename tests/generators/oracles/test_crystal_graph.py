"""Joined and merged graphs give CHGNet's own numbers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from pymatgen.core import Element, Lattice, Structure
from torch import Tensor

from data.cells import CellBatch, decode
from data.orbit_batch import OrbitBatch
from data.prototypes import prototype_library
from data.symmetry import encode
from generators.oracles import chgnet_potential, crystal_graph
from generators.oracles.chgnet_potential import CHGNetPotential
from generators.oracles.crystal_graph import Merging, build_graph, find_neighbours, generic_cells

EV_PER_A3_IN_GPA = 160.21766208


@pytest.fixture(scope="module")
def potential() -> CHGNetPotential:
    torch.set_num_threads(1)
    return CHGNetPotential()


def decorated(name: str, *symbols: str) -> OrbitBatch:
    return OrbitBatch.from_crystals([prototype_library().get(name).crystal([Element(s).Z for s in symbols])])


def low_symmetry() -> Structure:
    """Twelve atoms without symmetry: a shaken rock salt."""
    rng = np.random.default_rng(0)
    structure = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.0), ["Ca", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    structure.make_supercell([[1, 0, 0], [0, 1, 0], [0, 0, 2]])
    structure.remove_sites([1, 6, 9, 14])
    lattice = structure.lattice.matrix @ (np.eye(3) + 0.04 * rng.standard_normal((3, 3)))
    moved = structure.frac_coords + 0.02 * rng.standard_normal((len(structure), 3))
    return Structure(lattice, structure.species, moved)


def cells_of(structure: Structure) -> CellBatch:
    return CellBatch(
        torch.tensor(structure.lattice.matrix.copy())[None],
        torch.tensor(structure.frac_coords.copy()),
        torch.tensor([s.Z for s in structure.species]),
        torch.tensor([len(structure)]),
        torch.arange(len(structure)),
    )


@pytest.mark.parametrize("name", ["low symmetry", "metal", "rock salt"])
def test_energy_forces_stress_and_moments_equal_chgnets(potential: CHGNetPotential, name: str) -> None:
    half = [[0, 0, 0], [0.48, 0.5, 0.5]]
    structure = {
        "low symmetry": low_symmetry(),
        "metal": Structure([[0, 1.7, 1.9], [1.8, 0, 1.8], [1.8, 1.8, 0]], ["Fe"], [[0, 0, 0]]),
        "rock salt": Structure([[0, 2.1, 2.1], [2.2, 0, 2.1], [2.1, 2.1, 0]], ["Mn", "O"], half),
    }[name]  # fmt: skip
    cells = cells_of(structure)
    coords, lattice = cells.frac_coords.requires_grad_(), cells.lattice.requires_grad_()
    output = potential.evaluate(cells, magnetic_moments=True)
    to_coords, to_lattice = torch.autograd.grad(output.energy.sum(), [coords, lattice])
    expected = potential.model.predict_structure(structure, task="efsm")
    force = -to_coords.numpy() @ np.linalg.inv(structure.lattice.matrix).T
    stress = structure.lattice.matrix.T @ to_lattice[0].numpy() / structure.volume * EV_PER_A3_IN_GPA
    assert output.magnetic_moment is not None
    assert float(output.energy[0]) / len(structure) == pytest.approx(float(expected["e"]), abs=2e-5)
    assert np.allclose(force, expected["f"], atol=1e-4)
    assert np.allclose(stress / EV_PER_A3_IN_GPA, expected["s"] / EV_PER_A3_IN_GPA, atol=1e-4)  # eV/Å^3
    assert np.allclose(output.magnetic_moment.numpy(), expected["m"], atol=1e-4)


CASES = [
    ("elpasolite", ("Na", "Al", "K", "F")),
    ("perovskite", ("Sr", "Ti", "O")),
    ("rutile", ("Ti", "O")),  # its O-O bonds look different from their two ends
    ("corundum", ("Al", "O")),
    ("orthorhombic_perovskite", ("Ca", "Ti", "O")),
    ("spinel", ("Mg", "Al", "O")),
    ("skutterudite", ("Co", "As")),
]


@pytest.mark.parametrize(("name", "symbols"), CASES)
def test_merging_changes_neither_energy_nor_slopes(
    potential: CHGNetPotential, name: str, symbols: tuple[str, ...]
) -> None:
    batch = decorated(name, *symbols)
    strain, coordinates = batch.strain.requires_grad_(), batch.coordinates.requires_grad_()

    def slopes(generic: CellBatch | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        output = potential.evaluate(decode(batch), magnetic_moments=True, generic=generic)
        gradient = torch.autograd.grad(output.energy.sum(), [strain, coordinates])
        assert output.magnetic_moment is not None
        return output.energy.detach(), output.magnetic_moment, *gradient

    for merged, plain in zip(slopes(generic_cells(batch)), slopes(None), strict=True):
        assert torch.allclose(merged, plain, rtol=1e-4, atol=2e-3)


def test_chance_symmetry_does_not_spoil_the_slope(potential: CHGNetPotential) -> None:
    """A tetragonal crystal with cubic axes: its c/a slope vanishes only if the atoms are cubic too."""
    batch = decorated("rutile", "Ti", "O")
    strain = batch.strain.detach().clone()
    strain[:, 1:] = 0.0
    strain.requires_grad_()
    gradients = []
    for generic in (None, generic_cells(batch)):
        energy = potential.evaluate(decode(batch.replace(strain=strain)), generic=generic).energy
        gradients.append(torch.autograd.grad(energy.sum(), strain)[0])
    assert float(gradients[0][0, 1].abs()) > 0.1
    assert torch.allclose(*gradients, rtol=1e-4, atol=2e-3)


def graph_of(batch: OrbitBatch, merging: Merging) -> crystal_graph.CrystalGraph:
    cells, generic = decode(batch), generic_cells(batch)
    part = find_neighbours(cells.frac_coords.numpy(), cells.lattice[0].numpy(), cells.orbit.numpy(), merging)
    shape = cells if merging == Merging.NOTHING else generic
    return build_graph([part], shape.frac_coords.numpy(), shape.lattice.numpy())


@pytest.mark.parametrize(("name", "symbols"), CASES)
def test_merged_graphs_stand_for_all_pairs(name: str, symbols: tuple[str, ...]) -> None:
    batch = decorated(name, *symbols)
    full = graph_of(batch, Merging.NOTHING)
    merged = graph_of(batch, Merging.ORBITS)
    if len(merged.uneven):
        merged = graph_of(batch, Merging.BOTH_ENDS)
    assert not len(merged.uneven)
    assert not len(full.uneven)
    pairs = (merged.edge_weight * merged.node_weight[merged.edge_center]).sum()
    assert pairs == len(full.edge_center)
    assert merged.node_weight.sum() == len(full.node_atom)
    assert len(merged.edge_center) < 0.6 * len(full.edge_center)


def test_without_symmetry_only_an_atoms_own_images_merge(potential: CHGNetPotential) -> None:
    """The images of an atom at R and -R are equally far from it in any crystal."""
    structure = low_symmetry()
    batch = OrbitBatch.from_crystals([encode(structure)])
    assert int(batch.space_group[0]) == 1
    merged, plain = graph_of(batch, Merging.ORBITS), graph_of(batch, Merging.NOTHING)
    own_merged, own_plain = (g.edge_center == g.edge_neighbour for g in (merged, plain))
    assert (~own_merged).sum() == (~own_plain).sum()
    assert 2 * own_merged.sum() == own_plain.sum()
    assert len(merged.angle_center) == len(plain.angle_center)
    energy = potential.evaluate(decode(batch), generic=generic_cells(batch)).energy
    assert float(energy[0]) == pytest.approx(float(potential.evaluate(cells_of(structure)).energy[0]), abs=1e-3)


def test_chunks_are_invisible(potential: CHGNetPotential, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = decode(OrbitBatch.concatenate([decorated(n, *s) for n, s in CASES[:4]]))
    coords = cells.frac_coords.detach().requires_grad_()
    cells = dataclasses.replace(cells, frac_coords=coords)
    results = []
    for limit in (10_000_000, 1):
        monkeypatch.setattr(chgnet_potential, "CHUNK_PAIRS", limit)
        energy = potential.evaluate(cells).energy
        weights = torch.arange(1.0, 5.0, dtype=energy.dtype)  # each cell's slope must get its own factor
        results.append((energy.detach(), torch.autograd.grad((weights * energy).sum(), coords)[0]))
    assert torch.allclose(results[0][0], results[1][0], atol=1e-3)
    assert torch.allclose(results[0][1], results[1][1], rtol=1e-4, atol=2e-3)
