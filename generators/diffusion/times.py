"""Low-discrepancy times: one draw per row, together spread evenly over (0, 1]."""

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
