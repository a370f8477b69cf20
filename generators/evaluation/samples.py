"""The crystals to evaluate, each with its row number: those that cannot be read count as well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from data.cells import CellBatch, decode
from data.contact import shortest_ratio
from data.crystal import Crystal
from data.dataset import CrystalDataset
from data.lattice import lattice_to_strain
from data.orbit_batch import OrbitBatch
from data.sources import Rejected, Source, read_crystals

MAX_ORBITS = 256


@dataclass(frozen=True, eq=False)
class Samples:
    """N crystals that can be evaluated, and the rows that cannot, with reasons."""

    dataset: CrystalDataset
    rejected: tuple[Rejected, ...]

    @property
    def n_all(self) -> int:
        """Rows of the source: the denominator of every share."""
        return len(self.dataset) + len(self.rejected)


def read_samples(
    path: Path,
    symprec: float,
    first: int | None = None,
    workers: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> Samples:
    """Any output of any model: a folder or zip of structure files, one structure file, or a table.

    Raises:
        ValueError: no such path, or not one row can be used.
    """
    source = Source(symprec=symprec, max_orbits=MAX_ORBITS, workers=workers, limit=first, labels=False)
    dataset, rejected = read_crystals(path, source, progress=progress)
    return Samples(dataset, tuple(rejected))


def without_symmetry(batch: OrbitBatch) -> OrbitBatch:
    """The same crystals in P1, one orbit per atom of the primitive cell: free to relax to lower symmetry."""
    cells = decode(batch.replace(strain=batch.strain.double(), coordinates=batch.coordinates.double()))
    strain = lattice_to_strain(torch.ones(len(batch), dtype=torch.long), cells.lattice)
    crystals, start = [], 0
    for i, n in enumerate(cells.n_atoms.tolist()):
        coords = torch.remainder(cells.frac_coords[start : start + n], 1.0).tolist()
        crystals.append(
            Crystal(
                space_group=1,
                letters=("a",) * n,
                atomic_numbers=tuple(cells.atomic_number[start : start + n].tolist()),
                coordinates=tuple((u[0], u[1], u[2]) for u in coords),
                strain=tuple(strain[i].tolist()),
            )
        )
        start += n
    return OrbitBatch.from_crystals(crystals)


def displacement(start: OrbitBatch, end: OrbitBatch) -> Tensor:
    """[B] root mean square displacement of the atoms, Å, in the mean of both cells.

    Atoms keep their order in a relaxation, so they need no matching. Cells are compared by fractional coordinates
    and a common shift of all atoms does not count.
    """
    before, after = decode(start), decode(end)
    owner, n = before.owner, before.n_atoms.double()
    step = after.frac_coords.double() - before.frac_coords.double()
    step = step - torch.round(step)
    mean = torch.zeros(len(n), 3, dtype=torch.float64).index_add(0, owner, step) / n[:, None]
    box = (before.lattice.double() + after.lattice.double()) / 2
    moved = ((step - mean[owner])[:, None] @ box[owner])[:, 0]
    square = torch.zeros(len(n), dtype=torch.float64).index_add(0, owner, (moved**2).sum(-1))
    return (square / n).sqrt()


def shortest_distance(cells: CellBatch) -> Tensor:
    """[B] Å between any two atoms, periodic images included."""
    return shortest_ratio(cells, torch.full((119,), 0.5, dtype=torch.float64))
