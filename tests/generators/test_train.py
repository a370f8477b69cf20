from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from generators.local_steps import LocalSteps
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


def test_local_steps_say_which_strategy_they_need() -> None:
    trainer: Any = SimpleNamespace(world_size=2, strategy=SimpleNamespace(model=torch.nn.Linear(1, 1)))
    with pytest.raises(ValueError, match=r"trainer\.local_steps=8: several processes need trainer\.strategy=ddp"):
        LocalSteps(8).on_train_start(trainer)
    trainer.world_size = 1
    LocalSteps(8).on_train_start(trainer)
