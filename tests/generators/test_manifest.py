"""Run folders: the same command goes on, another one is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from generators.manifest import claim_folder, flatten


def test_same_configuration_goes_on_and_another_is_named(tmp_path: Path) -> None:
    folder, data = tmp_path / "run", tmp_path / "data.csv"
    data.write_text("a")
    claim_folder(folder, {"seed": 0, "logger": {"name": "wandb"}}, {"data": data}, ("logger.",))
    claim_folder(folder, {"seed": 0, "logger": {"name": "csv"}}, {"data": data}, ("logger.",))
    with pytest.raises(ValueError, match=r"seed=0, now it is 1: choose another run=NAME"):
        claim_folder(folder, {"seed": 1, "logger": {"name": "csv"}}, {"data": data}, ("logger.",))
    data.write_text("b")
    with pytest.raises(ValueError, match=r"files\.data"):
        claim_folder(folder, {"seed": 0, "logger": {"name": "csv"}}, {"data": data}, ("logger.",))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["config"]["seed"] == 0
    assert set(manifest["versions"]) >= {"torch", "chgnet"}


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written") as caught:
        claim_folder(tmp_path / "file" / "run", {}, {})
    assert "\n" not in str(caught.value)


def test_flatten() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": []}, "e": {}}) == {"a.b.c": 1, "a.d": [], "e": {}}
