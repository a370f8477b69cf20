"""Judge many crystals in shards: several processes, nothing computed twice, nothing lost when killed."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from data.frames import from_frame, to_frame
from data.orbit_batch import OrbitBatch
from data.workers import start_worker, worker_context
from generators.oracles.base import OracleResult
from generators.oracles.chgnet_potential import SCALE
from generators.oracles.judge import (
    JudgeSettings,
    PotentialJudge,
    elemental_references,
    energy_scale,
    formation_energy,
    make_judge,
)
from generators.oracles.phonons import PhononOracle, PhononSettings
from generators.oracles.potential import best_device

SHARD_SIZE = 32
_TAG = "judged_by"  # kept in the shards only, so that another judge never reads them as its own

_judge: PotentialJudge | None = None
_phonons: PhononOracle | None = None


def _start_judge(potential: str, settings: JudgeSettings, device: str) -> None:
    global _judge
    start_worker()
    _judge = make_judge(potential, settings, device)


def _judge_shard(batch: OrbitBatch) -> pd.DataFrame:
    """Table of one shard: crystal columns (relaxed), ``energy_per_atom`` (eV, the potential's scale), the measured
    properties, ``max_force`` (eV/Å), ``max_stress`` (GPa), ``judge_evaluations``, ``valid`` and ``reason``."""
    assert _judge is not None, "the worker was not started"
    energy, result = _judge.measure(batch)
    return _as_table(result).assign(energy_per_atom=energy.numpy())


def _start_phonons(settings: PhononSettings, device: str) -> None:
    global _phonons
    start_worker()
    _phonons = PhononOracle(make_judge("chgnet", JudgeSettings(), device).potential, settings)


def _phonon_shard(batch: OrbitBatch) -> pd.DataFrame:
    """Table of one shard: crystal columns (relaxed), ``lowest_frequency`` (THz), ``dynamically_stable``, and the
    rest as in `_judge_shard`."""
    assert _phonons is not None, "the worker was not started"
    return _as_table(_phonons.evaluate(batch))


def _as_table(result: OracleResult) -> pd.DataFrame:
    assert result.relaxed is not None and result.n_evaluations is not None
    frame = to_frame(result.relaxed)
    for name, value in result.values.items():
        frame[name] = value.numpy()
    for name, residual in (("max_force", result.max_force), ("max_stress", result.max_stress)):
        if residual is not None:
            frame[name] = residual.numpy()
    frame["judge_evaluations"] = result.n_evaluations.numpy()
    frame["valid"] = result.valid.numpy()
    frame["reason"] = list(result.reason)
    return frame


def write_parquet(frame: pd.DataFrame, path: Path, small: bool = False) -> None:
    """Write under a temporary name, then rename: a file that exists is complete.

    Args:
        small: take more time to make a smaller file, for tables that are embedded.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    if small:
        frame.to_parquet(temporary, index=False, compression="zstd", compression_level=19)
    else:
        frame.to_parquet(temporary, index=False)
    temporary.replace(path)


class Workers(ABC):
    """Processes that judge shards of crystals and stay for a whole run: each loads its networks once.

    Used in a ``with`` statement; the processes start with the first crystal that is not judged yet.

    Args:
        tag: says who judges, with which energy scale.
        workers: processes of one thread each; on a GPU they share it, since neighbours and symmetry are found on
            the CPU. The result does not depend on it.
        device: ``auto`` for whatever is there.
    """

    def __init__(self, tag: str, workers: int = 2, device: str = "auto") -> None:
        self.tag = tag
        self.device = best_device(device)
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None

    @abstractmethod
    def _start(self) -> tuple[Callable[..., None], tuple[Any, ...]]:
        """Initializer of a process, and its arguments."""

    @property
    @abstractmethod
    def _task(self) -> Callable[[OrbitBatch], pd.DataFrame]:
        """What a process does with a shard."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _submit(self, batch: OrbitBatch) -> Future[pd.DataFrame]:
        if self._pool is None:
            initializer, arguments = self._start()
            self._pool = ProcessPoolExecutor(
                self.workers, worker_context(), initializer, arguments
            )  # fmt: skip
        return self._pool.submit(self._task, batch)

    def judge(
        self,
        batch: OrbitBatch,
        folder: Path,
        name: str,
        shard_size: int = SHARD_SIZE,
        progress: Callable[[int, pd.DataFrame], object] | None = None,
    ) -> pd.DataFrame:
        """Judge all crystals of ``batch``, one row each.

        Shards already in ``folder`` (``NAME-00012.parquet``) are read, not judged again.

        Args:
            progress: called with the number of crystals done since the last call, and their table.

        Raises:
            ValueError: the folder holds shards of other crystals, or of another judge.
        """
        shards = torch.arange(len(batch)).split(shard_size)
        paths = [folder / f"{name}-{i:05d}.parquet" for i in range(len(shards))]
        for path, rows in zip(paths, shards, strict=True):
            if path.exists():
                done = pd.read_parquet(path)
                _check_same(done, batch.select(rows), path, self.tag)
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
                write_parquet(frame.assign(**{_TAG: self.tag}), paths[waiting.pop(future)])
                if progress is not None:
                    progress(len(frame), frame)
                for i in islice(queue, 1):
                    waiting[self._submit(batch.select(shards[i]))] = i
        table = pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)
        return table.drop(columns=_TAG, errors="ignore")


class JudgeWorkers(Workers):
    """Relaxation and energies by a potential; see `_judge_shard` for the columns.

    Args:
        settings: what is measured and how tightly it is relaxed.
        potential: ``chgnet`` or ``sevennet``.
    """

    def __init__(
        self,
        settings: JudgeSettings | None = None,
        workers: int = 2,
        device: str = "auto",
        potential: str = "chgnet",
    ) -> None:
        super().__init__(energy_scale(potential), workers, device)
        self.settings = settings or JudgeSettings()
        self.potential = potential

    def _start(self) -> tuple[Callable[..., None], tuple[Any, ...]]:
        return _start_judge, (self.potential, self.settings, self.device)

    @property
    def _task(self) -> Callable[[OrbitBatch], pd.DataFrame]:
        return _judge_shard


class PhononWorkers(Workers):
    """Phonons by CHGNet; see `_phonon_shard` for the columns."""

    def __init__(self, settings: PhononSettings | None = None, workers: int = 2, device: str = "auto") -> None:
        super().__init__(f"phonons, {energy_scale('chgnet')}", workers, device)
        self.settings = settings or PhononSettings()

    def _start(self) -> tuple[Callable[..., None], tuple[Any, ...]]:
        return _start_phonons, (self.settings, self.device)

    @property
    def _task(self) -> Callable[[OrbitBatch], pd.DataFrame]:
        return _phonon_shard


def _check_same(done: pd.DataFrame, batch: OrbitBatch, path: Path, tag: str) -> None:
    if _TAG in done.columns and set(done[_TAG]) != {tag}:
        raise ValueError(f"{path}: was judged by another judge than {tag!r}, choose another run folder")
    expected = [list(c.atomic_numbers) for c in batch.to_crystals()]
    found = [list(z) for z in done["atomic_numbers"]]
    if expected != found:
        raise ValueError(f"{path}: holds results for other crystals, choose another run folder or remove this one")


def judged_batch(frame: pd.DataFrame) -> OrbitBatch:
    """The relaxed crystals of a table of `Workers.judge`."""
    return from_frame(frame)


def judged_formation_energies(frame: pd.DataFrame, relaxed: OrbitBatch | None = None) -> NDArray[np.float64]:
    """[N] eV/atom of a table of CHGNet's `JudgeWorkers`; NaN where an element has no reference. ``relaxed``: its
    crystals, where they have been read already."""
    energy = torch.from_numpy(frame["energy_per_atom"].to_numpy(dtype=np.float64, copy=True))
    batch = judged_batch(frame) if relaxed is None else relaxed
    return formation_energy(batch, energy, elemental_references(SCALE), SCALE).numpy()
