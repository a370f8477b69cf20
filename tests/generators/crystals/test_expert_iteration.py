"""Expert iteration: a model draws, what is judged is learnt, nothing is judged twice, and a killed run goes on."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from data.exchanges import load_exchanges
from generators.checkpoints import load_checkpoint
from generators.conditioning import Conditions
from generators.crystals.datamodule import CrystalDataModule, CrystalSource
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


@pytest.fixture(scope="module")
def taught() -> tuple[CrystalDataModule, CrystalDiffusion]:
    module = CrystalDiffusion.from_export(*load_checkpoint(shipped("crystal"), "crystal"))
    some = load_exchanges().select(torch.arange(0, 30_000, 100))
    source = CrystalSource(SOURCES.index("exchanged"), some, some.keys())
    return CrystalDataModule([source], [scale.name for scale in module.scales], batch_size=8), module


def iteration(taught: tuple[CrystalDataModule, CrystalDiffusion], folder: Path, lines: list[str]) -> ExpertIteration:
    data, module = taught
    module.start_from(load_checkpoint(Path(shipped("crystal")), "crystal")[1])
    wish = Conditions.from_wish({"e_above_hull": Interval(None, 0.0)}, [scale.name for scale in module.scales], 1)
    settings = CrystalSamplerSettings(source=SOURCES.index("chosen"), steps=4)
    draws = CrystalDraws(Path("of each round"), settings, CrystalTask(n_atoms=(1, 6)), wish, 0, templates=False)
    return ExpertIteration(module, data, draws, SETTINGS, folder, lines.append)


def test_rounds_draw_judge_and_learn_and_a_killed_run_goes_on(
    taught: tuple[CrystalDataModule, CrystalDiffusion], tmp_path: Path
) -> None:
    lines: list[str] = []
    whole = iteration(taught, tmp_path, lines)
    last = whole.run()
    assert len(lines) == SETTINGS.rounds
    first, second = whole.judged()
    assert 0 < len(second) <= 6
    assert not set(first["crystal_key"]) & set(second["crystal_key"])
    at_start, learnt = (load_checkpoint(p, "crystal")[1] for p in (tmp_path / "model-00.pt", last))
    assert any(not torch.equal(at_start[name], learnt[name]) for name in at_start if name.startswith("denoiser."))

    # Killed after the second round was judged: it is learnt from, not judged again.
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["rounds"] == SETTINGS.rounds
    (tmp_path / "state.pt").unlink()
    expected = last.read_bytes()
    last.unlink()
    again = iteration(taught, tmp_path, lines)
    assert again.run().read_bytes() == expected
    for kept, read in zip((first, second), again.judged(), strict=True):
        pd.testing.assert_frame_equal(kept, read)
