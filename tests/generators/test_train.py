from __future__ import annotations

import pytest
import torch

from generators.train import trainer_precision


@pytest.mark.parametrize(
    ("cuda", "processor", "expected"),
    [
        (False, "AVX2", "32-true"),
        (False, "DEFAULT", "32-true"),
        (False, "AVX512", "bf16-mixed"),
        (True, "AVX2", "bf16-mixed"),
    ],
)
def test_half_precision_only_where_it_is_fast(
    cuda: bool, processor: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: processor)
    assert trainer_precision("auto") == expected
    assert trainer_precision("64-true") == "64-true"
