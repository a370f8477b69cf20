"""Which Wyckoff position may come next, so that atoms, orbits and composition can still come out as asked."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from data.orbit_batch import OrbitBatch
from data.wyckoff import wyckoff_table
from generators.denoiser.crystal_denoiser import N_LETTERS
from generators.element_features import N_STATES
from generators.sampling.crystal_task import CrystalTask
from generators.sampling.reachable import MAX_ATOMS, all_orbit_ranges, all_reachable


@dataclass(eq=False)
class Progress:
    """How far B crystals are.

    Attributes:
        space_group: [B].
        size: [B, 27] sites of each letter in the primitive cell; 0 where there is no such letter.
        single: [B, 27] bool, letters that can occur once only.
        used: [B, 27] bool.
        left: [B] orbits still to come.
        atoms: [B] so far.
        totals: [B, 65] bool, admissible numbers of atoms.
        species: E atomic numbers of a given composition, else empty.
        wanted: [B, E] atoms of each still to come.
        alive: [B] bool, false once nothing is possible any more.
    """

    space_group: Tensor
    size: Tensor
    single: Tensor
    used: Tensor
    left: Tensor
    atoms: Tensor
    totals: Tensor
    species: Tensor
    wanted: Tensor
    alive: Tensor

    @classmethod
    def start(cls, frame: OrbitBatch, task: CrystalTask, atoms: Tensor) -> Progress:
        """Nothing placed yet. ``atoms`` [B] are the totals of a given composition."""
        table, n = wyckoff_table(), len(frame)
        offset = torch.arange(N_LETTERS)
        exists = offset < table.n_positions[frame.space_group][:, None]
        index = torch.where(exists, table.position_start[frame.space_group][:, None] + offset, 0)
        totals = task.atom_counts().expand(n, -1)
        species = torch.tensor(sorted(task.composition), dtype=torch.long)
        wanted = torch.zeros(n, len(species), dtype=torch.long)
        if task.composition:
            units = atoms // sum(task.composition.values())
            wanted = units[:, None] * torch.tensor([task.composition[z] for z in species.tolist()])
            totals = torch.zeros(n, MAX_ATOMS + 1, dtype=torch.bool).scatter(1, atoms[:, None], True)
        return cls(
            space_group=frame.space_group,
            size=torch.where(exists, table.primitive_multiplicity[index], 0),
            single=exists & (table.degrees_of_freedom[index] == 0),
            used=torch.zeros(n, N_LETTERS, dtype=torch.bool),
            left=frame.n_orbits.clone(),
            atoms=torch.zeros(n, dtype=torch.long),
            totals=totals,
            species=species,
            wanted=wanted,
            alive=torch.ones(n, dtype=torch.bool),
        )

    def take(self, rows: Tensor, position: Tensor, element: Tensor | None = None) -> None:
        """Place one orbit in each of ``rows``."""
        letter = position - wyckoff_table().position_start[self.space_group[rows]]
        size = self.size[rows, letter]
        self.used[rows, letter] = True
        self.left[rows] -= 1
        self.atoms[rows] += size
        if element is not None and len(self.species):
            self.wanted[rows] -= size[:, None] * (element[:, None] == self.species)

    def element_choices(self, rows: Tensor, position: Tensor) -> Tensor:
        """[r, 119] bool: elements of the composition that the orbit at ``position`` may carry."""
        letter = position - wyckoff_table().position_start[self.space_group[rows]]
        possible = _with_composition(self, rows)[torch.arange(len(rows)), letter]  # [r, E]
        choices = torch.zeros(len(rows), N_STATES, dtype=torch.bool)
        choices[:, self.species] = possible
        return choices

    def finished(self) -> Tensor:
        """[B] bool: everything placed, as asked."""
        counted = self.totals.gather(1, self.atoms.clamp(max=MAX_ATOMS)[:, None]).squeeze(1)
        return (self.left == 0) & counted & (self.wanted == 0).all(1) & (self.atoms <= MAX_ATOMS)


def letter_choices(progress: Progress, rows: Tensor) -> Tensor:
    """[r, 27] bool: letters after which the rest can still be done.

    The rest is looked at as if every position were free again, so that a crystal may rarely run into a dead end; it is
    then drawn anew.
    """
    size = progress.size[rows]
    open_ = (size > 0) & ~(progress.single[rows] & progress.used[rows])
    if len(progress.species):
        return open_ & _with_composition(progress, rows).any(-1)
    after = progress.atoms[rows][:, None] + size
    rest = all_reachable()[progress.space_group[rows], progress.left[rows] - 1]  # [r, 65]
    gap = torch.arange(MAX_ATOMS + 1) - after[..., None]  # [r, 27, 65] atoms that would be missing to each total
    reached = rest[:, None].expand(-1, N_LETTERS, -1).gather(2, gap.clamp(min=0)) & (gap >= 0)
    return open_ & (reached & progress.totals[rows][:, None]).any(-1)


def _with_composition(progress: Progress, rows: Tensor) -> Tensor:
    """[r, 27, E] bool: letters and elements after which every count can still come out."""
    fewest, most = all_orbit_ranges()
    group, wanted, size = progress.space_group[rows], progress.wanted[rows], progress.size[rows]
    own = torch.eye(len(progress.species), dtype=torch.long)
    rest = wanted[:, None, None] - size[:, :, None, None] * own  # [r, 27, E, E]
    fits = (rest >= 0).all(-1)
    index = rest.clamp(min=0)
    low = fewest[group[:, None, None, None], index].sum(-1)
    high_each = most[group[:, None, None, None], index]
    left = progress.left[rows][:, None, None] - 1
    return fits & (low <= left) & (high_each >= 0).all(-1) & (high_each.sum(-1) >= left) & (size > 0)[..., None]
