"""Expert iteration: a model draws, what is judged is learnt, nothing is judged twice, and a killed run goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from generators.checkpoints import load_checkpoint
from generators.conditioning import Conditions
from generators.crystals.datamodule import CrystalDataModule
from generators.crystals.draws import CrystalDraws
from generators.crystals.expert_iteration import ExpertIteration, IterationSettings
from generators.crystals.module import CrystalDiffusion
from generators.crystals.task_schema import SOURCES
from generators.sampling.crystal_geometry import CrystalSamplerSettings
from generators.sampling.crystal_task import CrystalTask
from generators.shipped import shipped
from generators.wish import Interval

SETTINGS = IterationSettings(
    rounds=2, draws=30, share=0.2, steps=2, batch_size=8, shard_size=15, judge_shard=3, draw_workers=1, judge_workers=1
)


def iteration(
    taught: tuple[CrystalDataModule, CrystalDiffusion], folder: Path, log: Callable[[str], object], draws: int = 30
) -> ExpertIteration:
    data, module = taught
    module.start_from(load_checkpoint(shipped("crystal"), "crystal")[1])
    wish = Conditions.from_wish({"e_above_hull": Interval(None, 0.0)}, [scale.name for scale in module.scales], 1)
    settings = CrystalSamplerSettings(source=SOURCES.index("chosen"), steps=4)
    drawn = CrystalDraws(shipped("crystal"), settings, CrystalTask(n_atoms=(1, 6)), wish, 0, templates=False)
    return ExpertIteration(module, data, drawn, replace(SETTINGS, draws=draws), folder, log)


@pytest.mark.slow
def test_rounds_draw_judge_and_learn_and_a_killed_run_goes_on(
    taught: tuple[CrystalDataModule, CrystalDiffusion], tmp_path: Path
) -> None:
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(line)
        (tmp_path / f"state-{len(lines)}.pt").write_bytes((tmp_path / "state.pt").read_bytes())

    whole = iteration(taught, tmp_path, log)
    last = whole.run()
    assert len(lines) == SETTINGS.rounds
    first, second = whole.judged()
    assert 0 < len(second) <= 6
    assert not set(first["crystal_key"]) & set(second["crystal_key"])
    at_start, learnt = (load_checkpoint(p, "crystal")[1] for p in (tmp_path / "model-00.pt", last))
    assert any(not torch.equal(at_start[name], learnt[name]) for name in at_start if name.startswith("denoiser."))
    expected = last.read_bytes()

    # Killed in the second round, after the choice: the first is not done again, nothing is drawn anew.
    (tmp_path / "state-1.pt").replace(tmp_path / "state.pt")
    for path in (last, tmp_path / "judged-01.parquet"):
        path.unlink()
    again = iteration(taught, tmp_path, lines.append)
    assert again.run().read_bytes() == expected
    assert len(lines) == 3 and "drawn" not in lines[2] and "judged" in lines[2]
    for kept, read in zip((first, second), again.judged(), strict=True):
        pd.testing.assert_frame_equal(kept, read)

    with pytest.raises(ValueError, match="holds a run with iteration.draws=30, now it is 31"):
        iteration(taught, tmp_path, lines.append, draws=31)


@pytest.mark.parametrize(("name", "value"), [("rounds", 0), ("own", 1.0), ("share", 0.0), ("device", "tpu")])
def test_settings_that_cannot_work_are_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}={value}"):
        IterationSettings(**{name: value})
