"""Rewards: nothing for what is known or strange, less for what is common."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from generators.crystals.rewards import BALANCED, BELOW, NEAR, Penalties, new_draws, rewards
from generators.screening.crystal_funnel import KnownCrystals
from generators.screening.element_shares import known_shares

NONE = Penalties(element=0.0, prototype=0.0, system=0.0, no_template=0.0, no_symmetry=0.0)


def table(elements: list[list[int]], labels: list[str] | None = None, **columns: object) -> pd.DataFrame:
    n = len(elements)
    return pd.DataFrame(
        {
            "atomic_numbers": elements,
            "protostructure": labels or [f"label-{i}" for i in range(n)],
            "space_group": [2] * n,
            "crystal_key": [f"key-{i}" for i in range(n)],
            NEAR: [0.9] * n,
            BELOW: [0.4] * n,
            BALANCED: [True] * n,
            **columns,
        }
    )


def test_chances_count_only_for_what_is_new_and_balanced() -> None:
    worth = rewards(
        table([[3, 9]] * 3, **{BALANCED: [True, True, False]}), np.array([True, False, True]), set(), NONE
    )  # fmt: skip
    assert worth == pytest.approx([0.4 * 0.9 + 0.6 * 0.4, 0, 0])


def test_penalties_grow_with_every_doubling() -> None:
    common = table([[8, 20 + i] for i in range(40)] + [[3, 9]])
    only = Penalties(element=1.0, most_of_element=1.0, prototype=0.0, system=0.0, no_template=0.0, no_symmetry=0.0)
    free = rewards(common, np.ones(41, dtype=bool), set(), NONE)
    taken = free - rewards(common, np.ones(41, dtype=bool), set(), only)
    # The commonest element counts: oxygen is in most known compounds, the others are rare there and here.
    share, rare = known_shares(), 1 / 41
    assert taken[0] == pytest.approx(
        max(np.log2(40 / 41 / share[8]), np.log2(rare / max(share[20], 0.004)), 0), abs=1e-9
    )  # fmt: skip
    same = table([[3, 9]] * 8, ["a"] * 4 + ["b"] * 4)
    by_label = Penalties(0.0, 1.0, 1.0, 0.125, 0.0, 1.0, 0.0, 0.0)
    assert rewards(same, np.ones(8, dtype=bool), set(), by_label) == pytest.approx(
        0.6 - 2.0
    )  # 1/2 is 1/8 doubled twice
    twice = Penalties(0.0, 1.0, 0.0, 1.0, 1.0, 0.25, 0.0, 0.0)
    assert rewards(same, np.ones(8, dtype=bool), set(), twice) == pytest.approx(0.6 - 2.0)


def test_what_is_hard_to_place_is_worth_less() -> None:
    three = table([[3, 9], [11, 17], [19, 35]], ["a", "b", "c"], space_group=[2, 2, 1])
    hard = Penalties(0.0, 1.0, 0.0, 1.0, 0.0, 1.0, no_template=0.1, no_symmetry=0.3)
    assert rewards(three, np.ones(3, dtype=bool), {"a", "c"}, hard) == pytest.approx([0.6, 0.5, 0.3])


def test_new_is_neither_known_nor_repeated() -> None:
    known = KnownCrystals()
    known.add(["key-1"])
    drawn = table([[3, 9]] * 4, crystal_key=["key-0", "key-1", "key-2", "key-0"])
    assert new_draws(drawn, known).tolist() == [True, False, True, False]
