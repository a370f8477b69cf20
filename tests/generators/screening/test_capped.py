"""The best by score, with a limit per system."""

from __future__ import annotations

import torch

from generators.screening.capped import capped

SCORE = torch.tensor([0.1, 0.9, 0.8, 0.7, 0.2])
SYSTEMS = ["b", "a", "a", "a", "b"]


def test_a_full_system_waits_until_nothing_else_is_left() -> None:
    assert capped(SCORE, [(SYSTEMS, 1)], 3) == [1, 4, 2]
    assert capped(SCORE, [(SYSTEMS, 9)], 3) == [1, 2, 3]
    assert capped(SCORE, [(SYSTEMS, 2)], 9) == [1, 2, 4, 0, 3]


def test_several_limits_hold_at_once() -> None:
    prototypes = ["p", "p", "q", "p", "q"]
    assert capped(SCORE, [(SYSTEMS, 2), (prototypes, 1)], 3) == [1, 2, 3]  # both are full: the best that is left
    assert capped(SCORE, [(SYSTEMS, 1), (prototypes, 1)], 2) == [1, 4]
    assert capped(SCORE, [], 2) == [1, 2]


def test_what_was_chosen_before_stays_and_counts() -> None:
    assert capped(SCORE, [(SYSTEMS, 2)], 3, chosen=[3]) == [3, 1, 4]
    assert capped(SCORE, [(SYSTEMS, 1)], 1, chosen=[0]) == [0]
