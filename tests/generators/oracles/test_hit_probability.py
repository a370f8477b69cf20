from __future__ import annotations

import pytest
import torch

from generators.oracles.hit_probability import log_hit_probability, log_inside
from generators.wish import Interval, Wish


@pytest.mark.parametrize("interval", [Interval(None, -2.0), Interval(0.5, None), Interval(-0.3, 0.4)])
def test_derivatives_are_finite_and_those_of_small_steps(interval: Interval) -> None:
    mean = torch.tensor([0.0, -2.5, 40.0], dtype=torch.float64, requires_grad=True)
    std = torch.tensor([1.0, 0.2, 0.5], dtype=torch.float64, requires_grad=True)
    slopes = torch.autograd.grad(log_inside(mean, std, interval).sum(), (mean, std))
    step = 1e-5
    with torch.no_grad():
        for slope, (a, b) in zip(slopes, ((step, 0.0), (0.0, step)), strict=True):
            up, down = log_inside(mean + a, std + b, interval), log_inside(mean - a, std - b, interval)
            assert torch.allclose(slope, (up - down) / (2 * step), rtol=1e-3, atol=1e-3)


def test_a_wish_for_two_properties_multiplies_their_probabilities() -> None:
    mean, std = torch.tensor([[0.0, 5.0], [1.0, 7.0]]).double(), torch.tensor([[1.0, 2.0], [0.5, 1.0]]).double()
    wish = Wish({"b": Interval(6.0, None), "a": Interval(None, 0.5)})
    both = log_hit_probability(mean, std, ("a", "b"), wish)
    alone = [log_hit_probability(mean, std, ("a", "b"), Wish({n: i})) for n, i in wish.intervals.items()]
    assert torch.allclose(both, alone[0] + alone[1])
    assert torch.equal(log_hit_probability(mean, std, ("a", "b"), Wish({})), torch.zeros(2).double())
