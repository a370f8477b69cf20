"""Dropout of whole features."""

from __future__ import annotations

import torch

from generators.denoiser.shared_dropout import SharedDropout


def test_a_feature_is_dropped_in_all_orbits_or_in_none() -> None:
    torch.manual_seed(0)
    result = SharedDropout(0.25)(torch.ones(50, 7, 80))
    kept = result[:, 0] > 0
    assert torch.equal(result, (kept[:, None] / 0.75).expand(50, 7, 80))
    assert abs(kept.float().mean() - 0.75) < 0.03
    assert len(kept.unique(dim=0)) == 50  # each crystal for itself


def test_nothing_is_dropped_when_drawing() -> None:
    x = torch.randn(2, 3, 4)
    assert SharedDropout(0.5).eval()(x) is x
    assert SharedDropout(0.0)(x) is x
