"""What orbits see of each other in the current cell: distances, and which way they would have to move.

For every orbit i and every orbit j, the neighbours of i's first site among all sites of j (periodic images
included) are summed over radial functions: once plainly, once times the unit vector to the neighbour, written in the
free coordinates of i, and once times the strain that would bring the neighbour nearer. A network that weighs the second
and third kind predicts displacements and strains which obey the site symmetry and the space group by construction.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from data.cells import decode
from data.lattice import N_STRAIN, STRAIN_BASIS, strain_to_lattice
from data.orbit_batch import OrbitBatch
from data.wyckoff import wyckoff_table

NEAREST, FARTHEST = 0.25, 2.35
_SHIFTS = torch.cartesian_prod(*[torch.arange(-1.0, 2.0)] * 3)
_SELF = 1e-3
_CHUNK = 200_000
"""Pairs of sites in one block."""


@dataclass(frozen=True, eq=False)
class PairFeatures:
    """Geometry of B crystals with K orbits in F radial functions; 0 where padded or absent.

    Attributes:
        density: [B, K, K, F] neighbours per radial function, a number.
        pull: [B, K, K, F, 3] change of i's free coordinates for a step of one length unit towards the neighbours.
        strain: [B, K, K, F, 6] strain components towards the neighbours.
    """

    density: Tensor
    pull: Tensor
    strain: Tensor


@lru_cache(maxsize=1)
def _to_free() -> Tensor:
    """[P, 3, 3] fractional displacement of a position's first site -> change of its free coordinates."""
    table = wyckoff_table()
    first = table.operations[table.operation_start][:, :, :3]
    return torch.linalg.pinv(first).float()


def length_unit(volume: Tensor, n_atoms: Tensor) -> Tensor:
    """[B] Å, the edge of a cube that holds one atom."""
    return (volume / n_atoms) ** (1 / 3)


@torch.no_grad()
def pair_features(batch: OrbitBatch, unit: Tensor, n_radial: int) -> PairFeatures:
    """Features of ``batch`` (its coordinates and strain are the current, noisy ones).

    Args:
        batch: B crystals.
        unit: [B] Å, length unit of the radial functions.
        n_radial: F, Gaussians between `NEAREST` and `FARTHEST` units.
    """
    b, k = batch.mask.shape
    device, dtype = batch.coordinates.device, batch.coordinates.dtype
    cells = decode(batch)
    owner, n_atoms = cells.owner, cells.n_atoms
    n_orbits = batch.n_orbits
    first_atom = torch.cumsum(n_atoms, 0) - n_atoms
    start = torch.cumsum(batch.multiplicity, 1) - batch.multiplicity + first_atom[:, None]  # [B, K] first site

    per_atom = n_orbits[owner]
    neighbour = torch.repeat_interleave(torch.arange(len(owner), device=device), per_atom)
    begin = torch.cumsum(per_atom, 0) - per_atom
    center_orbit = torch.arange(len(neighbour), device=device) - begin[neighbour]
    crystal = owner[neighbour]
    center = start[crystal, center_orbit]
    cell = (crystal * k + center_orbit) * k + cells.orbit[neighbour]

    width = 1 + 3 + N_STRAIN
    total = torch.zeros(b * k * k, n_radial * width, dtype=dtype, device=device)
    shifts = _SHIFTS.to(device, dtype)
    grid = torch.linspace(NEAREST, FARTHEST, n_radial, device=device, dtype=dtype)
    spacing = float(grid[1] - grid[0])
    basis = STRAIN_BASIS.to(device, dtype)
    reach = unit * (FARTHEST + spacing)
    for rows in torch.arange(len(cell), device=device).split(_CHUNK):
        who = crystal[rows]
        step = cells.frac_coords[neighbour[rows]] - cells.frac_coords[center[rows]]
        step = step - torch.round(step)
        vectors = (step[:, None] + shifts) @ cells.lattice[who]  # [p, 27, 3]
        distance = vectors.norm(dim=-1)
        near = (distance > _SELF) & (distance < reach[who][:, None])
        pair, _ = near.nonzero(as_tuple=True)  # most images of a large cell are too far away
        vector, distance = vectors[near], distance[near]
        scaled = distance / unit[who[pair]]
        radial = torch.exp(-0.5 * ((scaled[:, None] - grid) / spacing) ** 2)
        direction = vector / distance[:, None]
        stretch = ((direction @ basis.flatten(0, 1).mT).unflatten(-1, (N_STRAIN, 3)) * direction[:, None]).sum(-1)
        what = torch.cat([torch.ones_like(distance)[:, None], direction, stretch * scaled[:, None]], -1)
        total.index_add_(0, cell[rows[pair]], (radial[:, :, None] * what[:, None]).flatten(1))
    summed = total.view(b, k, k, n_radial, width)
    box = strain_to_lattice(batch.space_group, batch.strain)
    fractional = torch.linalg.inv(box) * unit[:, None, None]  # one unit in Å -> conventional fractions
    to_free = _to_free().to(device, dtype)[batch.position]  # [B, K, 3, 3]
    turn = torch.einsum("bxy,bkuy->bkxu", fractional, to_free)
    pull = torch.einsum("bijfx,bixu->bijfu", summed[..., 1:4], turn)
    return PairFeatures(summed[..., 0], pull, summed[..., 4:])
