"""Crystals that turn out to be known when they are relaxed."""

from __future__ import annotations

from collections.abc import Callable

from data.crystal import Crystal
from data.frames import to_frame
from data.orbit_batch import OrbitBatch
from data.protostructure import crystal_key
from generators.crystals.as_relaxed import NOT_NEW, RELAXED_KEY, as_relaxed
from generators.screening.crystal_funnel import KnownCrystals


def test_a_known_compound_with_less_symmetry_is_not_new(
    rocksalt: Callable[[str, str, float], tuple[Crystal, Crystal]],
) -> None:
    salt, salt_in_p1 = rocksalt("Na", "Cl", 5.6)
    alloy, alloy_in_p1 = rocksalt("K", "Rb", 7.0)
    given = [salt_in_p1, alloy_in_p1, alloy, salt]
    frame = to_frame(OrbitBatch.from_crystals(given)).assign(novel=[True, True, True, False])
    found = as_relaxed(frame, KnownCrystals())
    assert found["novel"].tolist() == [False, True, True, False]
    assert found[NOT_NEW].tolist() == ["relaxed to a known compound", "", "", ""]
    assert found["space_group_relaxed"].tolist() == [225] * 4
    assert found["protostructure_relaxed"].tolist() == ["AB_cF8_225_a_b"] * 4
    assert found["space_group"].tolist() == [1, 1, 225, 225]
    assert found[RELAXED_KEY].tolist() == [crystal_key(c) for c in (salt, alloy, alloy, salt)]
    assert as_relaxed(frame.iloc[:0], KnownCrystals()).columns.tolist() == found.columns.tolist()
