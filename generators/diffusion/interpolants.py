"""Straight paths between noise (time 1) and data (time 0), on the line and on the torus.

A network learns the mean velocity of all paths through a point; following it from noise samples the data (Lipman et
al., ICLR 2023; on the torus Chen and Lipman, ICLR 2024, and Miller et al., ICML 2024, for crystals). On the torus the
path is the short way round: ``x_t = x_0 + t wrap(x_1 - x_0)``.
"""

from __future__ import annotations

import torch
from torch import Tensor


def wrap(difference: Tensor) -> Tensor:
    """Differences on the unit torus, in [-1/2, 1/2)."""
    return difference - torch.floor(difference + 0.5)


def line_path(data: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """(point at time t, velocity ``noise - data``); ``t`` broadcasts against the data."""
    velocity = noise - data
    return data + t * velocity, velocity


def torus_path(data: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """(point at time t in [0, 1), velocity ``wrap(noise - data)``); ``t`` broadcasts against the data."""
    velocity = wrap(noise - data)
    return torch.remainder(data + t * velocity, 1.0), velocity


def gaussian_guess(point: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the data given a point of `line_path`, if data and noise were standard normal.

    A network that only has to correct this guess, in units of its spread, starts from a fair model at every time
    (preconditioning as by Karras et al., NeurIPS 2022).
    """
    variance = (1 - t) ** 2 + t**2
    return (1 - t) * point / variance, t / variance.sqrt()


def schedule(n_steps: int, start: float = 1.0, power: float = 1.0) -> Tensor:
    """[n_steps + 1] times from ``start`` down to 0; a power above 1 takes smaller steps near the data.

    Raises:
        ValueError: no step, or a start outside (0, 1].
    """
    if n_steps < 1:
        raise ValueError(f"n_steps={n_steps}: must be at least 1")
    if not 0 < start <= 1:
        raise ValueError(f"start={start}: must lie in (0, 1]")
    return start * torch.linspace(1, 0, n_steps + 1, dtype=torch.float64) ** power


def boost(t: float, strength: float) -> float:
    """Factor of a step at time t that concentrates samples on the modes: ``1 + strength (1 - t)``.

    Anti-annealing: the later, the larger (Miller et al., ICML 2024, section 5).
    """
    return 1.0 + strength * (1.0 - t)
