"""Labels that are the same for all spellings of a crystal.

The *protostructure* label names the structure prototype in AFLOW's manner, for instance
``ABC2D6_cF40_225_a_b_c_e`` for elpasolites: anonymous formula, Pearson symbol, space group, and the
Wyckoff letters of each species. The *crystal key* says also which element sits where.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from functools import lru_cache
from math import gcd

import torch
from pymatgen.core.periodic_table import Element

from data.crystal import Crystal
from data.lattice import FAMILIES, N_STRAIN, crystal_family
from data.orbit_batch import OrbitBatch
from data.wyckoff import wyckoff_table

_FAMILY_LETTER = dict(zip(FAMILIES, "amothc", strict=True))


def protostructure_label(crystal: Crystal) -> str:
    """AFLOW-like label, canonical over all spellings (Mehl et al., Comput. Mater. Sci. 136, S1 (2017))."""
    return label_of(crystal.space_group, crystal.letters, crystal.atomic_numbers)


def crystal_key(crystal: Crystal) -> str:
    """Space group and element per Wyckoff letter, canonical over all spellings: ``225|a:Na b:Cl``.

    Two crystals of one key have the same protostructure and the same elements on the same sites; they
    can differ only in free coordinates and lattice.
    """
    return key_of(crystal.space_group, crystal.letters, crystal.atomic_numbers)


def label_of(space_group: int, letters: tuple[str, ...], species: Sequence[Hashable]) -> str:
    """`protostructure_label` from letters and any hashable species (elements, or slots of a prototype)."""
    order = sorted(range(len(letters)), key=letters.__getitem__)  # fewer different ones to remember
    return _label(space_group, tuple(letters[i] for i in order), pattern([species[i] for i in order]))


def labels_of(batch: OrbitBatch) -> list[str]:
    """Protostructure labels; faster than by `Crystal` objects."""
    letter = wyckoff_table().letter
    rows = zip(
        batch.space_group.tolist(), batch.position.tolist(), batch.atomic_number.tolist(), batch.n_orbits.tolist(),
        strict=True,
    )  # fmt: skip
    return [label_of(group, tuple(letter[p] for p in places[:n]), zs[:n]) for group, places, zs, n in rows]


def pattern(species: Sequence[Hashable]) -> tuple[int, ...]:
    """Which are equal, whatever they are: numbers in the order of their first place.

    >>> pattern(["O", "Ti", "O"])
    (0, 1, 0)
    """
    seen: dict[Hashable, int] = {}
    return tuple(seen.setdefault(one, len(seen)) for one in species)


@lru_cache(maxsize=65536)
def _label(space_group: int, letters: tuple[str, ...], species: tuple[int, ...]) -> str:
    table = wyckoff_table()
    multiplicity = {x: int(table.multiplicity[table.index(space_group, x)]) for x in set(letters)}
    best = min(
        tuple(species_rows(spelling, species, letters, multiplicity))
        for spelling in letter_images(space_group, letters)
    )
    counts = [count for count, _ in best]
    divisor = gcd(*counts)
    names = [chr(ord("A") + i) for i in range(len(best))]
    formula = "".join(
        name + (str(c // divisor) if c // divisor > 1 else "") for name, c in zip(names, counts, strict=True)
    )
    return "_".join([formula, _pearson(space_group, sum(counts)), str(space_group), *(x for _, x in best)])


def crystal_of_key(key: str) -> Crystal:
    """Sites and elements of a crystal key; coordinates and strain are 0."""
    group, sites = key.split("|")
    pairs = [site.split(":") for site in sites.split()]
    zs = tuple(int(Element(symbol).Z) for _, symbol in pairs)
    return Crystal(
        int(group), tuple(letter for letter, _ in pairs), zs, ((0.0, 0.0, 0.0),) * len(pairs), (0.0,) * N_STRAIN
    )


def key_of(space_group: int, letters: Sequence[str], atomic_numbers: Sequence[int]) -> str:
    """`crystal_key` from letters and atomic numbers."""
    best = min(
        sorted(zip(spelling, atomic_numbers, strict=True)) for spelling in letter_images(space_group, tuple(letters))
    )
    return f"{space_group}|" + " ".join(f"{x}:{Element.from_Z(z).symbol}" for x, z in best)


@lru_cache(maxsize=65536)
def letter_images(space_group: int, letters: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """``letters`` under each normalizer coset, without repeats."""
    table = wyckoff_table()
    start = int(table.position_start[space_group])
    offsets = [table.index(space_group, x) - start for x in letters]
    images = [tuple(table.letter[start + int(image[o])] for o in offsets) for _, image in table.cosets(space_group)]
    return tuple(dict.fromkeys(images))


def species_rows(
    spelling: tuple[str, ...],
    species: tuple[Hashable, ...],
    letters: tuple[str, ...],
    multiplicity: dict[str, int],
) -> list[tuple[int, str]]:
    """Sorted (sites in the conventional cell, letters such as ``2ae``) per species."""
    rows = []
    for one in dict.fromkeys(species):
        orbits = [i for i, s in enumerate(species) if s == one]
        count = sum(multiplicity[letters[i]] for i in orbits)
        tally = Counter(spelling[i] for i in orbits)
        rows.append((count, "".join((str(n) if n > 1 else "") + x for x, n in sorted(tally.items()))))
    return sorted(rows)


def _pearson(space_group: int, n_sites: int) -> str:
    centering = wyckoff_table().centering[space_group]
    family = _FAMILY_LETTER[FAMILIES[int(crystal_family(torch.tensor(space_group)))]]
    count = n_sites // 3 if centering == "R" else n_sites
    return f"{family}{'C' if centering in 'AC' else centering}{count}"
