"""Straight paths: the velocity is the path's derivative, and the exact mean velocity makes the data's distribution."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from generators.diffusion.interpolants import boost, line_path, schedule, torus_path, wrap


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_wrap_is_the_short_way_round() -> None:
    x = torch.tensor([0.0, 0.3, 0.5, 0.7, 1.2, -0.6, -0.5])
    assert torch.allclose(wrap(x), torch.tensor([0.0, 0.3, -0.5, -0.3, 0.2, 0.4, -0.5]))


@pytest.mark.parametrize("path", [line_path, torus_path])
def test_velocity_is_the_derivative_of_the_path(path) -> None:  # type: ignore[no-untyped-def]
    data, noise, t = rand(50, 3, seed=1), rand(50, 3, seed=2), rand(50, 1, seed=3)
    t = (0.01 + 0.98 * t).expand(50, 3).clone().requires_grad_()
    point, velocity = path(data, noise, t)
    (derivative,) = torch.autograd.grad(point.sum(), t)
    assert torch.allclose(derivative, velocity)
    assert float(velocity.abs().max()) <= (0.5 if path is torus_path else 1.0)


@pytest.mark.parametrize("path", [line_path, torus_path])
def test_the_ends_are_data_and_noise(path) -> None:  # type: ignore[no-untyped-def]
    data, noise = rand(50, 3, seed=1), rand(50, 3, seed=2)
    at_data, _ = path(data, noise, torch.zeros(()))
    at_noise, _ = path(data, noise, torch.ones(()))
    assert torch.allclose(at_data, data) and torch.allclose(at_noise, noise)


def test_following_the_mean_velocity_reproduces_two_points_on_the_torus() -> None:
    """Data: 0.1 with probability 0.3, else 0.55. The posterior of the data given a point is exact for uniform noise."""
    points, shares = torch.tensor([0.1, 0.55], dtype=torch.float64), torch.tensor([0.3, 0.7], dtype=torch.float64)
    n, steps = 20_000, 200
    x = rand(n)
    times = schedule(steps)
    for now, then in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        # A point at x came from the data a if the noise was a + wrap(x - a) / t, inside the half circle.
        step = wrap(x[:, None] - points)
        weight = shares * (step.abs() < 0.5 * now)
        weight = weight / weight.sum(1, keepdim=True).clamp(min=1e-12)
        velocity = (weight * step / now).sum(1)
        x = torch.remainder(x - (now - then) * velocity, 1.0)
    distance = wrap(x[:, None] - points).abs()
    assert float(distance.amin(1).max()) < 1e-6
    share = float((distance[:, 0] < 1e-3).double().mean())
    assert abs(share - 0.3) < 4 * math.sqrt(0.3 * 0.7 / n) + 1 / steps


def test_following_the_mean_velocity_reproduces_a_gaussian_on_the_line() -> None:
    mean, std, n = 1.5, 0.4, 20_000
    x = torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    times = schedule(400)
    for now, then in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        # x_t = (1 - t) data + t noise is Gaussian; E[noise - data | x_t] follows by regression.
        variance = (1 - now) ** 2 * std**2 + now**2
        slope = (now - (1 - now) * std**2) / variance
        velocity = -mean + slope * (x - (1 - now) * mean)
        x = x - (now - then) * velocity
    assert abs(float(x.mean()) - mean) < 0.02
    assert abs(float(x.std()) - std) < 0.01


def test_schedule_ends_at_the_data() -> None:
    times = schedule(10, start=0.4, power=2.0)
    assert float(times[0]) == pytest.approx(0.4) and float(times[-1]) == 0.0
    steps = -times.diff()
    assert bool((steps > 0).all()) and bool((steps.diff() < 0).all())  # the last are the smallest
    assert boost(1.0, 3.0) == 1.0 and boost(0.0, 3.0) == 4.0
    for bad in ({"n_steps": 0}, {"n_steps": 3, "start": 0.0}, {"n_steps": 3, "start": 1.5}):
        with pytest.raises(ValueError, match=r"n_steps=0|start="):
            schedule(**bad)
