"""Rough starting volumes: spheres that touch."""

from __future__ import annotations

import numpy as np
import torch
from pymatgen.core import Element
from pymatgen.optimization.neighbors import find_points_in_spheres
from torch import Tensor

from data.cells import CellBatch, decode
from data.orbit_batch import OrbitBatch


def _radius(z: int) -> float:
    radius = Element.from_Z(z).atomic_radius
    return 1.5 if radius is None else float(radius)


def atomic_radii() -> Tensor:
    """[119] Slater's atomic radii, Å (pymatgen); 1.5 where unknown; entry 0 unused."""
    return torch.tensor([0.0] + [_radius(z) for z in range(1, 119)], dtype=torch.float64)


def covalent_radii() -> Tensor:
    """[119] covalent radii, Å (Cordero et al., Dalton Trans. 2832 (2008), as in ASE); 1.5 where unknown."""
    from ase.data import covalent_radii as table

    radii = torch.full((119,), 1.5, dtype=torch.float64)
    radii[: len(table)] = torch.from_numpy(table)[:119]
    return radii


def touching_volume(batch: OrbitBatch) -> Tensor:
    """[B] Å^3 per atom at which the closest pair of `atomic_radii` spheres of each crystal touches."""
    cells = decode(batch)
    ratio = shortest_ratio(cells, atomic_radii())
    return cells.volume / cells.n_atoms / ratio**3


def shortest_ratio(cells: CellBatch, radii: Tensor) -> Tensor:
    """[B] smallest distance over the sum of radii, over all pairs of sites and periodic images.

    Args:
        cells: primitive cells.
        radii: [119] Å by atomic number.
    """
    result = torch.full((len(cells),), torch.inf, dtype=torch.float64)
    counts = cells.n_atoms.tolist()
    start = 0
    lattices = cells.lattice.detach().double().cpu().numpy()
    frac = torch.remainder(cells.frac_coords.detach().double().cpu(), 1.0).numpy()
    sizes = radii[cells.atomic_number.cpu()].numpy()
    for i, (lattice, n) in enumerate(zip(lattices, counts, strict=True)):
        points = np.ascontiguousarray(frac[start : start + n] @ lattice)
        size = sizes[start : start + n]
        reach = 1.2 * abs(np.linalg.det(lattice) / n) ** (1 / 3)
        while not np.isfinite(float(result[i])):
            center, neighbour, _, distance = find_points_in_spheres(
                points, points, r=float(reach), pbc=np.ones(3, dtype=np.int64),
                lattice=np.ascontiguousarray(lattice), tol=1e-8,
            )  # fmt: skip
            other = ~((center == neighbour) & (distance < 1e-8))
            ratio = distance[other] / (size[center] + size[neighbour])[other]
            if len(ratio) and (ratio.min() * 2 * size.max() <= reach or reach > 50):
                result[i] = float(ratio.min())
            reach *= 1.5
        start += n
    return result
