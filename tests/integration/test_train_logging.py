"""A short training of the surrogate: losses and calibration are in the offline W&B run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from generators import cli


@pytest.mark.slow
def test_losses_and_calibration_are_logged(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    read_offline_run: Callable[[Path], tuple[dict[str, object], set[str]]],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    GlobalHydra.instance().clear()
    arguments = [
        "experiment=surrogate", "run=log", "data.limit=600", "trainer.max_epochs=2", "model.width=16",
        "model.members=2", "data.batch_size=64", "trainer.accelerator=cpu",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["raremat-train", *arguments])
    cli.train()
    _, logged = read_offline_run(tmp_path)
    name = "formation_energy_per_atom"
    assert {"train/loss", f"val/mae/{name}", f"val/coverage_90/{name}", f"test/coverage_90/{name}"} <= logged
    assert (tmp_path / "outputs" / "log" / "model.pt").is_file()
    assert "CHGNet's" in (tmp_path / "outputs" / "log" / "model.md").read_text()
