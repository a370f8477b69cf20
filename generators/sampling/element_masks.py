"""Which element may come next, so that the chemistry can still come out as asked."""

from __future__ import annotations

import torch
from torch import Tensor

from generators.element_features import N_STATES
from generators.sampling.crystal_task import CrystalTask


def element_choices(elements: Tensor, left: Tensor, allowed: Tensor, task: CrystalTask) -> Tensor:
    """[r, 119] bool.

    Args:
        elements: [r, K] placed so far, 0 elsewhere.
        left: [r] orbits that come after this one.
        allowed: [119] bool.
        task: required elements and their number.
    """
    r = len(elements)
    present = torch.zeros(r, N_STATES, dtype=torch.bool).scatter(1, elements, True)
    present[:, 0] = False
    distinct = present.sum(1)
    choices = allowed.expand(r, -1).clone()
    fewest, most = task.n_elements
    if task.required:
        needed = torch.zeros(N_STATES, dtype=torch.bool)
        needed[sorted(task.required)] = True
        missing = needed & ~present
        choices &= torch.where((missing.sum(1) > left)[:, None], missing, needed)
        fewest, most = len(task.required), len(task.required)
    choices &= torch.where((distinct >= most)[:, None], present, torch.ones_like(present))
    choices &= torch.where((distinct + left < fewest)[:, None], ~present, torch.ones_like(present))
    return choices
