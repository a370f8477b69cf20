"""Spellings as tensors give what `data.spellings` and `data.symmetry` give one by one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher

from data.cells import decode
from data.lattice import lattice_to_strain, strain_to_lattice
from data.orbit_batch import OrbitBatch
from data.protostructure import crystal_key
from data.prototypes import prototype_library
from data.respelling import equivalent_sites, respell
from data.spellings import canonical, spellings
from data.symmetry import equivalent_coordinates
from data.wyckoff import wyckoff_table

MakeBatch = Callable[..., OrbitBatch]


def test_equivalent_sites_are_those_found_one_by_one() -> None:
    table, sites = wyckoff_table(), equivalent_sites()
    generator = torch.Generator().manual_seed(0)
    assert len(sites.count) == len(table.letter) and bool((sites.count > 0).all())
    for position in torch.randperm(len(table.letter), generator=generator)[:150].tolist():
        u = torch.rand(3, generator=generator, dtype=torch.float64) * table.free[position]
        operations = table.images(position)
        points = (operations[:, :, :3] @ u + operations[:, :, 3]).numpy()
        expected = equivalent_coordinates(int(table.space_group[position]), table.letter[position], points)
        start = int(sites.start[position])
        maps = sites.maps[start : start + int(sites.count[position])].double()
        found = torch.remainder(maps[..., :3] @ u + maps[..., 3], 1.0).numpy()
        gap = found[:, None] - expected[None]
        near = np.abs(gap - np.round(gap)).max(-1) < 1e-4
        assert near.any(0).all() and near.any(1).all(), table.letter[position]


def test_a_respelled_crystal_is_the_same_crystal(random_batch: MakeBatch) -> None:
    batch = random_batch(60, seed=1)
    moved = respell(batch, torch.Generator().manual_seed(2))
    crystals, others = batch.to_crystals(), moved.to_crystals()
    assert [crystal_key(c) for c in crystals] == [crystal_key(c) for c in others]
    assert torch.equal(batch.atomic_number, moved.atomic_number)  # orbits keep their order
    assert torch.allclose(batch.strain[:, 0], moved.strain[:, 0])
    assert not torch.allclose(batch.coordinates, moved.coordinates)
    matcher = StructureMatcher(primitive_cell=False, scale=False, ltol=0.01, stol=0.01, angle_tol=0.5)
    pairs = zip(decode(batch).structures(), decode(moved).structures(), strict=True)
    small = [i for i, n in enumerate(batch.n_atoms.tolist()) if n <= 24]
    assert len(small) > 30
    for i, (before, after) in enumerate(pairs):
        if i in small:
            assert matcher.fit(before, after), crystals[i]


def test_every_spelling_is_drawn_and_none_else(random_batch: MakeBatch) -> None:
    """Half-Heusler has four spellings; up to the choice of a site those of `data.spellings` are drawn."""
    prototype = prototype_library().get("half_heusler")
    crystal = prototype.crystal([3, 12, 7])
    expected = {s.letters for s in spellings(crystal)}
    drawn = respell(OrbitBatch.from_crystals([crystal] * 64), torch.Generator().manual_seed(0))
    assert {c.letters for c in drawn.to_crystals()} == expected
    batch = random_batch(20, seed=3, groups=(14, 62, 63, 136, 194, 225))
    before, after = batch.to_crystals(), respell(batch, torch.Generator().manual_seed(1)).to_crystals()
    for one, other in zip(before, after, strict=True):
        a, b = canonical(one), canonical(other)
        assert (a.letters, a.atomic_numbers) == (b.letters, b.atomic_numbers)
        gap = np.array(a.coordinates) - np.array(b.coordinates)
        assert np.abs(gap - np.round(gap)).max() < 1e-6
        assert np.allclose(a.strain, b.strain, atol=1e-6)


@pytest.mark.parametrize("group", [1, 2, 3, 12, 62, 146, 161, 194, 225])
def test_the_lattice_turns_with_the_axes(random_batch: MakeBatch, group: int) -> None:
    batch = random_batch(16, seed=4, groups=(group,))
    moved = respell(batch, torch.Generator().manual_seed(0))
    table = wyckoff_table()
    volumes = [torch.linalg.det(strain_to_lattice(b.space_group, b.strain)) for b in (batch, moved)]
    assert torch.allclose(*volumes)
    lattice = strain_to_lattice(batch.space_group, batch.strain)
    options = torch.stack(
        [lattice_to_strain(batch.space_group, torch.linalg.inv(a[:, :3]).mT @ lattice) for a, _ in table.cosets(group)]
    )  # [C, B, 6]
    assert bool((options - moved.strain).abs().amax(-1).amin(0).lt(1e-6).all())
