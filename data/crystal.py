"""One crystal as orbits: space group, and for each orbit a Wyckoff letter, an element, free coordinates."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Composition, Element

from data.wyckoff import wyckoff_table

MAX_ATOMIC_NUMBER = 118


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
        table = wyckoff_table()
        for letter in set(self.letters):
            position = table.index(self.space_group, letter)
            if table.degrees_of_freedom[position] == 0 and self.letters.count(letter) > 1:
                raise ValueError(
                    f"wyckoff_letter={letter!r} of space group {self.space_group} has no free coordinate, "
                    f"so it can occur only once, got {self.letters.count(letter)}"
                )

    @property
    def positions(self) -> list[int]:
        """k position indices of `data.wyckoff`."""
        table = wyckoff_table()
        return [table.index(self.space_group, letter) for letter in self.letters]

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
