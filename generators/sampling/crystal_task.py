"""What of a crystal is given: one object for every task, from de novo generation to variants of a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import gcd

import torch
from torch import Tensor

from data.cells import element
from data.orbit_batch import OrbitBatch
from data.wyckoff import N_SPACE_GROUPS
from generators.element_features import N_STATES
from generators.sampling.reachable import MAX_ATOMS, MAX_ORBITS, all_reachable, composition_reachable
from generators.screening.charge_balance import charge_balanced as neutral

CRYSTAL_SYSTEMS = {
    "triclinic": (1, 2),
    "monoclinic": (3, 15),
    "orthorhombic": (16, 74),
    "tetragonal": (75, 142),
    "trigonal": (143, 167),
    "hexagonal": (168, 194),
    "cubic": (195, 230),
}


@dataclass(frozen=True, eq=False)
class CrystalTask:
    """What is given, for every crystal of a run; all of it holds in every sample.

    Attributes:
        allowed_elements: atomic numbers that may occur; None for all that the model knows.
        chemical_system: atomic numbers that must all occur, and nothing else.
        space_groups: numbers that may occur; empty for all.
        n_atoms: (fewest, most) atoms in the primitive cell.
        n_elements: (fewest, most) different elements.
        composition: atoms of each atomic number in one formula unit; empty for any.
        formula_units: (fewest, most) in the primitive cell, with a composition.
        max_orbits: most orbits.
        seeds: crystals whose space group and Wyckoff positions (and, with ``noise`` below 1, geometry) are taken.
        keep_elements: share of the seeds' species that keep their element.
        exchange: if above 0, so many of a seed's species, drawn at random, get another element than theirs, and the
            rest keep it (learned ion exchange).
        within_groups: with ``exchange``, only neighbours in the group or the f block come in, where any is allowed.
        tied: orbits of a seed that share an element share one again, and others do not: the protostructure stays.
        noise: time at which the geometry starts, 1 for nothing of the seeds' geometry.
        charge_balanced: oxidation states add up to zero (`generators.screening.charge_balance`).

    Raises:
        ValueError: what can never hold.
    """

    allowed_elements: frozenset[int] | None = None
    chemical_system: frozenset[int] = frozenset()
    space_groups: frozenset[int] = frozenset()
    n_atoms: tuple[int, int] = (1, MAX_ATOMS)
    n_elements: tuple[int, int] = (1, 10)
    composition: Mapping[int, int] = field(default_factory=dict)
    formula_units: tuple[int, int] = (1, MAX_ATOMS)
    max_orbits: int = MAX_ORBITS
    seeds: OrbitBatch | None = None
    keep_elements: float = 0.0
    exchange: int = 0
    within_groups: bool = False
    tied: bool = True
    noise: float = 1.0
    charge_balanced: bool = False

    def __post_init__(self) -> None:
        for name in ("n_atoms", "n_elements", "formula_units"):
            low, high = getattr(self, name)
            if not 1 <= low <= high:
                raise ValueError(f"{name}=[{low}, {high}]: give two numbers of 1 or more, the smaller first")
        if self.n_atoms[1] > MAX_ATOMS:
            raise ValueError(f"n_atoms={list(self.n_atoms)}: at most {MAX_ATOMS} atoms in the primitive cell")
        if not 1 <= self.max_orbits <= MAX_ORBITS:
            raise ValueError(f"max_orbits={self.max_orbits}: must lie between 1 and {MAX_ORBITS}")
        wrong = [g for g in self.space_groups if not 1 <= g <= N_SPACE_GROUPS]
        if wrong:
            raise ValueError(f"space_groups={wrong[0]}: does not exist, use 1 to {N_SPACE_GROUPS}")
        if not 0 <= self.keep_elements <= 1:
            raise ValueError(f"keep_elements={self.keep_elements}: must lie between 0 and 1")
        if self.exchange < 0:
            raise ValueError(f"exchange={self.exchange}: must not be negative")
        if not 0 < self.noise <= 1:
            raise ValueError(f"noise={self.noise}: must lie in (0, 1]")
        self._check_chemistry()
        if self.seeds is None and not bool(self.sizes.any()):
            groups = ", ".join(map(str, sorted(self.space_groups))) or "any"
            raise ValueError(
                f"n_atoms={list(self.n_atoms)}: no crystal of space group {groups} has such a primitive cell"
                + (" and this composition" if self.composition else "")
            )

    def _check_chemistry(self) -> None:
        needed = self.required
        if self.composition and self.chemical_system and needed != self.chemical_system:
            raise ValueError("chemical_system: contradicts the composition, give one of them")
        outside = needed - self.allowed_elements if self.allowed_elements is not None else frozenset()
        if outside:
            raise ValueError(f"allowed_elements: {element(min(outside)).symbol} is asked for but not allowed")
        if needed and not self.n_elements[0] <= len(needed) <= self.n_elements[1]:
            raise ValueError(f"n_elements={list(self.n_elements)}: {len(needed)} elements are asked for")
        if self.allowed_elements is not None and len(self.allowed_elements) < self.n_elements[0]:
            raise ValueError(
                f"allowed_elements: {len(self.allowed_elements)} are left for n_elements={list(self.n_elements)}"
            )
        if any(count < 1 for count in self.composition.values()):
            raise ValueError(f"composition={dict(self.composition)}: counts must be 1 or more")
        if self.charge_balanced and self.composition and not neutral(*zip(*self.composition.items(), strict=True)):
            raise ValueError("charge_balanced: no oxidation states of this composition add up to zero")

    @property
    def required(self) -> frozenset[int]:
        """Atomic numbers that must all occur, and nothing else; empty if free."""
        return frozenset(self.composition) or self.chemical_system

    def element_mask(self, known: Sequence[int]) -> Tensor:
        """[119] bool. Raises ValueError for an element that the model does not know."""
        mask = torch.zeros(N_STATES, dtype=torch.bool)
        wanted = self.required or (self.allowed_elements if self.allowed_elements is not None else frozenset(known))
        strange = (self.required or self.allowed_elements or frozenset()) - set(known)
        if strange:
            raise ValueError(
                f"elements={element(min(strange)).symbol}: the model was not trained on it, it knows "
                + " ".join(element(z).symbol for z in sorted(known))
            )
        mask[sorted(wanted)] = True
        return mask

    def leaders(self, frame: OrbitBatch) -> Tensor:
        """[B, K] column of the orbit whose element each orbit shares: its own unless the seeds' species are tied."""
        own = torch.arange(frame.mask.shape[1]).expand(len(frame), -1)
        if self.seeds is None or not self.tied:
            return own
        same = frame.atomic_number[:, :, None] == frame.atomic_number[:, None]
        return torch.where(frame.mask, same.long().argmax(-1), own)

    def fulfilled(self, batch: OrbitBatch) -> Tensor:
        """[B] bool: everything that is asked of elements, atoms, orbits and space groups holds."""
        n, counts = batch.n_atoms, torch.zeros(len(batch), N_STATES, dtype=torch.long)
        counts.scatter_add_(1, batch.atomic_number, batch.multiplicity)
        present = counts > 0
        allowed = torch.ones(N_STATES, dtype=torch.bool)
        if self.allowed_elements is not None:
            allowed = torch.zeros(N_STATES, dtype=torch.bool).scatter(
                0, torch.tensor(sorted(self.allowed_elements)), True
            )
        fine = self.group_mask()[batch.space_group] & (n <= MAX_ATOMS) & self.atom_counts()[n.clamp(max=MAX_ATOMS)]
        fine &= (batch.n_orbits <= self.max_orbits) & ~(present & ~allowed).any(1)
        fine &= (present.sum(1) >= self.n_elements[0]) & (present.sum(1) <= self.n_elements[1])
        if self.required:
            needed = torch.zeros(N_STATES, dtype=torch.bool).scatter(0, torch.tensor(sorted(self.required)), True)
            fine &= (present == needed).all(1)
        if self.composition:
            unit = torch.zeros(N_STATES, dtype=torch.long)
            unit[list(self.composition)] = torch.tensor(list(self.composition.values()))
            fine &= (counts == (n // unit.sum())[:, None] * unit).all(1)
        if self.charge_balanced:
            fine &= torch.tensor([neutral(c.atomic_numbers, c.multiplicities) for c in batch.to_crystals()])
        return fine

    def group_mask(self) -> Tensor:
        """[231] bool."""
        mask = torch.zeros(N_SPACE_GROUPS + 1, dtype=torch.bool)
        mask[sorted(self.space_groups) if self.space_groups else slice(1, None)] = True
        return mask

    def atom_counts(self) -> Tensor:
        """[65] bool: numbers of atoms that n_atoms, composition and formula units leave."""
        counts = torch.zeros(MAX_ATOMS + 1, dtype=torch.bool)
        counts[self.n_atoms[0] : self.n_atoms[1] + 1] = True
        if self.composition:
            unit = sum(self.composition.values())
            possible = torch.zeros_like(counts)
            for units in range(self.formula_units[0], min(self.formula_units[1], MAX_ATOMS // unit) + 1):
                possible[units * unit] = True
            counts &= possible
        return counts

    @cached_property
    def sizes(self) -> Tensor:
        """[231, 33, 65] bool: space groups, orbits and atoms that can hold at all."""
        fewest = max(len(self.required), self.n_elements[0])
        counts, groups = self.atom_counts(), self.group_mask()
        possible = all_reachable() & groups[:, None, None] & counts
        if self.composition:
            unit = tuple(self.composition[z] for z in sorted(self.composition))
            for group in groups.nonzero().squeeze(-1).tolist():
                for n in possible[group].any(0).nonzero().squeeze(-1).tolist():
                    wanted = tuple(sorted(n // sum(unit) * count for count in unit))
                    possible[group, :, n] &= composition_reachable(group, wanted)
        possible[:, :fewest] = False
        possible[:, self.max_orbits + 1 :] = False
        return possible


def reduced(composition: Mapping[int, int]) -> dict[int, int]:
    """The formula unit: counts without common divisor."""
    divisor = gcd(*composition.values())
    return {z: count // divisor for z, count in composition.items()}
