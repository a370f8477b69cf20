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
MOST_CELLS = 4
"""Periodic images are looked for in at most so many cells along each axis, to either side."""
_SELF = 1e-3
_CHUNK = 3_000_000
"""Periodic images of pairs of sites in one block."""


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
    grid = torch.linspace(NEAREST, FARTHEST, n_radial, device=device, dtype=dtype)
    spacing = float(grid[1] - grid[0])
    basis = STRAIN_BASIS.to(device, dtype)
    reach = unit * (FARTHEST + spacing)
    images, images_start, shifts = _images(cells.lattice, reach)
    step = cells.frac_coords[neighbour] - cells.frac_coords[center]
    step = ((step - torch.round(step))[:, None] @ cells.lattice[crystal]).squeeze(1)
    per_pair = images[crystal]
    end = torch.cumsum(per_pair, 0)
    block = torch.div(end - 1, _CHUNK, rounding_mode="floor")
    for rows in torch.arange(len(cell), device=device).split(torch.bincount(block).tolist()):
        pair = torch.repeat_interleave(rows, per_pair[rows])
        image = torch.arange(len(pair), device=device) - (end - per_pair - end[rows[0]] + per_pair[rows[0]])[pair]
        vector = step[pair] + shifts[images_start[crystal[pair]] + image]
        distance = vector.norm(dim=-1)
        near = ((distance > _SELF) & (distance < reach[crystal[pair]])).nonzero().squeeze(-1)
        pair, vector, distance = pair[near], vector[near], distance[near]
        scaled = distance / unit[crystal[pair]]
        radial = torch.exp(-0.5 * ((scaled[:, None] - grid) / spacing) ** 2)
        direction = vector / distance[:, None]
        stretch = ((direction @ basis.flatten(0, 1).mT).unflatten(-1, (N_STRAIN, 3)) * direction[:, None]).sum(-1)
        what = torch.cat([torch.ones_like(distance)[:, None], direction, stretch * scaled[:, None]], -1)
        total.index_add_(0, cell[pair], (radial[:, :, None] * what[:, None]).flatten(1))
    summed = total.view(b, k, k, n_radial, width)
    box = strain_to_lattice(batch.space_group, batch.strain)
    fractional = torch.linalg.inv(box) * unit[:, None, None]  # one unit in Å -> conventional fractions
    to_free = _to_free().to(device, dtype)[batch.position]  # [B, K, 3, 3]
    turn = torch.einsum("bxy,bkuy->bkxu", fractional, to_free)
    pull = torch.einsum("bijfx,bixu->bijfu", summed[..., 1:4], turn)
    return PairFeatures(summed[..., 0], pull, summed[..., 4:])


def _images(lattice: Tensor, reach: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Translations [I, 3] Å of each of B cells that can bring a site within ``reach`` [B]; how many, and the first.

    They start from the nearest spelling of a pair (fractional steps of at most one half).
    """
    heights = 1 / torch.linalg.inv(lattice).norm(dim=1)  # [B, 3] Å between the planes of each axis
    most = torch.floor(reach[:, None] / heights + 0.5).clamp(max=MOST_CELLS).long()
    sides = 2 * most + 1
    count = sides.prod(-1)
    first = torch.cumsum(count, 0) - count
    owner = torch.repeat_interleave(torch.arange(len(lattice), device=lattice.device), count)
    index = torch.arange(len(owner), device=lattice.device) - first[owner]
    sides, most = sides[owner], most[owner]
    last = index % sides[:, 2]
    middle = torch.div(index, sides[:, 2], rounding_mode="floor")
    whole = torch.stack([torch.div(middle, sides[:, 1], rounding_mode="floor"), middle % sides[:, 1], last], -1) - most
    return count, first, (whole.to(lattice)[:, None] @ lattice[owner]).squeeze(1)
