"""The embedded hypothetical crystals: what was chosen is a part of its own, and mostly stable."""

from __future__ import annotations

import torch

from data.exchanges import load_draws


def test_chosen_draws_are_a_part_of_their_own() -> None:
    others, chosen, everything = load_draws(False), load_draws(True), load_draws()
    assert others is not None and chosen is not None and everything is not None
    assert len(everything) == len(others) + len(chosen)
    assert torch.equal(everything.properties["e_above_hull"][len(others) :], chosen.properties["e_above_hull"])
    stable = [float((part.properties["e_above_hull"] <= 0.1).double().mean()) for part in (others, chosen)]
    assert stable[0] < 0.4 and stable[1] > 0.7
    assert not set(chosen.keys()) & set(others.keys())
    assert len(set(chosen.keys())) == len(chosen)
