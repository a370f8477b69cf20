"""Which numbers of atoms a space group can make with so many orbits: known before any sampling."""

from __future__ import annotations

from functools import cache, lru_cache

import torch
from torch import Tensor

from data.wyckoff import N_SPACE_GROUPS, wyckoff_table

MAX_ATOMS = 64
MAX_ORBITS = 32


def letters_of(space_group: int) -> tuple[list[int], list[bool]]:
    """Sites in the primitive cell of each letter, and whether it can occur more than once."""
    table = wyckoff_table()
    start, n = int(table.position_start[space_group]), int(table.n_positions[space_group])
    size = table.primitive_multiplicity[start : start + n].tolist()
    return size, (table.degrees_of_freedom[start : start + n] > 0).tolist()


@cache
def reachable(space_group: int) -> Tensor:
    """[33, 65] bool: with k orbits exactly n atoms in the primitive cell are possible. Exact."""
    possible = torch.zeros(MAX_ORBITS + 1, MAX_ATOMS + 1, dtype=torch.bool)
    possible[0, 0] = True
    for size, repeats in zip(*letters_of(space_group), strict=True):
        if size > MAX_ATOMS:
            continue
        if not repeats:
            possible[1:, size:] |= possible[:-1, : MAX_ATOMS + 1 - size].clone()
            continue
        for k in range(1, MAX_ORBITS + 1):
            possible[k, size:] |= possible[k - 1, : MAX_ATOMS + 1 - size]
    return possible


@cache
def all_reachable() -> Tensor:
    """[231, 33, 65] `reachable` of every space group; group 0 reaches nothing."""
    nothing = torch.zeros(MAX_ORBITS + 1, MAX_ATOMS + 1, dtype=torch.bool)
    return torch.stack([nothing, *(reachable(g) for g in range(1, N_SPACE_GROUPS + 1))])


@cache
def orbit_range(space_group: int) -> tuple[Tensor, Tensor]:
    """([65], [65]) fewest and most orbits that make up n atoms of one element.

    As if every position could be taken again: bounds, exact where enough positions have a free coordinate. Where n is
    impossible the fewest is a large number and the most -1.
    """
    fewest = torch.full((MAX_ATOMS + 1,), 10_000, dtype=torch.long)
    most = torch.full((MAX_ATOMS + 1,), -1, dtype=torch.long)
    fewest[0] = most[0] = 0
    sizes = sorted(set(letters_of(space_group)[0]))
    for n in range(1, MAX_ATOMS + 1):
        before = [n - size for size in sizes if size <= n and most[n - size] >= 0]
        if before:
            fewest[n] = 1 + min(int(fewest[i]) for i in before)
            most[n] = 1 + max(int(most[i]) for i in before)
    return fewest, most


@cache
def all_orbit_ranges() -> tuple[Tensor, Tensor]:
    """([231, 65], [231, 65]) `orbit_range` of every space group."""
    found = [orbit_range(g) for g in range(1, N_SPACE_GROUPS + 1)]
    low = torch.stack([torch.full((MAX_ATOMS + 1,), 10_000), *(x[0] for x in found)])
    high = torch.stack([torch.full((MAX_ATOMS + 1,), -1), *(x[1] for x in found)])
    return low, high


@lru_cache(maxsize=4096)
def composition_reachable(space_group: int, wanted: tuple[int, ...]) -> Tensor:
    """[33] bool: k orbits can hold exactly ``wanted`` atoms (ascending) of different elements. Exact.

    Positions without freedom occur once, so they are shared out first, in every way; what is left of each element is
    made up of positions that repeat.
    """
    singles, repeats = [], set()
    for size, again in zip(*letters_of(space_group), strict=True):
        if again:
            repeats.add(size)
        else:
            singles.append(size)
    states = {(wanted, 0)}
    for size in singles:
        placed = {
            (tuple(sorted((*rest[:i], n - size, *rest[i + 1 :]))), k + 1)
            for rest, k in states
            for i, n in enumerate(rest)
            if n >= size and k < MAX_ORBITS
        }
        states |= placed
    made = _from_repeats(tuple(sorted(repeats)), max(wanted))
    result = 0
    for rest, k in states:
        orbits = 1 << k
        for n in rest:
            orbits = _sums(orbits, made[n])
        result |= orbits
    return torch.tensor([bool(result >> k & 1) for k in range(MAX_ORBITS + 1)])


@lru_cache(maxsize=1024)
def _from_repeats(sizes: tuple[int, ...], most: int) -> list[int]:
    """Per number of atoms the numbers of orbits that make it up, as bits."""
    made = [1] + [0] * most
    for n in range(1, most + 1):
        for size in sizes:
            if size <= n:
                made[n] |= made[n - size] << 1
    return made


@lru_cache(maxsize=100_000)
def _sums(one: int, other: int) -> int:
    """Bits of all sums of a bit of each, up to `MAX_ORBITS`."""
    result = 0
    for k in range(MAX_ORBITS + 1):
        if other >> k & 1:
            result |= one << k
    return result & ((1 << MAX_ORBITS + 1) - 1)
