"""Low-rank changes: nothing at first, only what may change learns, and the file gives the changed network back."""

from __future__ import annotations

import torch
from torch import nn

from generators.denoiser.low_rank import adapt, changed, changes


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.SiLU(), nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 2))


def test_changes_of_low_rank_are_learnt_and_made_again() -> None:
    plain, adapted = network(), network()
    adapt(adapted, parts=("0",), whole=("4",), rank=2)
    x = torch.randn(32, 6, generator=torch.Generator().manual_seed(1))
    assert torch.equal(plain(x), adapted(x))
    before = {name: value.clone() for name, value in adapted.named_parameters()}
    optimizer = torch.optim.Adam(adapted.parameters(), lr=1e-2)
    for _ in range(50):
        optimizer.zero_grad()
        (adapted(x) - x[:, :2]).square().mean().backward()
        optimizer.step()
    moved = {name for name, value in adapted.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {
        "0.parametrizations.weight.0.first", "0.parametrizations.weight.0.second", "4.weight", "4.bias"
    }  # fmt: skip
    state = changes(adapted, ("4",))
    assert set(state) == {"0.first", "0.second", "4.weight", "4.bias"}
    again = changed(plain, state)
    assert torch.allclose(again(x), adapted(x), atol=1e-6)
    first, old = again[0], network()[0]
    assert isinstance(first, nn.Linear) and isinstance(old, nn.Linear)
    assert int(torch.linalg.matrix_rank(first.weight - old.weight)) == 2
    assert torch.equal(plain[4].weight, network()[4].weight)  # type: ignore[arg-type]
