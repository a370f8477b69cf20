"""Quasi-Newton minimisation of many small independent problems at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""(rows [b], x [b, D]) -> energy [b], gradient [b, D], valid [b]."""


@dataclass(frozen=True, eq=False)
class Minimum:
    """Result for B problems of D variables.

    Attributes:
        x: [B, D] best point.
        energy: [B] there; +inf where no valid point was found.
        gradient: [B, D] there.
        converged: [B] bool.
        n_evaluations: [B] long.
    """

    x: Tensor
    energy: Tensor
    gradient: Tensor
    converged: Tensor
    n_evaluations: Tensor


def minimize(
    objective: Objective,
    x0: Tensor,
    free: Tensor,
    curvature: Tensor,
    tolerance: Tensor,
    max_step: Tensor,
    max_evaluations: int = 60,
) -> Minimum:
    """Dense BFGS with a step limit and rejection of uphill steps, one problem per row.

    A row leaves the batch as soon as every free component of its gradient is below ``tolerance``. A step
    that raises the energy or lands on an invalid point is not taken: the trust factor shrinks to a quarter and
    (for valid points) the curvature it revealed is kept.

    Args:
        objective: energies and gradients for some of the rows.
        x0: [B, D] start.
        free: [B, D] bool; other components never move.
        curvature: [B, D] positive guess of the second derivatives.
        tolerance: [B, D] largest admissible |gradient|.
        max_step: [B, D] largest change per component and step.
        max_evaluations: per row.

    Raises:
        ValueError: a curvature that is not positive.
    """
    if not bool((curvature > 0).all()):
        raise ValueError("curvature: must be positive everywhere")
    b, d = x0.shape
    scale = curvature.rsqrt()
    x = x0.clone()
    inverse = torch.eye(d, dtype=x.dtype, device=x.device).repeat(b, 1, 1)
    trust = torch.ones(b, dtype=x.dtype, device=x.device)
    energy = torch.full((b,), torch.inf, dtype=x.dtype, device=x.device)
    gradient = torch.zeros_like(x)
    converged = torch.zeros(b, dtype=torch.bool, device=x.device)
    n_evaluations = torch.zeros(b, dtype=torch.long, device=x.device)
    active = torch.arange(b, device=x.device)
    trial = x.clone()
    while len(active):
        value, slope, valid = objective(active, trial[active])
        slope = torch.where(free[active], slope, torch.zeros_like(slope))
        valid = valid & torch.isfinite(value) & torch.isfinite(slope).all(-1)
        n_evaluations[active] += 1
        first = n_evaluations[active] == 1
        lower = value <= energy[active] + 1e-9
        accept = valid & (lower | first)

        step = (trial[active] - x[active]) / scale[active]
        bend = (slope - gradient[active]) * scale[active]
        learn = valid & ~first
        inverse[active[learn]] = _bfgs(inverse[active[learn]], step[learn], bend[learn])
        taken = active[accept]
        x[taken] = trial[taken]
        energy[taken] = value[accept]
        gradient[taken] = slope[accept]
        trust[taken] = (trust[taken] * 2).clamp(max=1.0)
        trust[active[~accept]] *= 0.25

        done = (gradient[active].abs() <= tolerance[active]).all(-1) & torch.isfinite(energy[active])
        converged[active[done]] = True
        hopeless = (n_evaluations[active] >= max_evaluations) | (trust[active] < 1e-5)
        hopeless |= first & ~valid
        active = active[~(done | hopeless)]
        if not len(active):
            break
        scaled = gradient[active] * scale[active]
        direction = -(inverse[active] @ scaled[..., None]).squeeze(-1)
        uphill = (direction * scaled).sum(-1) >= 0
        direction[uphill] = -scaled[uphill]
        move = torch.where(free[active], direction * scale[active], torch.zeros_like(direction))
        over = (move.abs() / max_step[active]).amax(-1).clamp(min=1.0)
        trial[active] = x[active] + move * (trust[active] / over)[:, None]
    return Minimum(x, energy, gradient, converged, n_evaluations)


def _bfgs(inverse: Tensor, step: Tensor, bend: Tensor) -> Tensor:
    """BFGS update of inverse Hessians [b, D, D]; unchanged where the curvature is not positive."""
    product = (step * bend).sum(-1)
    good = product > 1e-10 * step.norm(dim=-1) * bend.norm(dim=-1) + 1e-18
    rho = torch.where(good, 1 / product.where(good, torch.ones_like(product)), torch.zeros_like(product))
    seen = (inverse @ bend[..., None]).squeeze(-1)
    along = rho * (1 + rho * (bend * seen).sum(-1))
    cross = step[:, :, None] * (rho[:, None] * seen)[:, None, :]
    updated = inverse + along[:, None, None] * step[:, :, None] * step[:, None, :] - cross - cross.mT
    return torch.where(good[:, None, None], updated, inverse)
