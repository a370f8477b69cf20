"""Physics that holds for any weights: rotations, copies, site symmetry."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from e3nn import o3
from pymatgen.core import Lattice, Structure
from torch_geometric.data import Batch

from data.properties import PropertySpec
from generators.structures.graph import structure_graph
from generators.structures.network import StructureConfig, StructureNetwork
from generators.structures.tensors import (
    FORMULAS,
    from_cartesian,
    from_irreducible,
    matrix_log,
    model_tensor,
    rotate,
    tensor_target,
    to_cartesian,
    to_irreducible,
)

DIELECTRIC = PropertySpec("dielectric", readout="tensor", symmetry="ij=ji")
PIEZO = PropertySpec("piezo", readout="tensor", symmetry="ijk=ikj")
ELASTIC = PropertySpec("elastic", readout="tensor", symmetry="ijkl=jikl=klij")
SCALARS = tuple(PropertySpec(kind, readout=kind) for kind in ("sum", "mean", "localised"))
CONFIG = StructureConfig(width=8, depth=2, n_radial=6, cutoff=4.0)


def network(*specs: PropertySpec, config: StructureConfig = CONFIG) -> StructureNetwork:
    torch.manual_seed(0)
    return StructureNetwork(specs, config).double().eval()


def predict(model: StructureNetwork, *structures: Structure) -> list[torch.Tensor]:
    graph = Batch.from_data_list([structure_graph(s, CONFIG.cutoff) for s in structures])
    graph.edge_vector = graph.edge_vector.double()
    with torch.no_grad():
        means, _ = model(graph)
    return [
        from_irreducible(mean, spec.symmetry) if spec.readout == "tensor" else mean
        for mean, spec in zip(means, model.specs, strict=True)
    ]


def salt() -> Structure:
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def wurtzite() -> Structure:
    return Structure.from_spacegroup(
        "P6_3mc", Lattice.hexagonal(3.25, 5.2), ["Zn", "O"], [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.38]]
    )


def triclinic() -> Structure:
    rng = np.random.default_rng(0)
    return Structure(Lattice.from_parameters(4, 5, 6, 80, 95, 103), ["Li", "O", "Fe", "S"], rng.random((4, 3)))


def turned(structure: Structure, rotation: torch.Tensor) -> Structure:
    lattice = structure.lattice.matrix @ rotation.numpy().T
    return Structure(Lattice(lattice), structure.species, structure.frac_coords)


@pytest.mark.parametrize("spec", [DIELECTRIC, PIEZO, ELASTIC], ids=lambda s: s.name)
def test_tensors_turn_with_the_crystal(spec: PropertySpec) -> None:
    rotation = o3.rand_matrix().double()
    model = network(spec)
    (before,), (after,) = predict(model, triclinic()), predict(model, turned(triclinic(), rotation))
    assert before.abs().max() > 1e-3
    assert (after - rotate(before, rotation)).abs().max() < 1e-5 * before.abs().max()


def test_scalars_do_not_turn_and_atoms_have_no_order() -> None:
    model = network(*SCALARS)
    reordered = Structure.from_sites([triclinic()[i] for i in (2, 0, 3, 1)])
    first = predict(model, triclinic())
    for other in (turned(triclinic(), o3.rand_matrix().double()), reordered):
        for a, b in zip(first, predict(model, other), strict=True):
            assert torch.allclose(a, b, rtol=1e-5)


def test_symmetry_of_the_crystal_is_symmetry_of_the_tensor() -> None:
    model = network(DIELECTRIC, PIEZO, ELASTIC)
    dielectric, piezo, elastic = predict(model, salt(), wurtzite())
    # Cubic: isotropic. Hexagonal: two values along the axes.
    assert torch.allclose(dielectric[0], dielectric[0, 0, 0] * torch.eye(3, dtype=torch.float64), atol=1e-5)
    assert torch.allclose(dielectric[1], torch.diag(dielectric[1].diagonal()), atol=1e-5)
    assert dielectric[1, 0, 0] == pytest.approx(dielectric[1, 1, 1].item(), abs=1e-5)
    assert abs(dielectric[1, 0, 0] - dielectric[1, 2, 2]) > 1e-4
    # A centre of inversion forbids piezoelectricity; 6mm leaves e31 = e32, e33, e15 = e24.
    assert piezo[0].abs().max() < 1e-5 and piezo[1].abs().max() > 1e-4
    columns = from_cartesian(piezo)[1].reshape(3, 6)
    assert columns[2, 0] == pytest.approx(columns[2, 1].item(), abs=1e-5)
    assert columns[0, 4] == pytest.approx(columns[1, 3].item(), abs=1e-5)
    forbidden = columns.clone()
    forbidden[2, :3] = 0
    forbidden[0, 4] = forbidden[1, 3] = 0
    assert forbidden.abs().max() < 1e-5
    voigt = from_cartesian(elastic)[0].reshape(6, 6)
    assert voigt[0, 0] == pytest.approx(voigt[2, 2].item(), abs=1e-5)
    assert voigt[3, 3] == pytest.approx(voigt[5, 5].item(), abs=1e-5)
    assert voigt[:3, 3:].abs().max() < 1e-5


def test_a_doubled_cell_doubles_only_what_is_extensive() -> None:
    model = network(*SCALARS)
    once, twice = predict(model, triclinic()), predict(model, triclinic().make_supercell([2, 1, 1]))
    for (kind, a), b in zip(zip(("sum", "mean", "localised"), once, strict=True), twice, strict=True):
        assert b.item() == pytest.approx(a.item() * (2 if kind == "sum" else 1), rel=1e-5)


def test_two_distant_copies() -> None:
    # Two molecules so far apart that they do not see each other.
    def molecules(*shifts: float) -> Structure:
        box = Lattice.orthorhombic(60, 12, 12)
        positions = [(x + d, 6.0, 6.0 + e) for x in shifts for d, e in ((0, 0), (1.2, 0), (0.4, 1.1))]
        return Structure(box, ["O", "H", "H"] * len(shifts), positions, coords_are_cartesian=True)

    model = network(*SCALARS)
    one, two = predict(model, molecules(10)), predict(model, molecules(10, 40))
    assert two[0].item() == pytest.approx(2 * one[0].item(), rel=1e-5)
    assert two[1].item() == pytest.approx(one[1].item(), rel=1e-5)
    assert two[2].item() == pytest.approx(one[2].item(), rel=1e-5)


def test_a_localised_read_out_leaves_the_spectators_out() -> None:
    # With a score that prefers one kind of atom, other atoms far away change a mean but not the localised value.
    from generators.structures.readout import read_out

    values = torch.tensor([[1.0], [2.0], [50.0], [60.0]], dtype=torch.float64)
    scores = torch.tensor([30.0, 30.0, -30.0, -30.0], dtype=torch.float64)
    crystal = torch.zeros(4, dtype=torch.long)
    assert read_out(values, scores, crystal, 1, "localised").item() == pytest.approx(1.5)
    assert read_out(values, scores, crystal, 1, "mean").item() == pytest.approx(113 / 4)


@pytest.mark.parametrize("length", [9, 18, 36])
def test_voigt_and_irreducible_parts_are_inverted_and_keep_the_norm(length: int) -> None:
    values = torch.randn(5, length, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tensor = to_cartesian(values)
    parts = to_irreducible(tensor, FORMULAS[length])
    back = from_irreducible(parts, FORMULAS[length])
    assert torch.allclose(back, tensor, atol=1e-10)
    assert torch.allclose(parts.norm(dim=1), tensor.flatten(1).norm(dim=1))
    again = from_cartesian(back)
    assert torch.allclose(to_cartesian(again), tensor, atol=1e-10)
    assert parts.shape[1] == {9: 6, 18: 18, 36: 21}[length]


def test_a_logarithm_of_a_tensor_is_inverted_and_turns_with_it() -> None:
    spec = PropertySpec("e", transform="log", lower=0, readout="tensor", symmetry="ij=ji")
    root = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tensor = root @ root.mT + 0.1 * torch.eye(3)
    assert torch.allclose(model_tensor(tensor_target(tensor.reshape(4, 9), spec), spec), tensor)
    rotation = o3.rand_matrix().double()
    turned_parts = tensor_target(rotate(tensor, rotation).reshape(4, 9), spec)
    assert torch.allclose(from_irreducible(turned_parts, "ij=ji"), rotate(matrix_log(tensor), rotation))
    assert torch.isnan(tensor_target(-tensor.reshape(4, 9), spec)).all()


def test_tensors_of_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="tensor of 10 numbers"):
        to_cartesian(torch.zeros(1, 10))
    with pytest.raises(ValueError, match="no neighbour within"):
        structure_graph(Structure(Lattice.cubic(20), ["Ar"], [[0, 0, 0]]), 4.0)
