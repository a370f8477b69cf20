"""What an interatomic potential is: cells in, energies out, differentiable, and never NaN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.cells import CellBatch

MIN_DISTANCE = 0.5
"""Å; a cell with a shorter distance counts as collapsed."""
MIN_VOLUME_PER_ATOM, MAX_VOLUME_PER_ATOM = 3.0, 300.0
"""Å^3; denser cells count as collapsed (and would cost thousands of neighbours), thinner ones as exploded."""


@dataclass(frozen=True, eq=False)
class PotentialOutput:
    """Energies of B cells with N atoms in all.

    Attributes:
        energy: [B] eV per cell (0 where not valid).
        valid: [B] bool; false for collapsed and exploded cells, cells with an isolated atom, and cells with
            an element that the potential does not know.
        reason: B strings, empty where valid.
        magnetic_moment: [N] absolute moments, µB, or None if not wanted or not known to the potential.
    """

    energy: Tensor
    valid: Tensor
    reason: tuple[str, ...]
    magnetic_moment: Tensor | None


class Potential(Protocol):
    """Anything that gives energies of cells.

    Attributes:
        scale: energy scale, for instance ``CHGNet 0.3.0``; energies of two scales are never compared.
        gives_moments: whether it knows magnetic moments.
        n_evaluations: cells evaluated so far.
    """

    n_evaluations: int

    @property
    def scale(self) -> str:
        """Energy scale."""
        ...

    @property
    def gives_moments(self) -> bool:
        """Whether it knows magnetic moments."""
        ...

    def evaluate(
        self, cells: CellBatch, magnetic_moments: bool = False, generic: CellBatch | None = None
    ) -> PotentialOutput:
        """Energies of all cells, in their order; gradients flow to ``frac_coords`` and ``lattice``, once.

        Args:
            cells: primitive cells; not changed.
            magnetic_moments: also give the moments of the atoms.
            generic: `generators.oracles.crystal_graph.generic_cells` of the same crystals: a potential may use
                it to evaluate equivalent sites once. Gradients then hold along the free parameters only.
        """
        ...


def best_device(wanted: str = "auto") -> str:
    """``auto`` is CUDA, else MPS, else the CPU; anything else is taken as it is."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def to_numpy(values: Tensor) -> NDArray[np.float64]:
    """Detached, on the CPU, in double precision."""
    return values.detach().cpu().double().numpy()


def cell_problem(coords: NDArray[np.float64], lattice: NDArray[np.float64]) -> str:
    """Why a cell cannot be evaluated, before its neighbours are searched; empty if it can.

    Args:
        coords: [n, 3] fractional.
        lattice: [3, 3] rows, Å.
    """
    if not np.isfinite(lattice).all() or not np.isfinite(coords).all():
        return "not a number"
    volume = abs(np.linalg.det(lattice)) / len(coords)
    if volume < MIN_VOLUME_PER_ATOM:
        return "collapsed"
    if volume > MAX_VOLUME_PER_ATOM:
        return "exploded"
    return ""


def neighbour_problem(center: NDArray[np.int64], distance: NDArray[np.float64], n_centers: int) -> str:
    """Why neighbour pairs [E] (Å) around ``n_centers`` atoms cannot be evaluated; empty if they can."""
    if len(distance) and distance.min() < MIN_DISTANCE:
        return "collapsed"
    if len(np.unique(center)) < n_centers:
        return "isolated atom"
    return ""
