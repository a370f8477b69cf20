"""Compiled networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from generators.compiled import LEAST_STEPS, can_compile, compile_for_training
from generators.denoiser.crystal_denoiser import _Block

CPU = torch.device("cpu")


def compiled(part: nn.Module) -> bool:
    return part._compiled_call_impl is not None


def test_short_trainings_and_other_devices_are_left_alone() -> None:
    part = nn.Linear(2, 2)
    assert not compile_for_training([part], CPU, LEAST_STEPS - 1)
    assert not compile_for_training([part], torch.device("cuda"), LEAST_STEPS)
    assert not compiled(part)


@pytest.mark.parametrize("compiler", ["there-is-none", "false"])  # the second one cannot even tell its version
def test_without_a_compiler_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch, compiler: str) -> None:
    monkeypatch.setenv("CXX", compiler)
    part = nn.Linear(2, 2)
    assert not compile_for_training([part], CPU, LEAST_STEPS)
    assert not compiled(part)


@pytest.mark.slow
@pytest.mark.skipif(not can_compile(), reason="torch.compile needs a C++ compiler and Python's headers")
def test_compiled_blocks_learn_as_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.manual_seed(0)
    plain, quick = _Block(16, 2, 0.0), _Block(16, 2, 0.0)
    quick.load_state_dict(plain.state_dict())
    assert compile_for_training([quick], CPU, LEAST_STEPS)
    assert compiled(quick)
    for b, k in ((3, 5), (4, 2)):
        x, modulation, bias = torch.randn(b, k, 16), torch.randn(b, 96), torch.zeros(b, 2, k, k)
        results = [block(x, modulation, bias) for block in (plain, quick)]
        torch.testing.assert_close(*results, atol=1e-5, rtol=1e-4)
        gradients = [
            torch.autograd.grad(r.square().mean(), list(p))
            for r, p in zip(results, (plain.parameters(), quick.parameters()), strict=True)
        ]
        torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)
