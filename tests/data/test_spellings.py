from __future__ import annotations

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher

from data.cells import decode
from data.crystal import Crystal
from data.orbit_batch import OrbitBatch
from data.protostructure import crystal_key, protostructure_label
from data.prototypes import Prototype, prototype_library
from data.spellings import canonical, random_spelling, spellings

LIBRARY = list(prototype_library())
NAMES = (
    "elpasolite", "half_heusler", "quaternary_heusler", "wurtzite", "delafossite", "iodine_a14", "ullmanite",
    "linbo3", "cyanogen_chloride", "stibnite", "high_pressure_californium", "berlinite", "garnet", "fesi", "wte2",
)  # fmt: skip


def crystal_of(prototype: Prototype) -> Crystal:
    return prototype.crystal([8 + 7 * s for s in range(prototype.n_species)])


def check(prototype: Prototype, n: int, seed: int) -> None:
    """All spellings match the crystal, and share its label, its key and its canonical spelling."""
    rng = np.random.default_rng(seed)
    crystal = crystal_of(prototype)
    every = [*spellings(crystal), *(random_spelling(crystal, rng) for _ in range(n))]
    some = [every[i] for i in rng.permutation(len(every))[: n + 2]]
    assert {protostructure_label(s) for s in some} == {protostructure_label(crystal)}
    assert {crystal_key(s) for s in some} == {crystal_key(crystal)}
    matcher = StructureMatcher(primitive_cell=False, scale=False, ltol=0.01, stol=0.01, angle_tol=0.5)
    reference = next(decode(OrbitBatch.from_crystals([crystal])).structures())
    for structure in decode(OrbitBatch.from_crystals(some)).structures():
        assert matcher.fit(reference, structure), prototype.name
    standard = [canonical(s) for s in some]
    assert len({(s.letters, s.atomic_numbers) for s in standard}) == 1
    coordinates = np.array([s.coordinates for s in standard])
    gap = coordinates - coordinates[0]
    assert np.abs(gap - np.round(gap)).max() < 1e-6, prototype.name
    assert np.ptp(np.array([s.strain for s in standard]), axis=0).max() < 1e-8


@pytest.mark.parametrize("name", NAMES)
def test_all_spellings_are_one_crystal(name: str) -> None:
    check(prototype_library().get(name), n=4, seed=0)


@pytest.mark.slow
def test_all_spellings_are_one_crystal_for_every_third_prototype() -> None:
    for i, prototype in enumerate(LIBRARY[::3]):
        check(prototype, n=2, seed=i)


def test_the_first_spelling_is_the_crystal_itself() -> None:
    for name in NAMES:
        crystal = crystal_of(prototype_library().get(name))
        assert spellings(crystal)[0].letters == crystal.letters


def test_canonical_does_not_change_what_is_canonical() -> None:
    for name in NAMES:
        once = canonical(crystal_of(prototype_library().get(name)))
        again = canonical(once)
        assert (again.letters, again.atomic_numbers) == (once.letters, once.atomic_numbers)
        assert np.allclose(again.coordinates, once.coordinates) and np.allclose(again.strain, once.strain)


@pytest.mark.parametrize("y", [0.15485, 0.15495, 0.00005, 0.12345, 1 / 3])
def test_canonical_breaks_no_ties_at_short_decimals(y: float) -> None:
    """Rounding to a fixed number of decimals did: these numbers lie on the edge between two of them."""
    strain = crystal_of(prototype_library().get("iodine_a14")).strain
    crystal = Crystal(64, ("f",), (53,), ((0.0, y, 0.1175),), strain)
    rng = np.random.default_rng(2)
    found = [canonical(random_spelling(crystal, rng)).coordinates[0] for _ in range(12)]
    assert np.ptp(np.array(found), axis=0).max() < 1e-9


def test_origin_of_polar_groups_is_free() -> None:
    crystal = crystal_of(prototype_library().get("wurtzite"))
    drawn = [random_spelling(crystal, np.random.default_rng(i)) for i in range(8)]
    heights = [s.coordinates[s.atomic_numbers.index(8)][2] for s in drawn]
    assert len({round(z, 3) for z in heights}) == 8
    assert canonical(drawn[0]).coordinates[0][2] == pytest.approx(0, abs=1e-9)
