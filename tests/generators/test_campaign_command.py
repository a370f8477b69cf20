from __future__ import annotations

import json
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import pandas as pd
import pytest

from generators.campaign_command import campaign_command
from generators.schema import CampaignConfig, LoggerConfig, TargetConfig
from generators.worlds.perov_5 import perov_5

ROOT = Path(__file__).parents[2]


def config(**changes: object) -> CampaignConfig:
    wish = TargetConfig(wish={"heat_all": [None, 0.3]})
    plain = {"run": "x", "world": "perov_5", "target": wish, "logger": LoggerConfig("none")}
    return CampaignConfig(**{**plain, **changes})  # type: ignore[arg-type]


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """A perovskite table of 4 x 4 metals and two sets of anions; every heat is known."""
    metals = {"Sr": 0.2, "Ti": 0.7, "Ba": 0.1, "Zr": 0.5}
    rows = [
        {"A": a, "B": b, "X_xy": "O", "X_xz": "O", "X_yz": x, "heat_all": metals[a] - metals[b] * (x == "O") + 0.2,
         "split": "train"}
        for a, b in [*permutations(metals, 2), *((m, m) for m in metals)]
        for x in ("O", "N")
    ]  # fmt: skip
    (tmp_path / "perov_5").mkdir()
    pd.DataFrame(rows).to_parquet(tmp_path / "perov_5" / "perovskites.parquet")
    return tmp_path


def test_perovskites_may_repeat_elements(tables: Path) -> None:
    world = perov_5(tables, tables)
    assert len(world.space) == 32 and not world.space.distinct
    assert int(world.hits(world.targets["heat_all < 0.2"]).sum()) > 0


def test_a_campaign_from_the_configuration(tables: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    small = config(tables=str(tables), budget=24, batch=12, first=12, draws=200, steps=20, samples=100)
    text = campaign_command(small, {"seed": 0}, folder)
    assert "Goodhart" in text and text.splitlines()[2].split()[0] == "12"
    judged = pd.read_parquet(folder / "judged.parquet")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["calls"] == len(judged) == 24
    assert summary["hits"] == judged["hit"].sum()
    assert summary["samples"]["samples"] == 100
    assert campaign_command(small, {"seed": 0}, folder) == text


def test_mistakes_are_named(tables: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tables=null"):
        campaign_command(config(), {}, tmp_path / "a")
    with pytest.raises(ValueError, match="world=mars: choose from elpasolite, perov_5"):
        campaign_command(config(world="mars"), {}, tmp_path / "a")
    with pytest.raises(ValueError, match=r"wish\.hardness: unknown property"):
        campaign_command(config(tables=str(tables), target=TargetConfig(wish={"hardness": [1, 2]})), {}, tmp_path / "a")
    with pytest.raises(ValueError, match="labels=99"):
        campaign_command(config(tables=str(tables), labels=99), {}, tmp_path / "a")
    with pytest.raises(ValueError, match="budget"):
        config(budget=0)


def test_the_command_says_it_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "campaign.py"), "target.wish={heat_all: [null, 1]}", "world=perov_5"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        "raremat: tables=null: world perov_5 needs the folder of its published table, tables=FOLDER"
    ]
