"""The best by score, with a limit per system."""

from __future__ import annotations

import torch

from generators.screening.capped import capped

SCORE = torch.tensor([0.1, 0.9, 0.8, 0.7, 0.2])
SYSTEMS = ["b", "a", "a", "a", "b"]


def test_a_full_system_waits_until_nothing_else_is_left() -> None:
    assert capped(SCORE, SYSTEMS, 3, limit=1) == [1, 4, 2]
    assert capped(SCORE, SYSTEMS, 3, limit=9) == [1, 2, 3]
    assert capped(SCORE, SYSTEMS, 9, limit=2) == [1, 2, 4, 0, 3]


def test_what_was_chosen_before_stays_and_counts() -> None:
    assert capped(SCORE, SYSTEMS, 3, limit=2, chosen=[3]) == [3, 1, 4]
    assert capped(SCORE, SYSTEMS, 1, limit=1, chosen=[0]) == [0]
