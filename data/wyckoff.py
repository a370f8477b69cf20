"""Wyckoff positions of the 230 space groups as tensors.

Standard settings of the International Tables for Crystallography, volume A: unique axis b, hexagonal
axes for rhombohedral groups, origin choice 2. A Wyckoff position is addressed by one number, its
*position index* 0..1730, counted over all groups with letter ``a`` first in each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.resources import files

import numpy as np
import torch
from torch import Tensor

PAD = -1
N_SPACE_GROUPS = 230


@dataclass(frozen=True, eq=False)
class WyckoffTable:
    """All 1,731 Wyckoff positions (P), with their operations, and the Euclidean normalizers' cosets (C).

    An operation ``(R | t)`` turns the free coordinates u of an orbit into one of its sites,
    ``x = R u + t`` (fractional, conventional cell). Only the operations that give distinct sites of
    the *primitive* cell are kept (O in all).
    """

    space_group: Tensor  # [P] 1..230
    letter: tuple[str, ...]  # [P]
    multiplicity: Tensor  # [P] sites in the conventional cell
    primitive_multiplicity: Tensor  # [P] sites in the primitive cell
    site_symmetry: tuple[str, ...]  # [P]
    free: Tensor  # [P, 3] bool: which of the coordinates x, y, z are free
    operation_start: Tensor  # [P] first row in `operations`
    operations: Tensor  # [O, 3, 4]
    position_start: Tensor  # [231] first position index of each space group (entry 0 unused)
    n_positions: Tensor  # [231]
    symbols: tuple[str, ...]  # [231]
    centering: tuple[str, ...]  # [231]
    primitive_rows: Tensor  # [231, 3, 3] primitive lattice vectors in the conventional basis
    polar: Tensor  # [231, 3] bool: the origin is free along this axis
    coset_start: Tensor  # [231]
    n_cosets: Tensor  # [231]
    coset_affine: Tensor  # [C, 3, 4]
    coset_letter_start: Tensor  # [C] first row in coset_image
    coset_image: Tensor  # [sum over C of positions] letter index after the coset

    def index(self, space_group: int, letter: str) -> int:
        """Position index of ``letter`` in ``space_group``. Raises ValueError for what does not exist."""
        if not 1 <= space_group <= N_SPACE_GROUPS:
            raise ValueError(f"space_group={space_group} does not exist: use 1 to {N_SPACE_GROUPS}")
        places = self._places[space_group]
        if letter not in places:
            raise ValueError(
                f"wyckoff_letter={letter!r} does not exist in space group {space_group} "
                f"({self.symbols[space_group]}): use one of {' '.join(places)}"
            )
        return places[letter]

    @cached_property
    def _places(self) -> list[dict[str, int]]:
        """Position index of each letter, by space group."""
        spans = zip(self.position_start.tolist(), self.n_positions.tolist(), strict=True)
        return [{self.letter[p]: p for p in range(start, start + n)} for start, n in spans]

    def images(self, position: int) -> Tensor:
        """Operations of one position, [primitive multiplicity, 3, 4]."""
        start = int(self.operation_start[position])
        return self.operations[start : start + int(self.primitive_multiplicity[position])]

    def cosets(self, space_group: int) -> list[tuple[Tensor, Tensor]]:
        """Normalizer cosets: (affine map of fractional coordinates [3, 4], letter permutation [n])."""
        start, n = int(self.coset_start[space_group]), int(self.n_positions[space_group])
        result = []
        for c in range(start, start + int(self.n_cosets[space_group])):
            row = int(self.coset_letter_start[c])
            result.append((self.coset_affine[c], self.coset_image[row : row + n]))
        return result

    @cached_property
    def degrees_of_freedom(self) -> Tensor:
        """[P] number of free coordinates, 0 to 3."""
        return self.free.sum(-1)


def _with_unused_zero(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.concatenate([np.zeros_like(values[:1]), values]))


@lru_cache(maxsize=1)
def wyckoff_table() -> WyckoffTable:
    """The table, read once from ``data/tables/wyckoff.npz``."""
    with (files("data.tables") / "wyckoff.npz").open("rb") as handle, np.load(handle) as raw:
        table = {name: raw[name] for name in raw.files}
    n_positions = table["n_positions"].astype(np.int64)
    n_cosets = table["n_cosets"].astype(np.int64)
    n_operations = table["n_operations"].astype(np.int64)
    letters_per_coset = np.repeat(n_positions, n_cosets)
    return WyckoffTable(
        space_group=torch.from_numpy(table["space_group"].astype(np.int64)),
        letter=tuple(str(x) for x in table["letter"]),
        multiplicity=torch.from_numpy(table["multiplicity"].astype(np.int64)),
        primitive_multiplicity=torch.from_numpy(n_operations),
        site_symmetry=tuple(str(x) for x in table["site_symmetry"]),
        free=torch.from_numpy(table["free"]),
        operation_start=torch.from_numpy(np.cumsum(n_operations) - n_operations),
        operations=torch.from_numpy(table["operations"].astype(np.float64)),
        position_start=_with_unused_zero(np.cumsum(n_positions) - n_positions),
        n_positions=_with_unused_zero(n_positions),
        symbols=("", *(str(x) for x in table["symbols"])),
        centering=("", *(str(x) for x in table["centering"])),
        primitive_rows=_with_unused_zero(table["primitive"]),
        polar=_with_unused_zero(table["polar"]),
        coset_start=_with_unused_zero(np.cumsum(n_cosets) - n_cosets),
        n_cosets=_with_unused_zero(n_cosets),
        coset_affine=torch.from_numpy(table["coset_affine"].astype(np.float64)),
        coset_letter_start=torch.from_numpy(np.cumsum(letters_per_coset) - letters_per_coset),
        coset_image=torch.from_numpy(table["coset_letters"].astype(np.int64)),
    )
