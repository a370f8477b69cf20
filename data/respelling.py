"""All spellings of a batch of crystals at once: affine maps of free coordinates, as tensors.

A normalizer coset carries an orbit onto an orbit of some letter, and each orbit can be written by any of its
equivalent sites. Both act on the free coordinates u as ``u' = A u + b`` with matrices that depend on the Wyckoff
position alone, so that they are made once and then applied to whole batches. `data.spellings` does the same for one
crystal.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.lattice import lattice_to_strain, strain_to_lattice
from data.orbit_batch import OrbitBatch
from data.symmetry import lattice_translations
from data.wyckoff import wyckoff_table

_TOLERANCE = 1e-6


def affine_spellings(source: int, target: int, matrix: NDArray[np.float64], shift: NDArray[np.float64]) -> Tensor:
    """[M, 3, 4] maps (A | b): orbit ``source`` at u, moved by x -> matrix x + shift, is orbit ``target`` at A u + b.

    Args:
        source, target: position indices of one space group.
        matrix: [3, 3]; shift: [3], in the conventional basis.

    Returns:
        One map for each site of the moved orbit that lies on the first representative of ``target``, for all u.
    """
    table = wyckoff_table()
    group = int(table.space_group[source])
    first = table.images(target)[0].numpy()
    inverse = np.linalg.pinv(first[:, :3])
    operations = table.images(source).numpy()
    linear = matrix @ operations[:, :, :3]  # [m, 3, 3]
    a = inverse @ linear
    on_line = np.abs(first[:, :3] @ a - linear).max((1, 2)) < _TOLERANCE
    origin = np.mod(operations[:, :, 3] @ matrix.T + shift, 1.0)
    place = origin[on_line][:, None] + lattice_translations(group) - first[:, 3]  # [m', T, 3]
    b = place @ inverse.T
    fits = np.abs(b @ first[:, :3].T - place).max(-1) < _TOLERANCE
    m, t = np.nonzero(fits)
    free = table.free[target].numpy()
    wrapped = np.where(free, np.mod(b[m, t] + 1e-5, 1.0) - 1e-5, 0.0)
    maps = np.concatenate([a[on_line][m], wrapped[..., None]], -1).round(9)
    maps = np.unique(maps.reshape(len(maps), 12), axis=0).reshape(-1, 3, 4)
    return torch.from_numpy(maps)


@dataclass(frozen=True, eq=False)
class EquivalentSites:
    """For every Wyckoff position all maps of its free coordinates that leave the orbit the same.

    Attributes:
        start, count: [P] rows of ``maps`` that belong to each position.
        maps: [M, 3, 4].
    """

    start: Tensor
    count: Tensor
    maps: Tensor


@lru_cache(maxsize=1)
def equivalent_sites() -> EquivalentSites:
    """The maps of all 1,731 positions; takes a few seconds once."""
    n = len(wyckoff_table().letter)
    parts = [affine_spellings(p, p, np.eye(3), np.zeros(3)) for p in range(n)]
    count = torch.tensor([len(x) for x in parts])
    return EquivalentSites(torch.cumsum(count, 0) - count, count, torch.cat(parts).float())


@cache
def _coset_maps(space_group: int) -> tuple[Tensor, Tensor, Tensor]:
    """Per coset C and letter n of a group: image position [C, n], map [C, n, 3, 4], inverse transpose [C, 3, 3]."""
    table = wyckoff_table()
    start, n = int(table.position_start[space_group]), int(table.n_positions[space_group])
    cosets = table.cosets(space_group)
    image = torch.stack([start + letters for _, letters in cosets])
    maps = torch.zeros(len(cosets), n, 3, 4, dtype=torch.float64)
    axes = torch.zeros(len(cosets), 3, 3, dtype=torch.float64)
    for c, (affine, _) in enumerate(cosets):
        matrix, shift = affine[:, :3].numpy(), affine[:, 3].numpy()
        axes[c] = torch.linalg.inv(affine[:, :3].double()).mT
        for i in range(n):
            found = affine_spellings(start + i, int(image[c, i]), matrix, shift)
            maps[c, i] = found[0]
    return image, maps, axes


def respell(batch: OrbitBatch, generator: torch.Generator) -> OrbitBatch:
    """Every crystal in a random spelling: normalizer coset, origin along polar axes; orbits keep their order.

    Which of an orbit's equivalent sites stands for it is not drawn here (`equivalent_sites`).
    """
    table = wyckoff_table()
    position, coordinates = batch.position.clone(), batch.coordinates.clone()
    strain = batch.strain.clone()
    for group in torch.unique(batch.space_group).tolist():
        image, maps, axes = _coset_maps(group)
        if len(image) == 1:
            continue
        rows = (batch.space_group == group).nonzero().squeeze(-1)
        coset = torch.randint(len(image), (len(rows),), generator=generator)
        offset = (batch.position[rows] - int(table.position_start[group])).clamp(min=0)
        position[rows] = torch.where(batch.mask[rows], image[coset[:, None], offset], 0)
        map_ = maps.to(coordinates)[coset[:, None], offset]
        moved = (map_[..., :3] @ batch.coordinates[rows][..., None]).squeeze(-1) + map_[..., 3]
        coordinates[rows] = moved
        lattice = strain_to_lattice(torch.tensor(group), batch.strain[rows].double())
        strain[rows] = lattice_to_strain(torch.tensor(group), axes[coset] @ lattice).to(strain)
    origin = torch.rand(len(batch), 1, 3, generator=generator, dtype=torch.float64).to(coordinates)
    coordinates = coordinates + origin * table.polar[batch.space_group][:, None]
    moved_batch = batch.replace(position=position, coordinates=coordinates, strain=strain)
    free = moved_batch.coordinate_mask
    return moved_batch.replace(coordinates=torch.where(free, torch.remainder(coordinates, 1.0), 0.0))
