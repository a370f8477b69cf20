"""The frame of a tensor: it must be that of the structure's lattice, and the crystal's symmetry can tell.

Databases often give tensors in the axes of the IEEE standard on piezoelectricity (176-1987) beside a lattice in some
other orientation. Read as they are, such labels contradict the site symmetry: no equivariant network can learn them.
"""

from __future__ import annotations

import moyopy
import numpy as np
import torch
from pymatgen.core import Structure
from pymatgen.core.tensors import Tensor as PymatgenTensor
from torch import Tensor

from data.symmetry import quieten_moyo
from generators.structures.tensors import from_cartesian, rotate, to_cartesian

FORBIDDEN = 0.3
"""Share of a tensor's norm that may be forbidden by symmetry; calculations leave a few per cent."""
SYMPREC = 0.01


def point_group(structure: Structure) -> Tensor:
    """[n, 3, 3] Cartesian rotations, proper and improper, of the crystal (row-vector lattice, r' = R r)."""
    quieten_moyo()
    numbers = [site.specie.Z for site in structure]
    cell = moyopy.Cell(structure.lattice.matrix.tolist(), structure.frac_coords.tolist(), numbers)
    rotations = np.unique(np.array(moyopy.MoyoDataset(cell, symprec=SYMPREC).operations.rotations), axis=0)
    columns = structure.lattice.matrix.T
    return torch.from_numpy(columns @ rotations @ np.linalg.inv(columns))


def symmetrised(tensor: Tensor, structure: Structure) -> Tensor:
    """The part of a Cartesian tensor [3, ...] that the crystal's point group allows."""
    group = point_group(structure).to(tensor)
    return torch.stack([rotate(tensor[None], rotation)[0] for rotation in group]).mean(0)


def check_frame(tensor: Tensor, structure: Structure, name: str) -> None:
    """Raises ValueError if the crystal's symmetry forbids more than `FORBIDDEN` of a tensor [3, ...]."""
    norm = float(tensor.norm())
    if not norm > 0:
        return
    forbidden = float((tensor - symmetrised(tensor, structure)).norm()) / norm
    if forbidden > FORBIDDEN:
        raise ValueError(
            f"{name}: the crystal's symmetry forbids {forbidden:.0%} of this tensor, it must be given in the frame of "
            "the lattice (data.tensor_frame=ieee turns tensors in the axes of the IEEE standard)"
        )


def from_ieee(tensor: Tensor, structure: Structure) -> Tensor:
    """A tensor [3, ...] from the IEEE axes of the crystal (as pymatgen has them) to the frame of the lattice.

    The standard leaves signs of axes open for some classes, so that signs of piezoelectric components may differ
    between databases.
    """
    to_ieee = torch.from_numpy(np.array(PymatgenTensor.get_ieee_rotation(structure), dtype=np.float64))
    return rotate(tensor[None], to_ieee.T.to(tensor))[0]


def in_lattice_frame(values: Tensor, structure: Structure, frame: str, name: str) -> Tensor:
    """[9 | 18 | 36] numbers of a table, turned into the frame of the lattice and checked.

    Args:
        frame: ``structure`` or ``ieee``, in which the numbers are given.

    Raises:
        ValueError: another length, or a tensor that the crystal's symmetry forbids.
    """
    tensor = to_cartesian(values[None].double())[0]
    if not bool(torch.isfinite(tensor).all()):
        return values
    if frame == "ieee":
        tensor = from_ieee(tensor, structure)
    check_frame(tensor, structure, name)
    return from_cartesian(tensor[None])[0]
