"""Noise on whole crystals: which fields are hidden, where the geometry is, and what the denoiser sees of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from data.orbit_batch import OrbitBatch
from data.respelling import equivalent_sites
from data.strain_scale import StrainScale
from data.wyckoff import wyckoff_table
from generators.denoiser.crystal_denoiser import NoisyCrystals
from generators.denoiser.pair_geometry import PairFeatures, length_unit, pair_features
from generators.diffusion.interpolants import line_path, torus_path, wrap

STANDARD_VOLUME = 15.0
"""Å^3 per atom that the cell is given while elements are hidden: its size would betray them."""
MOST_SITES = 64


@dataclass(frozen=True, eq=False)
class GeometryPath:
    """Where the geometry of B crystals is at time t, and where it is heading.

    Attributes:
        coordinates: [B, K, 3]; standard_strain: [B, 6] at time t.
        velocity: [B, K, 3] fractional per unit of time, towards noise; strain_velocity: [B, 6].
    """

    coordinates: Tensor
    standard_strain: Tensor
    velocity: Tensor
    strain_velocity: Tensor


def nearest_spelling(batch: OrbitBatch, noise: Tensor, generator: torch.Generator) -> Tensor:
    """[B, K, 3] coordinates of the same crystals, each orbit written by its site nearest to ``noise`` [B, K, 3].

    Of more than `MOST_SITES` equivalent sites a random run is looked at. Along polar axes the origin that minimises the
    mean displacement is taken. Nearest pairs of noise and data make straighter paths (Pooladian et al., ICML 2023).
    """
    sites = equivalent_sites()
    position, device = batch.position, batch.position.device
    count = sites.count.to(device)[position]
    most = min(int(count.max()), MOST_SITES)
    begin = (torch.rand(position.shape, generator=generator).to(device) * count).long()
    offset = (begin[..., None] + torch.arange(most, device=device)) % count[..., None]
    maps = sites.maps.to(batch.coordinates)[sites.start.to(device)[position][..., None] + offset]
    options = (maps[..., :3] @ batch.coordinates[..., None, :, None]).squeeze(-1) + maps[..., 3]
    polar = wyckoff_table().polar.to(device)[batch.space_group][:, None]  # [B, 1, 3]
    free = batch.coordinate_mask
    axes = _axis_lengths(batch)[:, None, None]
    away = wrap(noise[..., None, :] - options) * free[..., None, :] * axes
    best = (away**2).sum(-1).argmin(-1)
    chosen = options.gather(2, best[..., None, None].expand(-1, -1, 1, 3)).squeeze(2)
    shift = (wrap(noise - chosen) * free).sum(1) / free.sum(1).clamp(min=1)
    chosen = chosen + (shift[:, None] * polar)
    return torch.where(free, torch.remainder(chosen, 1.0), torch.zeros_like(chosen))


def geometry_path(batch: OrbitBatch, scale: StrainScale, t: Tensor, generator: torch.Generator) -> GeometryPath:
    """The geometry of clean crystals at times ``t`` [B], on the way to uniform coordinates and a usual lattice."""
    like = batch.coordinates
    noise = torch.rand(like.shape, generator=generator, dtype=torch.float32).to(like) * batch.coordinate_mask
    data = nearest_spelling(batch, noise, generator)
    standard = scale.to_standard(batch, batch.strain)
    strain_noise = torch.randn(standard.shape, generator=generator, dtype=torch.float32).to(standard)
    coordinates, velocity = torus_path(data, noise, t[:, None, None].to(like))
    strain, strain_velocity = line_path(standard, strain_noise * batch.strain_mask, t[:, None].to(standard))
    return GeometryPath(coordinates, strain, velocity * batch.coordinate_mask, strain_velocity)


def observe(
    batch: OrbitBatch,
    scale: StrainScale,
    n_radial: int,
    position_hidden: Tensor,
    element_hidden: Tensor,
    geometry: tuple[Tensor, Tensor, Tensor] | None = None,
    has_geometry: Tensor | None = None,
    copies: Tensor | None = None,
) -> NoisyCrystals:
    """What the denoiser sees.

    Args:
        batch: positions and elements (those hidden do not count).
        scale: of the lattice.
        n_radial: radial functions of the denoiser; 0 if it sees no distances.
        position_hidden, element_hidden: [B, K] bool.
        geometry: coordinates [B, K, 3], standardised strain [B, 6], times [B]; None for no geometry at all.
        has_geometry: [B] bool, rows where it is seen (all where not given).
        copies: [B, K] orbits that each one stands for (1 where not given), without geometry.
    """
    b, k = batch.mask.shape
    device = batch.mask.device
    copies = torch.ones(b, k, dtype=torch.long, device=device) if copies is None else copies
    if geometry is None:
        nothing = torch.zeros(b, dtype=torch.bool, device=device)
        still = batch.replace(
            coordinates=torch.zeros(b, k, 3, device=device), strain=torch.zeros(b, 6, device=device)
        )  # fmt: skip
        return NoisyCrystals(
            still, position_hidden, element_hidden, still.strain, torch.ones(b, device=device), nothing,
            _empty(b, k, n_radial, device), copies,
        )  # fmt: skip
    coordinates, standard, time = (x.float() for x in geometry)
    seen = torch.ones(b, dtype=torch.bool, device=device) if has_geometry is None else has_geometry
    anonymous = (element_hidden & batch.mask).any(-1)
    standard = torch.where(anonymous[:, None] & (torch.arange(6, device=device) == 0), 0.0, standard)
    strain = scale.from_standard(batch, standard)
    conventional = (wyckoff_table().multiplicity.to(device)[batch.position] * batch.mask).sum(-1)
    usual = (STANDARD_VOLUME * conventional).clamp(min=1).log().to(strain)
    strain = torch.cat([torch.where(anonymous, usual, strain[:, 0])[:, None], strain[:, 1:]], 1)
    current = batch.replace(coordinates=coordinates, strain=strain)
    volume = torch.where(anonymous, STANDARD_VOLUME * batch.n_atoms, scale.expected_volume(current)).to(strain)
    unit = length_unit(volume, batch.n_atoms)
    rows = seen.nonzero().squeeze(-1)
    pairs = _empty(b, k, n_radial, device)
    if len(rows) and n_radial:
        found = pair_features(current.select(rows), unit[rows], n_radial)
        pairs.density[rows], pairs.pull[rows], pairs.strain[rows] = found.density, found.pull, found.strain
    return NoisyCrystals(
        current,
        position_hidden,
        element_hidden,
        standard * seen[:, None],
        torch.where(seen, time, 1.0),
        seen,
        pairs,
        copies,
    )


def _empty(b: int, k: int, n_radial: int, device: torch.device) -> PairFeatures:
    zero = torch.zeros(b, k, k, n_radial, device=device)
    return PairFeatures(zero, zero.new_zeros(b, k, k, n_radial, 3), zero.new_zeros(b, k, k, n_radial, 6))


def _axis_lengths(batch: OrbitBatch) -> Tensor:
    """[B, 3] Å."""
    from data.lattice import strain_to_lattice

    return strain_to_lattice(batch.space_group, batch.strain).norm(dim=-1)
