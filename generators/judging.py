"""Judge many crystals in shards: several processes, nothing computed twice, nothing lost when killed."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path

import pandas as pd
import torch

from data.frames import from_frame, to_frame
from data.orbit_batch import OrbitBatch
from generators.oracles.chgnet_potential import best_device
from generators.oracles.judge import ChgnetJudge, JudgeSettings

SHARD_SIZE = 32

_judge: ChgnetJudge | None = None


def _start_worker(settings: JudgeSettings, device: str) -> None:
    global _judge
    torch.set_num_threads(1)
    _judge = ChgnetJudge(settings, device)


def _judge_shard(batch: OrbitBatch) -> pd.DataFrame:
    """Table of one shard: crystal columns (relaxed), ``energy_per_atom`` (eV, CHGNet's scale), the measured
    properties, ``judge_evaluations``, ``valid`` and ``reason``."""
    assert _judge is not None, "the worker was not started"
    energy, result = _judge.measure(batch)
    assert result.relaxed is not None and result.n_evaluations is not None
    frame = to_frame(result.relaxed)
    frame["energy_per_atom"] = energy.numpy()
    for name, value in result.values.items():
        frame[name] = value.numpy()
    frame["judge_evaluations"] = result.n_evaluations.numpy()
    frame["valid"] = result.valid.numpy()
    frame["reason"] = list(result.reason)
    return frame


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Write under a temporary name, then rename: a file that exists is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    frame.to_parquet(temporary, index=False)
    temporary.replace(path)


def judge_in_shards(
    batch: OrbitBatch,
    folder: Path,
    name: str,
    settings: JudgeSettings | None = None,
    workers: int = 2,
    device: str = "auto",
    shard_size: int = SHARD_SIZE,
    progress: Callable[[int, pd.DataFrame], object] | None = None,
) -> pd.DataFrame:
    """Relax and measure all crystals of ``batch``; see `_judge_shard` for the columns.

    Shards already in ``folder`` (``NAME-00012.parquet``) are read, not judged again; a shard that belongs to
    other crystals is an error.

    Args:
        workers: processes of one thread each (one on a GPU). The result does not depend on it.
        progress: called with the number of crystals done since the last call, and their table.

    Raises:
        ValueError: the folder holds shards of other crystals.
    """
    settings = settings or JudgeSettings()
    shards = torch.arange(len(batch)).split(shard_size)
    paths = [folder / f"{name}-{i:05d}.parquet" for i in range(len(shards))]
    for path, rows in zip(paths, shards, strict=True):
        if path.exists():
            done = pd.read_parquet(path)
            _check_same(done, batch.select(rows), path)
            if progress is not None:
                progress(len(done), done)
    todo = [i for i, path in enumerate(paths) if not path.exists()]
    device = best_device(device)
    workers = max(1, min(workers, len(todo))) if device == "cpu" else 1
    if todo:
        with ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(settings, device),
        ) as pool:
            waiting = {}
            queue: Iterator[int] = iter(todo)
            for i in queue:
                waiting[pool.submit(_judge_shard, batch.select(shards[i]))] = i
                if len(waiting) >= 2 * workers:
                    break
            while waiting:
                finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in finished:
                    frame = future.result()
                    write_parquet(frame, paths[waiting.pop(future)])
                    if progress is not None:
                        progress(len(frame), frame)
                    following = next(queue, None)
                    if following is not None:
                        waiting[pool.submit(_judge_shard, batch.select(shards[following]))] = following
    return pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)


def _check_same(done: pd.DataFrame, batch: OrbitBatch, path: Path) -> None:
    expected = [list(c.atomic_numbers) for c in batch.to_crystals()]
    found = [list(z) for z in done["atomic_numbers"]]
    if expected != found:
        raise ValueError(f"{path}: holds results for other crystals, choose another run folder or remove this one")


def judged_batch(frame: pd.DataFrame) -> OrbitBatch:
    """The relaxed crystals of a table of `judge_in_shards`."""
    return from_frame(frame)
