"""Times of training: one draw per row, together spread evenly over (0, 1], or most of them near the data."""

from __future__ import annotations

import torch
from torch import Tensor


def low_discrepancy_times(n: int, generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
    """[n] times in (0, 1], each uniform, jointly stratified (Kingma et al., Variational Diffusion Models,
    2021, appendix I.1): ``t_i = (u + i / n) mod 1`` in random order.
    """
    u = torch.rand((), generator=generator)
    order = torch.randperm(n, generator=generator)
    t = torch.remainder(u + order / n, 1.0)
    return (1.0 - t).to(device)


EARLIEST, LATEST, NEAR_SHARE = 0.005, 0.3, 0.65
"""Of `near_data`: between which times the logarithm is uniform, and for what share of the rows."""


def near_data(times: Tensor, generator: torch.Generator) -> Tensor:
    """[n] uniform ``times``, of which a share moves near 0, uniform in its logarithm; none before `EARLIEST`.

    With uniform times a network hardly learns to remove errors of some hundredths of an Å, which are all that is left
    of a fair start.
    """
    some = torch.rand(len(times), generator=generator).to(times.device) < NEAR_SHARE
    return torch.where(some, EARLIEST * (LATEST / EARLIEST) ** times, times.clamp(min=EARLIEST))
