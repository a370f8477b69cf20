"""Model files: what went in comes out, and nothing else gets in."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from generators.checkpoints import FORMAT, load_checkpoint, save_checkpoint

CONFIG = {"width": 8, "names": ["a", "b"], "nested": {"x": 0.5, "none": None}}


def state() -> dict[str, torch.Tensor]:
    return {"weight": torch.arange(12.0).reshape(3, 4), "count": torch.tensor(7)}


def saved(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "model.pt"
    save_checkpoint(path, "surrogate", CONFIG, state())
    return path


def message(path: Path, kind: str = "surrogate") -> str:
    with pytest.raises(ValueError, match="checkpoint=") as caught:
        load_checkpoint(path, kind)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def test_comes_back_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    path = saved(tmp_path)
    config, tensors = load_checkpoint(path, "surrogate")
    assert config == CONFIG
    assert tensors.keys() == state().keys()
    assert all(torch.equal(tensors[k], v) for k, v in state().items())
    assert [p.name for p in path.parent.iterdir()] == ["model.pt"]


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = saved(tmp_path)
    before = path.read_bytes()
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(path, "surrogate", {"bad": lambda: None}, state())
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["model.pt"]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated(tmp_path: Path, share: float) -> None:
    path = saved(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "truncated" in message(path)


def test_damaged_in_the_middle(tmp_path: Path) -> None:
    path = saved(tmp_path)
    content = bytearray(path.read_bytes())
    start = content.index(b"data.pkl") + 8
    content[start : start + 200] = b"\xff" * 200
    path.write_bytes(bytes(content))
    assert "damaged" in message(path) or "other than tensors" in message(path)


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_plain_pickle_is_never_run(tmp_path: Path) -> None:
    path, target = tmp_path / "model.pt", tmp_path / "it-ran"
    path.write_bytes(pickle.dumps({"format": 1, "kind": "surrogate", "config": {}, "state": Malicious(target)}))
    message(path)
    assert not target.exists()


def test_pickle_inside_a_torch_file_is_never_run(tmp_path: Path) -> None:
    path, target = tmp_path / "model.pt", tmp_path / "it-ran"
    torch.save({"format": 1, "kind": "surrogate", "config": Malicious(target), "state": {}}, path)
    assert "not loaded" in message(path)
    assert not target.exists()


def test_wrong_kind(tmp_path: Path) -> None:
    assert "holds a surrogate model, a composition model is needed" in message(saved(tmp_path), "composition")


def test_newer_format(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"format": FORMAT + 1, "kind": "surrogate", "config": {}, "state": {}}, path)
    assert f"has format {FORMAT + 1}" in message(path)


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {}}, 3])
def test_other_torch_files(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "model.pt"
    torch.save(content, path)
    assert "not a raremat model file" in message(path)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    assert "no such file" in message(tmp_path / "nothing.pt")
    assert "no such file" in message(tmp_path)
    text = tmp_path / "text.pt"
    text.write_text("hello")
    assert "not a model file" in message(text)
