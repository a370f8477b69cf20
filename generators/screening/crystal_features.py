"""What a cheap surrogate sees of a crystal: composition, symmetry, and which elements are how near to each other."""

from __future__ import annotations

import torch
from torch import Tensor

from data.cells import decode
from data.orbit_batch import OrbitBatch
from generators.denoiser.pair_geometry import length_unit, pair_features
from generators.element_features import N_STATES, element_features
from generators.sampling.crystal_geometry import narrowed
from generators.sampling.crystal_task import CRYSTAL_SYSTEMS
from generators.screening.atomic_volumes import additive_volume

N_RADIAL = 8
N_CONTINUOUS = 4
"""The first columns of `element_features`; the rest are one-hot."""
CHUNK = 256


@torch.no_grad()
def crystal_features(batch: OrbitBatch) -> Tensor:
    """[B, F] float32, the same for every spelling of a crystal.

    Shares of the elements; mean, standard deviation, least and largest of the elements' features; crystal system,
    numbers of atoms and orbits; the volume against the sum of the atoms' mean volumes; and the number of neighbours
    at eight distances (in units of the cube root of the volume per atom), plainly and weighted by products
    and sums of the two atoms' electronegativities and radii, and by the difference of the electronegativities.
    """
    order = torch.argsort(batch.n_orbits, stable=True)
    parts = []
    for rows in order.split(CHUNK):
        part = batch.select(rows)
        parts.append(_features(narrowed(part, int(part.n_orbits.max()) if len(part) else 1)))
    return torch.cat(parts)[torch.argsort(order)]


def _features(batch: OrbitBatch) -> Tensor:
    weight = batch.multiplicity.float() * batch.mask
    weight = weight / weight.sum(1, keepdim=True).clamp(min=1)
    share = torch.zeros(len(batch), N_STATES).scatter_add(1, batch.atomic_number, weight)
    table = element_features()
    continuous = table[:, :N_CONTINUOUS]
    mean = share @ table
    spread = (share @ continuous.square() - mean[:, :N_CONTINUOUS].square()).clamp(min=0).sqrt()
    own = continuous[batch.atomic_number]
    missing = ~batch.mask[..., None]
    extremes = [own.masked_fill(missing, torch.inf).amin(1), own.masked_fill(missing, -torch.inf).amax(1)]
    cells = decode(batch)
    volume = (cells.volume / cells.n_atoms).float()
    plain = torch.stack(
        [volume.log(), (volume / additive_volume(batch).float()).log(), cells.n_atoms.float().log(),
         batch.n_orbits.float().log(), (share > 0).sum(1).float(), (share > 0).sum(1) / batch.n_orbits.float()], 1
    )  # fmt: skip
    system = torch.stack(
        [(batch.space_group >= low) & (batch.space_group <= high) for low, high in CRYSTAL_SYSTEMS.values()], 1
    )
    return torch.cat([share, mean, spread, *extremes, plain, system.float(), _neighbours(batch, weight)], 1)


def _neighbours(batch: OrbitBatch, weight: Tensor) -> Tensor:
    """[B, 6 * N_RADIAL]."""
    like = batch.replace(coordinates=batch.coordinates.float(), strain=batch.strain.float())
    cells = decode(like)
    density = pair_features(like, length_unit(cells.volume, cells.n_atoms), N_RADIAL).density  # [B, K, K, F]
    values = element_features()[batch.atomic_number][..., :2]  # electronegativity, radius
    left, right = values[:, :, None], values[:, None]
    apart = (left - right)[..., :1].abs()
    kinds = torch.cat([torch.ones_like(apart), left * right, left + right, apart], -1)
    return torch.einsum("bi,bijf,bijk->bkf", weight, density, kinds).flatten(1)
