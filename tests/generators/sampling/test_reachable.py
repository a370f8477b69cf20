"""What atoms and orbits a space group can make, against every choice of letters written out."""

from __future__ import annotations

import itertools

import pytest
import torch

from data.wyckoff import wyckoff_table
from generators.sampling.element_masks import splits
from generators.sampling.reachable import all_reachable, composition_reachable, orbit_range, reachable

GROUPS = (2, 14, 47, 62, 139, 166, 194, 216, 221, 225, 227)
MOST_ORBITS, MOST_ATOMS = 4, 12


def choices(group: int, k: int) -> list[tuple[int, ...]]:
    """Sizes of the orbits of every allowed choice of k letters."""
    table = wyckoff_table()
    start, n = int(table.position_start[group]), int(table.n_positions[group])
    usable = [p for p in range(start, start + n) if int(table.primitive_multiplicity[p]) <= MOST_ATOMS]
    found = []
    for letters in itertools.combinations_with_replacement(usable, k):
        repeated = {p for p in letters if letters.count(p) > 1}
        if all(int(table.degrees_of_freedom[p]) for p in repeated):
            found.append(tuple(int(table.primitive_multiplicity[p]) for p in letters))
    return found


@pytest.mark.parametrize("group", GROUPS)
def test_reachable_is_every_sum_of_allowed_letters(group: int) -> None:
    possible = reachable(group)
    for k in range(1, MOST_ORBITS + 1 if group != 47 else 3):
        expected = {sum(sizes) for sizes in choices(group, k) if sum(sizes) <= MOST_ATOMS}
        found = set(possible[k, : MOST_ATOMS + 1].nonzero().squeeze(-1).tolist())
        assert found == expected, (group, k)
    assert torch.equal(all_reachable()[group], possible)
    assert not bool(all_reachable()[0].any())


@pytest.mark.parametrize("group", GROUPS)
def test_orbit_ranges_bound_what_is_reachable(group: int) -> None:
    fewest, most = orbit_range(group)
    possible = reachable(group)
    for n in range(1, 65):
        counts = possible[:, n].nonzero().squeeze(-1)
        if len(counts):
            assert int(fewest[n]) <= int(counts.min()) and int(most[n]) >= int(counts.max())


@pytest.mark.parametrize("group", [2, 14, 166, 194, 216, 225, 227])
@pytest.mark.parametrize("wanted", [(1, 1), (1, 1, 1), (2, 2), (1, 1, 2), (1, 3), (2, 4), (1, 1, 2, 6)])
def test_compositions_are_reachable_as_by_enumeration(group: int, wanted: tuple[int, ...]) -> None:
    found = composition_reachable(group, wanted)
    for k in range(1, MOST_ORBITS + 1):
        expected = any(splits(tuple(sorted(sizes)), wanted) for sizes in choices(group, k) if sum(sizes) == sum(wanted))
        assert bool(found[k]) == expected, (group, wanted, k)


def test_splits_against_every_assignment() -> None:
    generator = torch.Generator().manual_seed(0)
    yes = 0
    for _ in range(300):
        sizes = tuple(sorted((1 + torch.randint(4, (5,), generator=generator)).tolist()))
        cuts = torch.randint(3, (5,), generator=generator)
        wanted = [0, 0, 0]
        for size, part in zip(sizes, cuts.tolist(), strict=True):
            wanted[part] += size
        if torch.rand((), generator=generator) < 0.6:
            wanted[0], wanted[1] = wanted[0] + 1, wanted[1] - 1
        sums = {
            tuple(sum(s for s, p in zip(sizes, parts, strict=True) if p == i) for i in range(3))
            for parts in itertools.product(range(3), repeat=5)
        }
        assert splits(sizes, tuple(wanted)) == (tuple(wanted) in sums)
        yes += tuple(wanted) in sums
    assert 50 < yes < 280
    assert splits((1, 2, 4), (4, 1, 2), True) and not splits((1, 2, 4), (5, 2), True) and splits((1, 2, 4), (5, 2))
