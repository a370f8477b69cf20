"""Dropout of whole units."""

import torch

from generators.denoiser.dropout import UnitDropout


def test_a_unit_is_dropped_in_all_tokens_of_a_crystal() -> None:
    torch.manual_seed(0)
    kept = UnitDropout(0.25)(torch.ones(400, 5, 30))
    assert torch.equal(kept, kept[:, :1].expand_as(kept))
    assert set(kept.unique().tolist()) == {0.0, float(torch.tensor(1 / 0.75))}
    assert abs(float((kept[:, 0] == 0).float().mean()) - 0.25) < 0.02


def test_evaluation_and_zero_change_nothing() -> None:
    x = torch.randn(3, 4, 5)
    assert torch.equal(UnitDropout(0.5).eval()(x), x)
    assert torch.equal(UnitDropout(0.0)(x), x)
