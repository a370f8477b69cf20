from __future__ import annotations

import json
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import pandas as pd
import pytest
import torch

from data.prototype_table import PrototypeTable
from data.prototypes import prototype_library
from generators.campaign import Campaign, CampaignSettings, TableJudge
from generators.campaign_command import campaign_command, judged_table
from generators.schema import CampaignConfig, LoggerConfig, TargetConfig
from generators.wish import Interval, Wish
from generators.worlds.learner import Learner
from generators.worlds.perov_5 import perov_5, perov_5_gap, read_perovskites
from generators.worlds.space import Space
from generators.worlds.world import World

ROOT = Path(__file__).parents[2]


def config(**changes: object) -> CampaignConfig:
    wish = TargetConfig(wish={"heat_all": [None, 0.3]})
    plain = {"run": "x", "world": "perov_5", "target": wish, "logger": LoggerConfig("none")}
    return CampaignConfig(**{**plain, **changes})  # type: ignore[arg-type]


@pytest.fixture
def space() -> Space:
    """60 elpasolites of five elements."""
    table = PrototypeTable.build([prototype_library().get("elpasolite")])
    return Space.build(table, torch.tensor(list(permutations((3, 8, 9, 11, 13), 4))))


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


@pytest.mark.slow
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
    page = (folder / "report.html").read_text()
    assert f"{summary['hits']:,} of {summary['existing_hits']:,} existing hits were found in 24 judge calls" in page
    assert campaign_command(small, {"seed": 0}, folder) == text


def test_gaps_are_learnt_from_one_half_and_judged_by_the_other(tables: Path) -> None:
    path = tables / "perov_5" / "perovskites.parquet"
    table = pd.read_parquet(path)
    table["ind_gap"] = [0.1 * i for i in range(len(table))]
    table.loc[16:, "split"] = "val"
    table.loc[:15, "ind_gap"] = float("nan")
    table.to_parquet(path)
    world = perov_5_gap(tables, tables)
    wish = next(iter(world.targets.values()))
    judging = world.known(wish).nonzero().squeeze(1)
    assert len(judging) == 8 and len(world.train_index) == 16 + 8
    assert not bool(torch.isin(judging, world.train_index).any())
    assert int(world.train_labels["ind_gap"].isnan().sum()) == 16 and not world.train_labels["heat_all"].isnan().any()
    numbers, _ = read_perovskites(tables)
    place = dict(zip(world.space.index(numbers).tolist(), range(len(table)), strict=True))
    expected = [table["heat_all"][place[i]] <= 0.5 and table["ind_gap"][place[i]] >= 0.5 for i in judging.tolist()]
    assert world.hits(wish)[judging].tolist() == expected and any(expected)


def test_the_front_of_several_wishes_is_marked(space: Space, tmp_path: Path) -> None:
    n = 40
    a, b = torch.linspace(0, 1, n, dtype=torch.float64), torch.linspace(1, 0, n, dtype=torch.float64)
    b[::4] += 0.5  # every fourth is beaten by a neighbour
    truth = {"a": torch.full((len(space),), torch.nan, dtype=torch.float64), "b": torch.zeros(len(space)).double()}
    truth["a"][:n], truth["b"][:n] = a, b
    world = World("two", space, truth, torch.zeros(0, dtype=torch.long), {}, {}, "itself")
    wish = Wish({"a": Interval(None, 0.9), "b": Interval(None, 0.9)})
    campaign = Campaign(Learner(space, ("a", "b")), TableJudge(world), wish, CampaignSettings(), tmp_path)
    campaign.known = campaign.known.add(torch.arange(n), torch.stack([a, b], 1), 0)
    judged = judged_table(campaign, world, wish)
    hit, front = judged["hit"].to_numpy(), judged["pareto"].to_numpy()
    values = judged[["a", "b"]].to_numpy()
    for i in range(n):
        beaten = any(hit[j] and (values[j] <= values[i]).all() and (values[j] < values[i]).any() for j in range(n))
        assert front[i] == (hit[i] and not beaten)
    assert 0 < front.sum() < hit.sum()


def test_mistakes_are_named(tables: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tables=null"):
        campaign_command(config(), {}, tmp_path / "a")
    with pytest.raises(ValueError, match="world=mars: choose from elpasolite, perov_5, perov_5_gap"):
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
