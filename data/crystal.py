"""One crystal as orbits: space group, and for each orbit a Wyckoff letter, an element, free coordinates."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Composition, Element

from data.wyckoff import wyckoff_table

MAX_ATOMIC_NUMBER = 118


@lru_cache(maxsize=65536)
def positions_of(space_group: int, letters: tuple[str, ...]) -> tuple[int, ...]:
    """Position indices of `data.wyckoff`.

    Raises:
        ValueError: a letter that the space group lacks, or one without free coordinate more than once.
    """
    table = wyckoff_table()
    positions = tuple(table.index(space_group, letter) for letter in letters)
    if len(set(letters)) == len(letters):
        return positions
    for letter, count in Counter(letters).items():
        if count > 1 and table.degrees_of_freedom[table.index(space_group, letter)] == 0:
            raise ValueError(
                f"wyckoff_letter={letter!r} of space group {space_group} has no free coordinate, "
                f"so it can occur only once, got {count}"
            )
    return positions


@dataclass(frozen=True)
class Crystal:
    """A crystal with k orbits in the standard setting of its space group.

    Attributes:
        space_group: ITA number, 1 to 230.
        letters: k Wyckoff letters.
        atomic_numbers: k atomic numbers.
        coordinates: k rows (x, y, z), fractional, conventional cell; entries that the Wyckoff position
            does not leave free are 0.
        strain: 6 numbers, the lattice in the chart of `data.lattice`.
    """

    space_group: int
    letters: tuple[str, ...]
    atomic_numbers: tuple[int, ...]
    coordinates: tuple[tuple[float, float, float], ...]
    strain: tuple[float, ...]

    def __post_init__(self) -> None:
        k = len(self.letters)
        if k == 0:
            raise ValueError("letters=(): a crystal needs at least one orbit")
        if len(self.atomic_numbers) != k or len(self.coordinates) != k:
            raise ValueError(
                f"letters, atomic_numbers and coordinates must have one entry per orbit, got "
                f"{k}, {len(self.atomic_numbers)} and {len(self.coordinates)}"
            )
        positions_of(self.space_group, self.letters)

    @property
    def positions(self) -> tuple[int, ...]:
        """k position indices of `data.wyckoff`."""
        return positions_of(self.space_group, self.letters)

    @property
    def multiplicities(self) -> list[int]:
        """Sites of each orbit in the conventional cell."""
        return [int(wyckoff_table().multiplicity[p]) for p in self.positions]

    @property
    def composition(self) -> Composition:
        """Composition of the conventional cell."""
        counts: dict[Element, float] = {}
        for z, m in zip(self.atomic_numbers, self.multiplicities, strict=True):
            element = Element.from_Z(z)
            counts[element] = counts.get(element, 0) + m
        return Composition(counts)

    @property
    def reduced_formula(self) -> str:
        """Reduced formula as pymatgen writes it."""
        return str(self.composition.reduced_formula)

    def with_elements(self, atomic_numbers: tuple[int, ...]) -> Crystal:
        """The same geometry with other elements on the orbits."""
        return replace(self, atomic_numbers=tuple(int(z) for z in atomic_numbers))

    def coordinate_array(self) -> NDArray[np.float64]:
        """Coordinates as [k, 3]."""
        return np.asarray(self.coordinates, dtype=np.float64)
