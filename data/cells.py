"""Primitive cells of a batch of crystals, decoded at once and differentiably."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from pymatgen.core import Composition, Element, Lattice, PeriodicSite, Structure
from torch import Tensor

from data.lattice import strain_to_lattice
from data.orbit_batch import OrbitBatch
from data.wyckoff import wyckoff_table


@dataclass(frozen=True, eq=False)
class CellBatch:
    """B primitive cells with N atoms in all.

    Attributes:
        lattice: [B, 3, 3] row vectors, Å.
        frac_coords: [N, 3] fractional, in the primitive basis, not wrapped.
        atomic_number: [N] long.
        n_atoms: [B] long.
        orbit: [N] long, column of the atom's orbit in the `OrbitBatch`.
    """

    lattice: Tensor
    frac_coords: Tensor
    atomic_number: Tensor
    n_atoms: Tensor
    orbit: Tensor

    def __len__(self) -> int:
        return int(self.n_atoms.shape[0])

    @property
    def owner(self) -> Tensor:
        """[N] index of the cell of each atom."""
        return torch.repeat_interleave(torch.arange(len(self), device=self.n_atoms.device), self.n_atoms)

    @property
    def volume(self) -> Tensor:
        """[B] Å^3."""
        return torch.linalg.det(self.lattice).abs()

    def structures(self) -> Iterator[Structure]:
        """pymatgen structures, one by one; coordinates in [0, 1)."""
        lattices = self.lattice.detach().cpu().double().numpy()
        coords = torch.remainder(self.frac_coords.detach().cpu().double(), 1.0).numpy()
        coords[coords == 1.0] = 0.0  # remainder of -1e-17
        numbers = self.atomic_number.tolist()
        start = 0
        for lattice, n in zip(lattices, self.n_atoms.tolist(), strict=True):
            box = Lattice(lattice)
            structure = Structure(box, [], [])
            structure.sites = [
                PeriodicSite(_pure(z), u, box, skip_checks=True)
                for z, u in zip(numbers[start : start + n], coords[start : start + n].copy(), strict=True)
            ]
            yield structure
            start += n


_ELEMENTS: dict[int, Element] = {}


def element(z: int) -> Element:
    """pymatgen element of atomic number ``z``, cached."""
    if z not in _ELEMENTS:
        _ELEMENTS[z] = Element.from_Z(z)
    return _ELEMENTS[z]


@cache
def _pure(z: int) -> Composition:
    # Sites share it: making one per site is what makes pymatgen's own constructor slow.
    return Composition({element(z): 1})


def decode(batch: OrbitBatch) -> CellBatch:
    """Primitive cells of ``batch``; gradients flow to ``coordinates`` and ``strain``."""
    table = wyckoff_table()
    device, dtype = batch.coordinates.device, batch.coordinates.dtype
    primitive = table.primitive_rows.to(device, dtype)[batch.space_group]
    lattice = primitive @ strain_to_lattice(batch.space_group, batch.strain)

    rows, columns = batch.mask.nonzero(as_tuple=True)
    position = batch.position[rows, columns]
    multiplicity = table.primitive_multiplicity.to(device)[position]
    orbit_of_atom = torch.repeat_interleave(torch.arange(len(rows), device=device), multiplicity)
    first = torch.cumsum(multiplicity, 0) - multiplicity
    image = torch.arange(len(orbit_of_atom), device=device) - first[orbit_of_atom]
    operation = table.operation_start.to(device)[position][orbit_of_atom] + image
    affine = table.operations.to(device, dtype)[operation]
    free = table.free.to(device)[position]
    u = torch.where(free, batch.coordinates[rows, columns], torch.zeros((), dtype=dtype, device=device))
    conventional = (affine[:, :, :3] @ u[orbit_of_atom, :, None]).squeeze(-1) + affine[:, :, 3]
    owner = rows[orbit_of_atom]
    to_primitive = torch.linalg.inv(primitive)
    frac_coords = (conventional[:, None, :] @ to_primitive[owner]).squeeze(1)
    return CellBatch(
        lattice=lattice,
        frac_coords=frac_coords,
        atomic_number=batch.atomic_number[rows, columns][orbit_of_atom],
        n_atoms=batch.n_atoms,
        orbit=columns[orbit_of_atom],
    )
