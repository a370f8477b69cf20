"""Model files: what comes back, and what is refused without being run."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from generators.checkpoints import load_checkpoint, save_checkpoint


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    save_checkpoint(path, "surrogate", {"width": 3, "names": ["a"]}, {"w": torch.arange(4.0)})
    return path


def test_round_trip(saved: Path) -> None:
    config, state = load_checkpoint(saved, "surrogate")
    assert config == {"width": 3, "names": ["a"]}
    assert torch.equal(state["w"], torch.arange(4.0))
    assert [p.name for p in saved.parent.iterdir()] == ["model.pt"]  # no temporary file is left


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.target,))


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "evil.pt", tmp_path / "ran"
    path.write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(ValueError, match="checkpoint="):
        load_checkpoint(path, "surrogate")
    torch.save({"format": 1, "kind": "surrogate", "config": {}, "state": Bomb(trace)}, path)
    with pytest.raises(ValueError, match="checkpoint="):
        load_checkpoint(path, "surrogate")
    assert not trace.exists()


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.95])
def test_a_truncated_file_is_refused(saved: Path, keep: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(ValueError, match="truncated"):
        load_checkpoint(saved, "surrogate")


def test_wrong_kind_newer_format_and_missing_file(saved: Path) -> None:
    with pytest.raises(ValueError, match="holds a surrogate model, a composition model is needed"):
        load_checkpoint(saved, "composition")
    torch.save({"format": 99, "kind": "surrogate", "config": {}, "state": {}}, saved)
    with pytest.raises(ValueError, match="format 99"):
        load_checkpoint(saved, "surrogate")
    torch.save({"weights": torch.ones(2)}, saved)
    with pytest.raises(ValueError, match="not a raremat model file"):
        load_checkpoint(saved, "surrogate")
    with pytest.raises(ValueError, match="no such file"):
        load_checkpoint(saved.with_name("nothing.pt"), "surrogate")
