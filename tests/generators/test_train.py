from __future__ import annotations

import pytest
import torch

from generators.train import trainer_precision


@pytest.mark.parametrize(
    ("cuda", "instructions", "expected"),
    [(False, False, "32-true"), (False, True, "bf16-mixed"), (True, False, "bf16-mixed")],
)
def test_half_precision_only_where_it_is_fast(
    cuda: bool, instructions: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: instructions)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert trainer_precision("auto") == expected
    assert trainer_precision("64-true") == "64-true"
