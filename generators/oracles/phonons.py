"""Dynamical stability by finite displacements: phonopy with forces of a potential, many crystals at once.

Method: Parlinski, Li and Kawazoe, Phys. Rev. Lett. 78, 4063 (1997); Togo, J. Phys. Soc. Jpn. 92, 012001 (2023). Without
the splitting of longitudinal and transverse optical modes, which moves no mode below zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.cells import CellBatch, decode, element
from data.orbit_batch import OrbitBatch
from generators.oracles.base import OracleResult
from generators.oracles.potential import Potential
from generators.oracles.relaxation import RelaxationSettings, relax

if TYPE_CHECKING:
    from phonopy import Phonopy


@dataclass(frozen=True)
class PhononSettings:
    """How phonons are made.

    Attributes:
        min_length: Å, shortest lattice vector of the supercell.
        max_atoms: in the supercell; larger ones are not evaluated.
        displacement: Å.
        mesh_length: Å, the q mesh samples the Brillouin zone as a supercell of this length would.
        threshold: THz; a crystal is stable if no mode lies below minus this. The forces of a network in single
            precision move acoustic modes near the zone centre by a few hundredths of a THz.
        max_force, max_stress: eV/Å and GPa, of the relaxation before.
        max_evaluations: of that relaxation.
    """

    min_length: float = 9.0
    max_atoms: int = 200
    displacement: float = 0.03
    mesh_length: float = 30.0
    threshold: float = 0.1
    max_force: float = 0.01
    max_stress: float = 0.1
    max_evaluations: int = 200

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise ValueError(f"{name}={value}: must be positive")


class PhononOracle:
    """Lowest phonon frequency (THz, imaginary ones negative) and whether that is stable (1 or 0).

    Implements `generators.oracles.base.Oracle`. Crystals are relaxed within their symmetry first, tightly.
    """

    name = "phonons"
    scale = ""
    properties = ("lowest_frequency", "dynamically_stable")

    def __init__(self, potential: Potential, settings: PhononSettings | None = None) -> None:
        self.potential = potential
        self.settings = settings or PhononSettings()

    def evaluate(self, batch: OrbitBatch) -> OracleResult:
        """Phonons of every crystal; ``relaxed`` holds the crystals that they belong to."""
        settings = self.settings
        relaxed = relax(
            batch, self.potential, RelaxationSettings(settings.max_force, settings.max_stress, settings.max_evaluations)
        )
        reasons = list(relaxed.reason)
        lowest = torch.full((len(batch),), torch.nan, dtype=torch.float64)
        n_evaluations = relaxed.n_evaluations.clone()
        # One crystal after the other: its displaced supercells are a batch of their own, and memory stays bounded.
        for i in range(len(batch)):
            if reasons[i]:
                continue
            phonons = displaced(decode(relaxed.batch.select(torch.tensor([i]))), settings)
            if phonons is None:
                reasons[i] = "cell too large for phonons"
                continue
            supercells = phonons.supercells_with_displacements or []
            forces, reason = forces_of(supercells, self.potential)
            n_evaluations[i] += len(supercells)
            if reason:
                reasons[i] = reason
                continue
            lowest[i] = lowest_frequency(phonons, forces, settings.mesh_length)
        valid = torch.tensor([not reason for reason in reasons])
        stable = torch.where(valid, (lowest >= -settings.threshold).double(), torch.nan)
        zero = torch.zeros_like(lowest)
        return OracleResult(
            {"lowest_frequency": lowest, "dynamically_stable": stable},
            {"lowest_frequency": zero, "dynamically_stable": zero},
            valid,
            tuple(reasons),
            relaxed.batch,
            n_evaluations,
            relaxed.max_force,
            relaxed.max_stress,
        )


def displaced(cell: CellBatch, settings: PhononSettings) -> Phonopy | None:
    """A phonopy object with its displaced supercells for the one cell of ``cell``; None if they are too large."""
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    lattice = cell.lattice[0].detach().double().numpy()
    times = supercell(lattice, len(cell.atomic_number), settings.min_length, settings.max_atoms)
    if times is None:
        return None
    atoms = PhonopyAtoms(
        symbols=[element(z).symbol for z in cell.atomic_number.tolist()],
        masses=[float(element(z).atomic_mass) for z in cell.atomic_number.tolist()],
        cell=lattice,
        scaled_positions=torch.remainder(cell.frac_coords.detach().double(), 1.0).numpy(),
    )
    phonons = Phonopy(atoms, supercell_matrix=np.diag(times), primitive_matrix=np.eye(3), symprec=1e-3, log_level=0)
    phonons.generate_displacements(distance=settings.displacement)
    return phonons


def supercell(lattice: NDArray[np.float64], n_atoms: int, min_length: float, max_atoms: int) -> tuple[int, ...] | None:
    """How often to repeat each lattice vector so that no lattice vector of the supercell is shorter than
    ``min_length``; None if that takes more than ``max_atoms``."""
    times = np.ones(3, dtype=int)
    while shortest_vector(lattice * times[:, None]) < min_length:
        grown = lattice * times[:, None]
        heights = 1 / np.linalg.norm(np.linalg.inv(grown), axis=0)
        times[int(heights.argmin())] += 1
        if n_atoms * times.prod() > max_atoms:
            return None
    return tuple(times.tolist()) if n_atoms * times.prod() <= max_atoms else None


def shortest_vector(lattice: NDArray[np.float64]) -> float:
    """Length of the shortest lattice vector, Å."""
    from pymatgen.core import Lattice

    return float(min(Lattice(lattice).get_niggli_reduced_lattice().abc))


def forces_of(supercells: Sequence[Any], potential: Potential) -> tuple[list[NDArray[np.float64]], str]:
    """Forces [n, 3] in eV/Å of each supercell (phonopy atoms), or the reason why there are none."""
    lattice = torch.tensor(np.array([s.cell for s in supercells]))
    cells = CellBatch(
        lattice=lattice,
        frac_coords=torch.tensor(np.concatenate([s.scaled_positions for s in supercells])),
        atomic_number=torch.tensor(np.concatenate([s.numbers for s in supercells]), dtype=torch.long),
        n_atoms=torch.tensor([len(s) for s in supercells]),
        orbit=torch.cat([torch.arange(len(s)) for s in supercells]),
    )
    cells.frac_coords.requires_grad_()
    output = potential.evaluate(cells)
    reason = next((r for r in output.reason if r), "")
    if reason:
        return [], reason
    gradient: Tensor = torch.autograd.grad(output.energy.sum(), cells.frac_coords)[0]
    # r = f L, so dE/df = dE/dr L^T.
    force = -torch.linalg.solve(lattice[cells.owner], gradient[..., None])[..., 0]
    return [part.numpy() for part in force.split(cells.n_atoms.tolist())], ""


def lowest_frequency(phonons: Phonopy, forces: Sequence[NDArray[np.float64]], mesh_length: float) -> float:
    """THz, over a mesh through the Brillouin zone; negative for imaginary modes.

    Acoustic modes at the zone centre are zero by the sum rule, which is imposed.
    """
    phonons.forces = np.array(forces)
    phonons.produce_force_constants()
    phonons.symmetrize_force_constants()
    phonons.run_mesh(mesh_length, is_gamma_center=True)
    frequencies: NDArray[np.float64] = phonons.mesh.frequencies  # type: ignore[union-attr]
    return float(frequencies.min())
