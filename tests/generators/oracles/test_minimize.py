"""The batched minimiser on functions with known minima."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from generators.oracles.minimize import _bfgs, minimize


def run(function, x0: Tensor, free: Tensor | None = None, tolerance: float = 1e-6, **keywords):  # type: ignore[no-untyped-def]
    def objective(rows: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = x.detach().requires_grad_()
        value = function(rows, x)
        (gradient,) = torch.autograd.grad(value.sum(), x)
        return value.detach(), gradient, torch.isfinite(value.detach())

    ones = torch.ones_like(x0)
    return minimize(
        objective,
        x0,
        torch.ones_like(x0, dtype=torch.bool) if free is None else free,
        keywords.get("curvature", ones),
        tolerance * ones,
        keywords.get("max_step", 10 * ones),
        keywords.get("max_evaluations", 200),
    )


def test_quadratic_bowls_of_any_condition() -> None:
    generator = torch.Generator().manual_seed(0)
    d = 4
    rotation = torch.linalg.qr(torch.randn(8, d, d, generator=generator, dtype=torch.float64)).Q
    stiffness = torch.logspace(-1, 2, d, dtype=torch.float64)
    hessian = rotation @ torch.diag(stiffness) @ rotation.mT
    center = torch.randn(8, d, generator=generator, dtype=torch.float64)

    def bowl(rows: Tensor, x: Tensor) -> Tensor:
        gap = x - center[rows]
        return 0.5 * (gap[:, None] @ hessian[rows] @ gap[..., None]).flatten()

    result = run(bowl, torch.zeros(8, d, dtype=torch.float64))
    assert bool(result.converged.all())
    assert torch.allclose(result.x, center, atol=1e-4)


def test_rosenbrock() -> None:
    def rosenbrock(_: Tensor, x: Tensor) -> Tensor:
        return (1 - x[:, 0]) ** 2 + 100 * (x[:, 1] - x[:, 0] ** 2) ** 2

    result = run(rosenbrock, torch.tensor([[-1.2, 1.0], [0.0, 0.0]], dtype=torch.float64))
    assert torch.allclose(result.x, torch.ones(2, 2, dtype=torch.float64), atol=1e-4)


def test_volume_curve_in_few_evaluations() -> None:
    """Birch-Murnaghan in the logarithm of the volume, 30 % off, with a guess of the stiffness 3 times too soft."""
    v0, bulk = 20.0, 1.0

    def birch(_: Tensor, x: Tensor) -> Tensor:
        eta = (v0 / x[:, 0].exp()) ** (2 / 3)
        return 9 * v0 * bulk / 16 * ((eta - 1) ** 3 * 4.5 + (eta - 1) ** 2 * (6 - 4 * eta))

    start = torch.tensor([[v0 * 1.3], [v0 * 0.8]], dtype=torch.float64).log()
    result = run(
        birch, start, tolerance=1e-4, curvature=torch.full_like(start, bulk * v0 / 3),
        max_step=torch.full_like(start, 0.25),
    )  # fmt: skip
    assert bool(result.converged.all())
    assert torch.allclose(result.x.exp(), torch.full_like(start, v0), rtol=1e-4)
    assert int(result.n_evaluations.max()) <= 10


def test_fixed_components_never_move_and_rows_are_independent() -> None:
    def bowl(_: Tensor, x: Tensor) -> Tensor:
        return ((x - 3) ** 2).sum(-1)

    start = torch.zeros(3, 2, dtype=torch.float64)
    free = torch.tensor([[True, False], [False, True], [True, True]])
    together = run(bowl, start, free)
    assert torch.allclose(together.x, torch.where(free, 3.0, 0.0).double(), atol=1e-5)
    for i in range(3):
        alone = run(bowl, start[i : i + 1], free[i : i + 1])
        assert torch.equal(alone.x[0], together.x[i])
        assert int(alone.n_evaluations[0]) == int(together.n_evaluations[i])


def test_invalid_points_are_stepped_back_from() -> None:
    def wall(_: Tensor, x: Tensor) -> Tensor:
        return torch.where(x[:, 0] < -1, torch.nan, (x[:, 0] + 0.9) ** 2)

    result = run(wall, torch.tensor([[5.0]], dtype=torch.float64), curvature=torch.full((1, 1), 0.5).double())
    assert bool(result.converged.all())
    assert float(result.x) == pytest.approx(-0.9, abs=1e-4)
    lost = run(wall, torch.tensor([[-5.0]], dtype=torch.float64))
    assert not bool(lost.converged.any())
    assert float(lost.energy) == float("inf")


def test_curvature_must_be_positive() -> None:
    with pytest.raises(ValueError, match="curvature"):
        run(lambda _, x: x.sum(-1), torch.zeros(1, 1), curvature=torch.zeros(1, 1))


def test_inverse_hessian_satisfies_the_secant_equation() -> None:
    """An accepted update maps the last change of slope onto the last step and stays symmetric."""
    generator = torch.Generator().manual_seed(1)
    root = torch.randn(3, 5, 5, generator=generator, dtype=torch.float64)
    inverse = root @ root.mT + torch.eye(5, dtype=torch.float64)
    step = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    bend = step + 0.1 * torch.randn(3, 5, generator=generator, dtype=torch.float64)
    bend[2] = -step[2]  # negative curvature teaches nothing
    updated = _bfgs(inverse, step, bend)
    assert torch.allclose((updated[:2] @ bend[:2, :, None]).squeeze(-1), step[:2])
    assert torch.allclose(updated, updated.mT)
    assert torch.equal(updated[2], inverse[2])
