"""A table of one's own, from training to candidates, by the documented commands alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from data.cells import element
from data.decorations import load_decorations
from generators import cli

NAME = "formation_energy_per_atom"
SLOTS = {"rocksalt": 2, "perovskite": 3}


def write_table(path: Path) -> None:
    """Some of the embedded decorations as a user would write them, and one row that cannot be used."""
    dataset = load_decorations()
    batch, energy = dataset.batch, dataset.properties[NAME].tolist()
    rows = []
    for name, slots in SLOTS.items():
        for i in [i for i, p in enumerate(dataset.prototype) if p == name][:60]:
            numbers = list(dict.fromkeys(batch.atomic_number[i][batch.mask[i]].tolist()))
            if len(numbers) == slots:
                rows.append((name, " ".join(element(z).symbol for z in numbers), energy[i]))
    rows.append(("rocksalt", "Na Xq", 0.0))
    pd.DataFrame(rows, columns=["prototype", "elements", NAME]).to_csv(path, index=False)


@pytest.mark.slow
def test_a_table_trains_a_generator_that_answers_wishes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    write_table(tmp_path / "mine.csv")

    def call(command: str, *overrides: str) -> str:
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", [f"raremat-{command}", *overrides, "logger=none"])
        getattr(cli, command)()
        return capsys.readouterr().out

    small = ("data.path=mine.csv", "trainer.max_epochs=1")
    call("train", *small, "run=mine")
    call("train", *small, "run=mine-surrogate", "model=surrogate", "model.members=2")
    rejected = pd.read_parquet("outputs/mine/rejected.parquet")
    assert len(rejected) == 1
    call(
        "generate", "run=mine-wish", "data.path=mine.csv", "generator=outputs/mine/model.pt",
        "surrogate=outputs/mine-surrogate/model.pt", f"target.wish={{{NAME}: [null, 5]}}",
        "screening.judge_calls=4", "screening.pool=40", "oracle.workers=1",
    )  # fmt: skip
    found = pd.read_parquet("outputs/mine-wish/candidates.parquet")
    assert set(found["prototype"]) <= set(SLOTS)
    assert json.loads(Path("outputs/mine-wish/summary.json").read_text())["raremat"]["judge_calls"] == 4
