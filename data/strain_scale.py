"""Lattices on a common scale: each chart component against what is usual for its crystal family and elements."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from data.lattice import FAMILIES, N_STRAIN, crystal_family
from data.orbit_batch import OrbitBatch
from data.wyckoff import wyckoff_table

_LEAST = 0.02


def fit_atomic_volumes(fractions: Tensor, volume_per_atom: Tensor) -> Tensor:
    """[119] Å^3 per atom whose means fit the volumes best (non-negative least squares of relative errors).

    Args:
        fractions: [B, 119] share of each element; volume_per_atom: [B] Å^3.

    Returns:
        The mean of the others for elements that occur nowhere.
    """
    target = volume_per_atom.double().numpy()
    fitted, _ = nnls(fractions.double().numpy() / target[:, None], np.ones(len(target)), maxiter=3000)
    present = fitted > 0
    return torch.from_numpy(np.where(present, fitted, fitted[present].mean()))


def element_fractions(batch: OrbitBatch) -> Tensor:
    """[B, 119] share of each element among the atoms."""
    counts = torch.zeros(len(batch), 119, dtype=torch.float64, device=batch.mask.device)
    counts = counts.scatter_add(1, batch.atomic_number, batch.multiplicity.double())
    return counts / counts.sum(1, keepdim=True)


@dataclass(frozen=True, eq=False)
class StrainScale:
    """Standardises the lattice chart of `data.lattice`.

    Component 0, the logarithm of the volume, counts from the sum of the atomic volumes.

    Attributes:
        atomic_volume: [119] Å^3.
        mean, std: [6, 6], by crystal family and component.
    """

    atomic_volume: Tensor
    mean: Tensor
    std: Tensor

    @classmethod
    def fit(cls, batch: OrbitBatch) -> StrainScale:
        """From training crystals."""
        volumes = fit_atomic_volumes(element_fractions(batch), volume_per_atom(batch))
        scale = cls(volumes, torch.zeros(len(FAMILIES), N_STRAIN), torch.ones(len(FAMILIES), N_STRAIN))
        raw = scale.to_standard(batch, batch.strain.double())
        family = crystal_family(batch.space_group)
        mean, std = torch.zeros_like(scale.mean), torch.ones_like(scale.std)
        for i in range(len(FAMILIES)):
            rows = raw[family == i]
            if len(rows) > 1:
                mean[i], std[i] = rows.mean(0), rows.std(0).clamp(min=_LEAST)
        return cls(volumes, mean, std)

    def expected_volume(self, batch: OrbitBatch) -> Tensor:
        """[B] Å^3 of the primitive cell: the sum of the atomic volumes."""
        volume = self.atomic_volume.to(batch.strain)
        return (volume[batch.atomic_number] * batch.multiplicity).sum(-1)

    def to_standard(self, batch: OrbitBatch, strain: Tensor) -> Tensor:
        """[B, 6] standardised components; 0 where not free."""
        family = crystal_family(batch.space_group)
        centred = strain - self._origin(batch, strain) - self.mean.to(strain)[family]
        return centred / self.std.to(strain)[family] * batch.strain_mask

    def from_standard(self, batch: OrbitBatch, standard: Tensor) -> Tensor:
        """[B, 6] chart components, inverse of `to_standard`."""
        family = crystal_family(batch.space_group)
        strain = standard * self.std.to(standard)[family] + self.mean.to(standard)[family]
        return (strain + self._origin(batch, standard)) * batch.strain_mask

    def _origin(self, batch: OrbitBatch, like: Tensor) -> Tensor:
        """[B, 6] zero but for the logarithm of the conventional cell's expected volume."""
        cells = _atoms_in_conventional_cell(batch) / batch.n_atoms.clamp(min=1)
        origin = torch.zeros(len(batch), N_STRAIN, dtype=like.dtype, device=like.device)
        origin[:, 0] = (self.expected_volume(batch).to(like) * cells).clamp(min=1e-3).log()
        return origin

    def state(self) -> dict[str, Tensor]:
        """Tensors for a checkpoint."""
        return {"atomic_volume": self.atomic_volume, "mean": self.mean, "std": self.std}


def volume_per_atom(batch: OrbitBatch) -> Tensor:
    """[B] Å^3, from the first component of the lattice chart."""
    return batch.strain[:, 0].exp() / _atoms_in_conventional_cell(batch)


def _atoms_in_conventional_cell(batch: OrbitBatch) -> Tensor:
    multiplicity = wyckoff_table().multiplicity.to(batch.position.device)[batch.position]
    return (multiplicity * batch.mask).sum(-1)
