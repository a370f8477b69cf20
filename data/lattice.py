"""A chart of conventional cells in which Gaussian noise keeps every cell valid and symmetric.

A conventional lattice (rows, Å) is ``L = F expm(S)`` up to rotation: F is the crystal family's
reference cell of volume 1 Å^3 and S a symmetric matrix (the logarithm of the right stretch), written in
a fixed basis of six matrices. Component 0 is the logarithm of the cell volume; a family leaves free:

=============  =========================  ==========
family         free components            number
=============  =========================  ==========
cubic          volume                     1
hexagonal      volume, c/a                2 (also trigonal, in hexagonal axes)
tetragonal     volume, c/a                2
orthorhombic   volume, c/a, b/a           3
monoclinic     the same and xz            4 (unique axis b)
triclinic      all                        6
=============  =========================  ==========
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

N_STRAIN = 6
_S2, _S6 = math.sqrt(2), math.sqrt(6)

STRAIN_BASIS = torch.tensor(
    [
        [[1 / 3, 0, 0], [0, 1 / 3, 0], [0, 0, 1 / 3]],
        [[-1 / _S6, 0, 0], [0, -1 / _S6, 0], [0, 0, 2 / _S6]],
        [[1 / _S2, 0, 0], [0, -1 / _S2, 0], [0, 0, 0]],
        [[0, 0, 1 / _S2], [0, 0, 0], [1 / _S2, 0, 0]],
        [[0, 0, 0], [0, 0, 1 / _S2], [0, 1 / _S2, 0]],
        [[0, 1 / _S2, 0], [1 / _S2, 0, 0], [0, 0, 0]],
    ],
    dtype=torch.float64,
)

FAMILIES = ("triclinic", "monoclinic", "orthorhombic", "tetragonal", "hexagonal", "cubic")
_LAST_NUMBER = (2, 15, 74, 142, 194, 230)
_N_FREE = torch.tensor([6, 4, 3, 2, 2, 1])
_HEXAGONAL = FAMILIES.index("hexagonal")


def crystal_family(space_group: Tensor) -> Tensor:
    """Index into ``FAMILIES`` for space-group numbers of any shape (trigonal counts as hexagonal)."""
    return torch.bucketize(space_group, torch.tensor(_LAST_NUMBER, device=space_group.device))


def strain_mask(space_group: Tensor) -> Tensor:
    """[..., 6] bool: the chart components that the crystal family leaves free."""
    n_free = _N_FREE.to(space_group.device)[crystal_family(space_group)]
    return torch.arange(N_STRAIN, device=space_group.device) < n_free[..., None]


def reference_cell(space_group: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """[..., 3, 3] reference cell of volume 1 Å^3 (rows): a cube, or a hexagonal cell with c = a."""
    hexagonal = torch.tensor(
        [[1.0, 0.0, 0.0], [-0.5, math.sqrt(3) / 2, 0.0], [0.0, 0.0, 1.0]],
        dtype=dtype,
        device=space_group.device,
    ) * (2 / math.sqrt(3)) ** (1 / 3)
    cube = torch.eye(3, dtype=dtype, device=space_group.device)
    is_hexagonal = (crystal_family(space_group) == _HEXAGONAL)[..., None, None]
    return torch.where(is_hexagonal, hexagonal, cube)


def strain_to_lattice(space_group: Tensor, strain: Tensor) -> Tensor:
    """Conventional lattices [..., 3, 3] (rows, Å) from chart components [..., 6]. Differentiable."""
    basis = STRAIN_BASIS.to(strain)
    free = torch.where(strain_mask(space_group), strain, torch.zeros_like(strain))
    stretch = torch.linalg.matrix_exp((free[..., None, None] * basis).sum(-3))
    return reference_cell(space_group, strain.dtype) @ stretch


def lattice_to_strain(space_group: Tensor, lattice: Tensor) -> Tensor:
    """Chart components [..., 6] of conventional lattices [..., 3, 3] (rows, Å) in any orientation.

    Components that the family does not leave free are dropped: a slightly distorted cell is projected
    onto its family.
    """
    deformation = torch.linalg.solve(reference_cell(space_group, lattice.dtype), lattice)
    values, vectors = torch.linalg.eigh(deformation @ deformation.mT)
    log_stretch = vectors @ torch.diag_embed(0.5 * torch.log(values)) @ vectors.mT
    basis = STRAIN_BASIS.to(lattice)
    norm = (basis * basis).sum((-1, -2))
    strain = (log_stretch[..., None, :, :] * basis).sum((-1, -2)) / norm
    return torch.where(strain_mask(space_group), strain, torch.zeros_like(strain))
