"""Training: a killed run, started again by the same command, ends as if it had never been killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from generators.checkpoints import load_checkpoint
from generators.schema import register
from generators.train import last_checkpoint, train

SMALL = [
    "data.limit=600", "data.batch_size=32", "model.width=16", "model.depth=1", "model.members=2",
    "model.dropout=0.3", "trainer.max_epochs=4", "trainer.accelerator=cpu", "logger=none",
    "model.heads=2",
]  # fmt: skip


def run(folder: Path, *overrides: str) -> dict[str, float]:
    """What ``raremat-train`` does, in this process."""
    register()
    GlobalHydra.instance().clear()
    with initialize_config_module("generators.conf", version_base="1.3"):
        config = compose("train", [*SMALL, *overrides])
    typed: Any = OmegaConf.to_object(config)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return train(typed, plain, folder)


def weights(folder: Path, kind: str) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "model.pt", kind)[1]


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["composition", "crystal", "surrogate"])
def test_resume_equals_uninterrupted_even_if_the_last_file_is_truncated(tmp_path: Path, kind: str) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    command = [f"model={kind}", *(["data.batch_size=128"] if kind == "crystal" else [])]
    run(whole, *command)
    shutil.copytree(whole, cut, symlinks=True)
    # As a kill leaves it: an older checkpoint is complete, the newest is half-written.
    checkpoints = sorted((cut / "checkpoints").glob("*.ckpt"))
    assert [path.name for path in checkpoints] == ["epoch-0002.ckpt", "epoch-0003.ckpt"]
    content = checkpoints[1].read_bytes()
    checkpoints[1].write_bytes(content[: len(content) // 2])
    (cut / "model.pt").unlink()
    assert last_checkpoint(cut / "checkpoints") == checkpoints[0]
    run(cut, *command)
    assert_same(weights(whole, kind), weights(cut, kind))


COMMAND = [sys.executable, "-c", "from generators.cli import train; train()", *SMALL]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def started(command: list[str], folder: Path, checkpoint: Path) -> subprocess.Popen[bytes]:
    """A run in a process group of its own that has just written ``checkpoint``."""
    process = subprocess.Popen(
        command, cwd=folder, env=ONE_THREAD, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not checkpoint.exists():
        assert time.monotonic() < deadline, "the run wrote no checkpoint"
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    return process


@pytest.mark.slow
def test_resume_after_sigkill(tmp_path: Path) -> None:
    run(tmp_path / "whole")
    folder = tmp_path / "outputs" / "killed"
    command = [*COMMAND, "run=killed"]
    process = started(command, tmp_path, folder / "checkpoints" / "epoch-0001.ckpt")
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (folder / "model.pt").exists()
    done = subprocess.run(command, cwd=tmp_path, env=ONE_THREAD, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "going on from" in done.stdout + done.stderr
    assert_same(weights(tmp_path / "whole", "composition"), weights(folder, "composition"))


def alive(group: int) -> bool:
    """Whether a process of the group runs; one that nobody has waited for yet does not."""
    for process in psutil.process_iter(["status"]):
        with suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                return True
    return False


@pytest.mark.slow
def test_two_processes_end_together_when_terminated(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "scripts" / "train.py"  # the second process is started by its name
    two = ["trainer.max_epochs=1000", "trainer.devices=2", "trainer.strategy=ddp", "run=two"]
    command = [sys.executable, str(script), *SMALL, *two]
    process = started(command, tmp_path, tmp_path / "outputs" / "two" / "checkpoints" / "epoch-0001.ckpt")
    process.send_signal(signal.SIGTERM)
    try:
        assert process.wait(30) == -signal.SIGTERM
        deadline = time.monotonic() + 30
        while alive(process.pid):
            assert time.monotonic() < deadline, "the second process went on"
            time.sleep(0.1)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
def test_processes_that_average_now_and_then_resume_as_one(tmp_path: Path) -> None:
    """What one process alone had learnt, or its moments, would be lost: the file is written by the first."""
    script = Path(__file__).parents[2] / "scripts" / "train.py"

    def trained(name: str, local_steps: int) -> dict[str, torch.Tensor]:
        two = ["trainer.max_epochs=2", "trainer.devices=2", "trainer.strategy=ddp"]
        more = [*two, f"trainer.local_steps={local_steps}", f"run={name}"]
        command = [sys.executable, str(script), *SMALL, *more]
        done = subprocess.run(command, cwd=tmp_path, env=ONE_THREAD, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return weights(tmp_path / "outputs" / name, "composition")

    whole, in_step = trained("whole", 5), trained("in-step", 1)
    assert any(not torch.equal(whole[name], in_step[name]) for name in whole)
    cut = tmp_path / "outputs" / "whole"
    (cut / "checkpoints" / "epoch-0001.ckpt").unlink()
    (cut / "model.pt").unlink()
    assert_same(whole, trained("whole", 5))


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(folder)
    before = weights(folder, "composition")
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.[cp]*t")}
    metrics = run(folder)
    assert metrics["seconds"] > 0
    assert_same(before, weights(folder, "composition"))
    assert times == {path: path.stat().st_mtime_ns for path in folder.rglob("*.[cp]*t")}


def test_another_configuration_is_refused_and_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(folder, "trainer.max_epochs=1")
    before = (folder / "model.pt").read_bytes()
    with pytest.raises(ValueError, match=r"model\.width=16, now it is 32: choose another run=NAME"):
        run(folder, "trainer.max_epochs=1", "model.width=32")
    assert (folder / "model.pt").read_bytes() == before
    shutil.rmtree(folder / "checkpoints")
    run(folder, "trainer.max_epochs=1")
    assert (folder / "model.pt").stat().st_size == len(before)
