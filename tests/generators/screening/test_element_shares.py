"""Limits on how common an element may be."""

from __future__ import annotations

import math

import torch

from generators.screening.element_shares import RARE, known_shares, noble_gases, radioactive_elements, within_shares


def test_known_shares_are_those_of_common_elements() -> None:
    shares = known_shares()
    assert max(shares, key=shares.__getitem__) == 8
    assert 0.2 < shares[8] < 0.6
    assert all(0 < share <= 1 for share in shares.values())


def test_noble_gases() -> None:
    assert {2, 10, 18, 36, 54} <= noble_gases() <= {2, 10, 18, 36, 54, 86, 118}


def test_radioactive_elements() -> None:
    assert {43, 61, 84, 89, 91, 94} <= radioactive_elements()
    assert not {83, 90, 92, 8, 26} & radioactive_elements()


def test_no_element_passes_its_limit_and_the_best_come_first() -> None:
    rows = [{8}] * 5 + [{61}] * 5 + [{8, 61}] * 5
    score = torch.arange(15, 0, -1).double()
    most, n = 0.29 / known_shares()[8], 10  # oxygen at most 2.9 times before another comes
    kept = within_shares(score, rows, most, n)
    assert kept[:3] == [0, 1, 2]
    assert sum(8 in rows[i] for i in kept) == 3
    assert sum(61 in rows[i] for i in kept) == math.ceil(most * max(known_shares().get(61, 0), RARE) * n)
    assert within_shares(score, rows, 1e6, n) == list(range(10))


def test_kinds_are_hard_limits_too() -> None:
    kinds = ["a", "a", "a", "b", "b"], 2
    assert within_shares(torch.arange(5).double(), [{8}] * 5, 1e6, 5, [kinds]) == [4, 3, 2, 1]
