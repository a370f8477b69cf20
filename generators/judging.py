"""Judge many crystals in shards: several processes, nothing computed twice, nothing lost when killed."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Self

import pandas as pd
import torch

from data.frames import from_frame, to_frame
from data.orbit_batch import OrbitBatch
from data.workers import start_worker
from generators.oracles.judge import JudgeSettings, PotentialJudge, energy_scale, make_judge
from generators.oracles.potential import best_device

SHARD_SIZE = 32
_SCALE = "energy_scale"  # kept in the shards only, so that another potential never reads them as its own

_judge: PotentialJudge | None = None


def _start_worker(potential: str, settings: JudgeSettings, device: str) -> None:
    global _judge
    start_worker()
    _judge = make_judge(potential, settings, device)


def _judge_shard(batch: OrbitBatch) -> pd.DataFrame:
    """Table of one shard: crystal columns (relaxed), ``energy_per_atom`` (eV, the potential's scale), the measured
    properties, ``judge_evaluations``, ``valid``, ``reason`` and ``energy_scale``."""
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
    frame[_SCALE] = _judge.scale
    return frame


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Write under a temporary name, then rename: a file that exists is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    frame.to_parquet(temporary, index=False)
    temporary.replace(path)


class JudgeWorkers:
    """Judge processes that stay for a whole run: each loads the potential once.

    Used in a ``with`` statement; the processes start with the first crystal that is not judged yet.

    Args:
        workers: processes of one thread each (one on a GPU). The result does not depend on it.
        device: ``auto`` for whatever is there.
        potential: ``chgnet`` or ``sevennet``.
    """

    def __init__(
        self,
        settings: JudgeSettings | None = None,
        workers: int = 2,
        device: str = "auto",
        potential: str = "chgnet",
    ) -> None:
        self.settings = settings or JudgeSettings()
        self.device = best_device(device)
        self.potential = potential
        self.scale = energy_scale(potential)
        self.workers = workers if self.device == "cpu" else 1
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _submit(self, batch: OrbitBatch) -> Future[pd.DataFrame]:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start_worker,
                initargs=(self.potential, self.settings, self.device),
            )
        return self._pool.submit(_judge_shard, batch)

    def judge(
        self,
        batch: OrbitBatch,
        folder: Path,
        name: str,
        shard_size: int = SHARD_SIZE,
        progress: Callable[[int, pd.DataFrame], object] | None = None,
    ) -> pd.DataFrame:
        """Relax and measure all crystals of ``batch``; see `_judge_shard` for the columns.

        Shards already in ``folder`` (``NAME-00012.parquet``) are read, not judged again.

        Args:
            progress: called with the number of crystals done since the last call, and their table.

        Raises:
            ValueError: the folder holds shards of other crystals, or of another potential.
        """
        shards = torch.arange(len(batch)).split(shard_size)
        paths = [folder / f"{name}-{i:05d}.parquet" for i in range(len(shards))]
        for path, rows in zip(paths, shards, strict=True):
            if path.exists():
                done = pd.read_parquet(path)
                _check_same(done, batch.select(rows), path, self.scale)
                if progress is not None:
                    progress(len(done), done)
        queue = iter([i for i, path in enumerate(paths) if not path.exists()])
        waiting: dict[Future[pd.DataFrame], int] = {}
        for i in islice(queue, 2 * self.workers):
            waiting[self._submit(batch.select(shards[i]))] = i
        while waiting:
            finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in finished:
                frame = future.result()
                write_parquet(frame, paths[waiting.pop(future)])
                if progress is not None:
                    progress(len(frame), frame)
                for i in islice(queue, 1):
                    waiting[self._submit(batch.select(shards[i]))] = i
        table = pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)
        return table.drop(columns=_SCALE, errors="ignore")


def _check_same(done: pd.DataFrame, batch: OrbitBatch, path: Path, scale: str) -> None:
    if _SCALE in done.columns and set(done[_SCALE]) != {scale}:
        raise ValueError(f"{path}: holds energies on another scale than {scale!r}, choose another run folder")
    expected = [list(c.atomic_numbers) for c in batch.to_crystals()]
    found = [list(z) for z in done["atomic_numbers"]]
    if expected != found:
        raise ValueError(f"{path}: holds results for other crystals, choose another run folder or remove this one")


def judged_batch(frame: pd.DataFrame) -> OrbitBatch:
    """The relaxed crystals of a table of `JudgeWorkers.judge`."""
    return from_frame(frame)
