from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from pymatgen.core import Lattice

from data.cells import decode
from data.lattice import FAMILIES, crystal_family, lattice_to_strain, strain_mask, strain_to_lattice
from data.orbit_batch import OrbitBatch
from data.prototypes import prototype_library
from data.symmetry import encode
from data.wyckoff import wyckoff_table

ALL = torch.arange(1, 231)


def random_strain(seed: int, size: float = 0.3) -> torch.Tensor:
    noise = torch.randn(230, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    strain = size * noise
    strain[:, 0] += math.log(100.0)
    return torch.where(strain_mask(ALL), strain, torch.zeros_like(strain))


def random_rotation(seed: int) -> torch.Tensor:
    q, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))
    turned: torch.Tensor = q * torch.linalg.det(q)
    return turned


def test_strain_and_lattice_are_inverse_for_every_space_group() -> None:
    strain = random_strain(0)
    assert torch.allclose(lattice_to_strain(ALL, strain_to_lattice(ALL, strain)), strain, atol=1e-10)


def test_strain_does_not_change_when_the_crystal_is_turned() -> None:
    strain = random_strain(1)
    turned = strain_to_lattice(ALL, strain) @ random_rotation(2)
    assert torch.allclose(lattice_to_strain(ALL, turned), strain, atol=1e-10)


def test_first_component_is_the_logarithm_of_the_volume() -> None:
    strain = random_strain(3)
    volume = torch.linalg.det(strain_to_lattice(ALL, strain))
    assert torch.allclose(volume.log(), strain[:, 0], atol=1e-10)


def test_every_cell_obeys_its_family() -> None:
    lattice = strain_to_lattice(ALL, random_strain(4))
    family = [FAMILIES[i] for i in crystal_family(ALL).tolist()]
    for name, matrix in zip(family, lattice.numpy(), strict=True):
        a, b, c, alpha, beta, gamma = Lattice(matrix).parameters
        if name in ("orthorhombic", "tetragonal", "cubic"):
            assert (alpha, beta, gamma) == pytest.approx((90, 90, 90))
        if name == "monoclinic":
            assert (alpha, gamma) == pytest.approx((90, 90))
        if name == "hexagonal":
            assert (alpha, beta, gamma) == pytest.approx((90, 90, 120))
        if name in ("tetragonal", "hexagonal", "cubic"):
            assert a == pytest.approx(b)
        if name == "cubic":
            assert a == pytest.approx(c)


def test_number_of_free_components() -> None:
    counts = {name: int(strain_mask(torch.tensor(n)).sum()) for name, n in
              {"triclinic": 2, "monoclinic": 14, "orthorhombic": 62, "tetragonal": 139, "trigonal": 166,
               "hexagonal": 194, "cubic": 225}.items()}  # fmt: skip
    assert counts == {
        "triclinic": 6, "monoclinic": 4, "orthorhombic": 3, "tetragonal": 2, "trigonal": 2, "hexagonal": 2,
        "cubic": 1,
    }  # fmt: skip


def batch_of(names: list[str]) -> OrbitBatch:
    crystals = []
    for name in names:
        prototype = prototype_library().get(name)
        crystals.append(prototype.crystal([3 + 5 * s for s in range(prototype.n_species)]))
    return OrbitBatch.from_crystals(crystals)


def test_gradients_through_decode_are_finite_differences() -> None:
    batch = batch_of(["wurtzite", "orthorhombic_perovskite", "elpasolite", "monazite", "high_pressure_californium"])
    generator = torch.Generator().manual_seed(5)
    weights: dict[str, torch.Tensor] = {}

    def function(coordinates: torch.Tensor, strain: torch.Tensor) -> torch.Tensor:
        cells = decode(batch.replace(coordinates=coordinates, strain=strain))
        position = (cells.frac_coords[:, None] @ cells.lattice[cells.owner]).squeeze(1)
        if not weights:
            weights["x"] = torch.randn(position.shape, dtype=torch.float64, generator=generator)
            weights["l"] = torch.randn(cells.lattice.shape, dtype=torch.float64, generator=generator)
        return (torch.sin(position) * weights["x"]).sum() + (cells.lattice * weights["l"]).sum()

    coordinates = batch.coordinates.clone().requires_grad_(True)
    strain = batch.strain.clone().requires_grad_(True)
    torch.autograd.backward(function(coordinates, strain))
    assert coordinates.grad is not None and strain.grad is not None
    assert not coordinates.grad[~batch.coordinate_mask].any()
    assert not strain.grad[~batch.strain_mask].any()
    step = 1e-6
    Function = Callable[[torch.Tensor], torch.Tensor]
    of_coordinates: Function = lambda x: function(x, batch.strain)  # noqa: E731
    of_strain: Function = lambda s: function(batch.coordinates, s)  # noqa: E731
    for tensor, grad, mask, other in (
        (batch.coordinates, coordinates.grad, batch.coordinate_mask, of_coordinates),
        (batch.strain, strain.grad, batch.strain_mask, of_strain),
    ):
        for index in mask.nonzero().tolist():
            shift = torch.zeros_like(tensor)
            shift[tuple(index)] = step
            numeric = float(other(tensor + shift) - other(tensor - shift)) / (2 * step)
            assert numeric == pytest.approx(float(grad[tuple(index)]), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(
    "name", ["perovskite", "wurtzite", "rutile", "orthorhombic_perovskite", "monazite", "corundum", "fes2"]
)
def test_strained_crystals_keep_their_space_group(name: str) -> None:
    prototype = prototype_library().get(name)
    crystal = prototype.crystal(list(range(20, 20 + prototype.n_species)))
    batch = OrbitBatch.from_crystals([crystal] * 4)
    noise = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    strained = batch.replace(strain=batch.strain + 0.1 * noise * batch.strain_mask)
    for structure in decode(strained).structures():
        found = encode(structure)
        assert found.space_group == prototype.space_group
        assert len(found.letters) == len(prototype.letters)


def test_decoded_cells_hold_the_stated_number_of_atoms_at_the_stated_volume() -> None:
    batch = batch_of(["elpasolite", "spinel", "garnet", "corundum"])
    cells = decode(batch)
    assert cells.n_atoms.tolist() == [10, 14, 80, 10]
    conventional = torch.linalg.det(strain_to_lattice(batch.space_group, batch.strain))
    centering = torch.tensor([4.0, 4.0, 2.0, 3.0], dtype=torch.float64)
    assert torch.allclose(cells.volume * centering, conventional)
    assert wyckoff_table().centering[230] == "I"
