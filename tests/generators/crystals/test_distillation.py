"""Distillation: a model learns to say without guidance what it says with it, and to draw less of what is unwanted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from generators.checkpoints import load_checkpoint
from generators.conditioning import Conditions
from generators.crystals.datamodule import CrystalDataModule
from generators.crystals.distillation import Distillation, DistillationSettings
from generators.crystals.draws import CrystalDraws
from generators.crystals.module import CrystalDiffusion
from generators.crystals.task_schema import SOURCES
from generators.sampling.crystal_geometry import CrystalSamplerSettings
from generators.sampling.crystal_task import CrystalTask
from generators.shipped import shipped
from generators.wish import Interval

SETTINGS = DistillationSettings(rounds=1, draws=24, batch_size=12, passes=3, shard_size=12, workers=1, guidance=2.0)


def distillation(
    taught: tuple[CrystalDataModule, CrystalDiffusion], folder: Path, lines: list[str], settings: DistillationSettings
) -> Distillation:
    data, module = taught
    module.start_from(load_checkpoint(shipped("crystal"), "crystal")[1])
    wish = Conditions.from_wish({"e_above_hull": Interval(-0.05, 0.03)}, [scale.name for scale in module.scales], 1)
    sampler = CrystalSamplerSettings(source=SOURCES.index("chosen"), steps=4)
    drawn = CrystalDraws(shipped("crystal"), sampler, CrystalTask(n_atoms=(1, 6)), wish, 0, templates=False)
    return Distillation(module, data, drawn, settings, folder, log=lines.append)


@pytest.mark.slow
def test_it_learns_what_is_said_with_guidance_and_a_killed_run_goes_on(
    taught: tuple[CrystalDataModule, CrystalDiffusion], tmp_path: Path
) -> None:
    lines: list[str] = []
    plain = replace(SETTINGS, unwanted=0.0, anchor=0.0, passes=12)
    last = distillation(taught, tmp_path / "plain", lines, plain).run()
    assert len(lines) == 1 and lines[0].startswith("round 1/1: 24 drawn in ")
    first, final = (float(lines[0].split(word)[0].split()[-1]) for word in (" at first", " at last"))
    assert final < 0.8 * first
    expected, drawn = last.read_bytes(), pd.read_parquet(tmp_path / "plain" / "drawn-00.parquet")

    # Killed while it learnt: what was drawn is kept.
    last.unlink()
    (tmp_path / "plain" / "state.pt").unlink()
    assert distillation(taught, tmp_path / "plain", lines, plain).run().read_bytes() == expected
    assert pd.read_parquet(tmp_path / "plain" / "drawn-00.parquet").equals(drawn)
    with pytest.raises(ValueError, match=r"guidance"):
        distillation(taught, tmp_path / "plain", lines, replace(plain, guidance=3.0))

    # Other crystals are drawn with guidance than without.
    without = distillation(taught, tmp_path / "without", lines, replace(plain, guidance=1.0, passes=1))
    without.run()
    other = pd.read_parquet(tmp_path / "without" / "drawn-00.parquet")
    assert list(other["crystal_key"]) != list(drawn["crystal_key"])
    # Nothing is to be learnt there: the teacher says what the model says.
    assert "guidance 0.00 at first" in lines[-1]


@pytest.mark.parametrize("given", [{"judged": [Path("nowhere")]}, {"hull": [Path("known"), Path("nowhere")]}])
def test_a_table_that_is_not_there_is_one_line(
    taught: tuple[CrystalDataModule, CrystalDiffusion], tmp_path: Path, given: dict[str, Any]
) -> None:
    old = distillation(taught, tmp_path / "old", [], SETTINGS)
    with pytest.raises(ValueError, match=f"{next(iter(given))} nowhere: is not there"):
        Distillation(old.module, taught[0], old.draws, SETTINGS, tmp_path / "new", **given)
    (table := tmp_path / "hull.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"hull\.csv"):
        Distillation(old.module, taught[0], old.draws, SETTINGS, tmp_path / "new", hull=[table])
    assert not (tmp_path / "new").exists()


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"guidance=0.5: must be at least 1"):
        DistillationSettings(guidance=0.5)
    with pytest.raises(ValueError, match=r"unwanted=-1: must lie in \(-1, 0\]"):
        DistillationSettings(unwanted=-1)
    with pytest.raises(ValueError, match=r"draws=0: must be at least 1"):
        DistillationSettings(draws=0)
