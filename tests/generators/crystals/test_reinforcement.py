"""Reinforcement: what is rewarded becomes likelier, rounds are kept, and a killed run goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from data.exchanges import load_exchanges
from generators.checkpoints import load_checkpoint
from generators.conditioning import Conditions
from generators.crystals.datamodule import CrystalDataModule, CrystalSource
from generators.crystals.draws import CrystalDraws
from generators.crystals.likelihood import negative_log_likelihood
from generators.crystals.model import load_crystal_model
from generators.crystals.module import CrystalDiffusion
from generators.crystals.reinforcement import Reinforcement, ReinforcementSettings
from generators.crystals.task_schema import SOURCES
from generators.sampling.crystal_geometry import CrystalSamplerSettings
from generators.sampling.crystal_task import CrystalTask
from generators.shipped import shipped
from generators.wish import Interval

SETTINGS = ReinforcementSettings(rounds=2, draws=24, batch_size=12, shard_size=12, workers=1)


@pytest.fixture(scope="module")
def taught() -> tuple[CrystalDataModule, CrystalDiffusion]:
    model = load_crystal_model(shipped("crystal"))
    module = CrystalDiffusion(model.scales, model.strain_scale, model.known_elements, model.denoiser.config)
    some = load_exchanges().select(torch.arange(0, 30_000, 100))
    source = CrystalSource(SOURCES.index("exchanged"), some, some.keys())
    return CrystalDataModule([source], [scale.name for scale in module.scales], batch_size=8), module


def reinforcement(
    taught: tuple[CrystalDataModule, CrystalDiffusion],
    folder: Path,
    log: Callable[[str], object],
    settings: ReinforcementSettings = SETTINGS,
) -> Reinforcement:
    data, module = taught
    module.start_from(load_checkpoint(shipped("crystal"), "crystal")[1])
    wish = Conditions.from_wish({"e_above_hull": Interval(-0.05, 0.03)}, [scale.name for scale in module.scales], 1)
    sampler = CrystalSamplerSettings(source=SOURCES.index("chosen"), steps=4)
    drawn = CrystalDraws(shipped("crystal"), sampler, CrystalTask(n_atoms=(1, 6)), wish, 0, templates=False)
    return Reinforcement(module, data, drawn, settings, folder, log=log)


def test_rounds_draw_and_learn_and_a_killed_run_goes_on(
    taught: tuple[CrystalDataModule, CrystalDiffusion], tmp_path: Path
) -> None:
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(line)
        (tmp_path / f"state-{len(lines)}.pt").write_bytes((tmp_path / "state.pt").read_bytes())

    last = reinforcement(taught, tmp_path, log).run()
    assert len(lines) == SETTINGS.rounds and lines[0].startswith("round 1/2: 24 drawn in ")
    at_start, learnt = (load_checkpoint(p, "crystal")[1] for p in (tmp_path / "model-00.pt", last))
    assert any(not torch.equal(at_start[name], learnt[name]) for name in at_start if name.startswith("denoiser."))
    expected, second = last.read_bytes(), pd.read_parquet(tmp_path / "drawn-01.parquet")

    # Killed in the second round: the first is not done again, and what is drawn comes out the same.
    (tmp_path / "state-1.pt").replace(tmp_path / "state.pt")
    last.unlink()
    (tmp_path / "drawn-01.parquet").unlink()
    assert reinforcement(taught, tmp_path, lines.append).run().read_bytes() == expected
    assert len(lines) == 3 and lines[2].startswith("round 2/2")
    again = pd.read_parquet(tmp_path / "drawn-01.parquet")
    assert list(again["crystal_key"]) == list(second["crystal_key"])

    with pytest.raises(ValueError, match=r"draws"):
        reinforcement(taught, tmp_path, lines.append, replace(SETTINGS, draws=30))


def test_what_is_rewarded_becomes_likelier(taught: tuple[CrystalDataModule, CrystalDiffusion], tmp_path: Path) -> None:
    settings = replace(SETTINGS, rounds=4, anchor=0.0, learning_rate=3e-4, batch_size=24)
    teacher = reinforcement(taught, tmp_path, lambda line: None, settings)
    module = teacher.module
    batch = load_exchanges().batch
    some = batch.select((batch.n_orbits <= 4).nonzero().squeeze(-1)[::40][:96])
    worth = np.arange(len(some)) % 2 * 1.0
    plain = some.replace(coordinates=some.coordinates.float(), strain=some.strain.float())

    def bounds() -> np.ndarray:
        generator = torch.Generator().manual_seed(3)
        module.denoiser.eval()
        with torch.no_grad():
            return negative_log_likelihood(
                module.denoiser, module.strain_scale, plain, teacher.wish, SOURCES.index("chosen"), teacher.elements,
                generator,
            ).numpy()  # fmt: skip

    before = bounds()
    for number in range(settings.rounds):
        teacher._learn(number, some, worth)
    gain = before - bounds()
    assert gain[worth == 1].mean() > gain[worth == 0].mean() + 0.5


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"rounds=0: must be at least 1"):
        ReinforcementSettings(rounds=0)
    with pytest.raises(ValueError, match=r"anchor=-1: must not be negative"):
        ReinforcementSettings(anchor=-1)
    with pytest.raises(ValueError, match=r"ema_decay=1: must lie in \[0, 1\)"):
        ReinforcementSettings(ema_decay=1)
