"""Shards of one potential are never read as another's."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from data.orbit_batch import OrbitBatch
from data.prototypes import prototype_library
from generators.judging import JudgeWorkers
from generators.oracles.judge import JudgeSettings


def test_shards_of_another_potential_are_refused(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    batch = OrbitBatch.from_crystals([prototype_library().get("rocksalt").crystal([11, 17])])
    settings = JudgeSettings(with_bulk_modulus=False)
    with JudgeWorkers(settings, workers=1) as workers:
        first = workers.judge(batch, tmp_path, "x")
        again = workers.judge(batch, tmp_path, "x")
    pd.testing.assert_frame_equal(first, again)
    assert "judged_by" not in first.columns
    other = JudgeWorkers(settings, workers=1, potential="sevennet")
    with other as workers, pytest.raises(ValueError, match="was judged by another judge than 'SevenNet-0"):
        workers.judge(batch, tmp_path, "x")
