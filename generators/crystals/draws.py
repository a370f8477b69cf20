"""Whole crystals drawn in shards: several processes, nothing drawn twice, memory that does not grow with the number."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import torch

from data.cells import decode
from data.contact import covalent_radii, shortest_ratio
from data.dataset import CrystalDataset
from data.exchanges import load_draws, load_exchanges, load_predicted
from data.frames import to_frame
from data.orbit_batch import OrbitBatch
from data.protostructure import crystal_key, crystal_of_key, protostructure_label
from data.workers import start_worker, threads, worker_context
from generators.conditioning import Conditions
from generators.crystals.model import load_crystal_model
from generators.judging import write_parquet
from generators.oracles.hull_tables import judged_compounds, reference_compounds
from generators.oracles.potential import best_device
from generators.sampling.crystal_geometry import CrystalSamplerSettings
from generators.sampling.crystal_task import CrystalTask
from generators.sampling.crystals import CrystalSampler
from generators.sampling.templates import Templates, anonymous_formula
from generators.screening.proposals import shard_seed

NAME = "crystals"
_ATTEMPTS = 5
GUESSED = 0.1
"""eV/atom. Without it predicted compounds vote down prototypes that are known: of 100 unknown crystals 52 were met in
one try from the composition, with it 55 (mean of four seeds)."""


@lru_cache(maxsize=2)
def embedded_templates(formula: str | None = None) -> Templates:
    """The embedded hypothetical crystals as templates; the known compounds of an anonymous formula as voters."""
    parts = calculated_crystals()
    if formula is None:
        return templates_of(parts)
    known = reference_compounds()
    known = known[known["protostructure"].str.split("_").str[0] == formula]
    if not len(known):
        return templates_of(parts)
    voters = known_voters(known)
    return templates_of([*parts, voters], len(voters))


def calculated_crystals() -> list[CrystalDataset]:
    """The embedded crystals with geometry. Prototypes of predicted compounds are guesses: as templates they
    lie `GUESSED` higher above the hull than calculated."""
    predicted, draws = load_predicted(), load_draws()
    above = predicted.properties["e_above_hull"].clamp(min=0) + GUESSED
    predicted = replace(predicted, properties={**predicted.properties, "e_above_hull": above})
    return [load_exchanges(), predicted, *([draws] if draws is not None else [])]


def templates_of(parts: Sequence[CrystalDataset], n_voters: int = 0) -> Templates:
    """Templates of data sets whose prototypes are protostructure labels; the last ``n_voters`` have no geometry."""
    return Templates(
        OrbitBatch.concatenate([part.batch for part in parts]),
        torch.cat([part.properties["e_above_hull"] for part in parts]),
        [label for part in parts for label in part.prototype],
        n_voters,
    )


def known_voters(compounds: pd.DataFrame) -> CrystalDataset:
    """Sites and elements of known compounds (`reference_compounds`), with CHGNet's energies above the embedded hull."""
    compounds = judged_compounds(compounds.drop_duplicates("crystal_key"))
    return CrystalDataset(
        OrbitBatch.from_crystals([crystal_of_key(key) for key in compounds["crystal_key"]]),
        {"e_above_hull": torch.from_numpy(compounds["e_above_hull"].to_numpy(copy=True))},
        tuple(compounds["protostructure"]),
        tuple(compounds["id"]),
    )


@dataclass(frozen=True, eq=False)
class CrystalDraws:
    """What a process needs to draw any shard of a run; the shards do not depend on who draws them.

    Attributes:
        model: file of the model.
        settings: of the sampler.
        task: what is given.
        wish: one row.
        seed: of the run.
        device: ``cpu``, ``cuda`` or ``mps``.
        templates: geometries start from embedded crystals of the same protostructure.
        name: of these draws: part of the ids and of the shards' seeds.
    """

    model: Path
    settings: CrystalSamplerSettings
    task: CrystalTask
    wish: Conditions
    seed: int
    device: str = "cpu"
    templates: bool = True
    name: str = NAME

    def sampler(self) -> CrystalSampler:
        """With its own copy of the network."""
        needed = self.templates and (self.task.seeds is None or self.task.noise == 1)
        formula = anonymous_formula(self.task.composition) if self.task.composition else None
        templates = embedded_templates(formula) if needed else None
        return load_crystal_model(self.model).sampler(self.settings, templates, self.device)

    def draw(self, sampler: CrystalSampler, shard: int, n: int) -> pd.DataFrame:
        """Table of ``n`` crystals: ``id``, the columns of `data.frames`, what identifies them, seconds spent."""
        start = time.process_time()
        generator = torch.Generator().manual_seed(shard_seed(self.seed, self.name, shard))
        parts: list[OrbitBatch] = []
        missing = n
        for _ in range(_ATTEMPTS):
            parts.append(sampler.draw(self.task, self.wish, missing, generator))
            missing -= len(parts[-1])
            if not missing:
                break
        frame = drawn_table(OrbitBatch.concatenate(parts), f"{self.name}-{shard:05d}")
        frame["seconds"] = (time.process_time() - start) / len(frame)
        return frame


def drawn_table(batch: OrbitBatch, name: str) -> pd.DataFrame:
    """Table of crystals that were drawn: ``id`` (``name`` and a number), the columns of `data.frames`, what
    identifies them."""
    frame = to_frame(batch)
    crystals = batch.to_crystals()
    frame.insert(0, "id", [f"{name}-{i:05d}" for i in range(len(frame))])
    frame["formula"] = [c.reduced_formula for c in crystals]
    frame["protostructure"] = [protostructure_label(c) for c in crystals]
    frame["crystal_key"] = [crystal_key(c) for c in crystals]
    frame["n_atoms"] = batch.n_atoms.numpy()
    frame["distance_ratio"] = shortest_ratio(decode(batch), covalent_radii()).numpy()
    return frame


_draws: CrystalDraws | None = None
_sampler: CrystalSampler | None = None


def _start(draws: CrystalDraws) -> None:
    global _draws, _sampler
    start_worker()
    _draws, _sampler = draws, draws.sampler()


def _shard(shard: int, n: int) -> pd.DataFrame:
    assert _draws is not None and _sampler is not None, "the worker was not started"
    return _draws.draw(_sampler, shard, n)


def shard_paths(folder: Path, n: int, size: int) -> list[tuple[Path, int]]:
    """File and number of crystals of every shard of ``n`` crystals."""
    return [(folder / f"{NAME}-{i:05d}.parquet", min(size, n - i * size)) for i in range(-(-n // size))]


def draw_shards(
    draws: CrystalDraws,
    folder: Path,
    n: int,
    size: int,
    workers: int,
    progress: Callable[[int], object] | None = None,
) -> list[Path]:
    """Draw what is missing of ``n`` crystals; the files of all shards, in order.

    Each is written when it is drawn; a run that was killed reads what is there and goes on.

    Args:
        size: crystals per shard.
        workers: processes of one thread each; one shard, or a GPU, takes this one alone.
        progress: called with the number of crystals done since the last call.

    Raises:
        ValueError: the sampler found no crystal that fulfils the task.
    """
    shards = shard_paths(folder, n, size)
    missing = [i for i, (path, _) in enumerate(shards) if not path.exists()]
    if progress is not None:
        progress(sum(count for i, (_, count) in enumerate(shards) if i not in set(missing)))
    workers = min(workers if draws.device == "cpu" else 1, len(missing))
    todo = [(i, shards[i][1]) for i in missing]
    for i, table in _drawn_by_processes(draws, todo, workers) if workers > 1 else _drawn_here(draws, todo):
        write_parquet(table, shards[i][0])
        if progress is not None:
            progress(len(table))
    return [path for path, _ in shards]


def _drawn_here(draws: CrystalDraws, shards: list[tuple[int, int]]) -> Iterator[tuple[int, pd.DataFrame]]:
    """Number and table of each shard (number, crystals); in this process, as another takes seconds to begin."""
    if shards:
        with threads(1):
            sampler = draws.sampler()
            for shard, n in shards:
                yield shard, draws.draw(sampler, shard, n)


def _drawn_by_processes(
    draws: CrystalDraws, shards: list[tuple[int, int]], workers: int
) -> Iterator[tuple[int, pd.DataFrame]]:
    """As `_drawn_here`, in processes of their own, in the order in which they are done."""
    with ProcessPoolExecutor(workers, worker_context(), _start, (draws,)) as pool:
        queue = iter(shards)
        waiting: dict[Future[pd.DataFrame], int] = {}

        def submit(count: int) -> None:
            for shard, n in islice(queue, count):
                waiting[pool.submit(_shard, shard, n)] = shard

        submit(2 * workers)
        try:
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    yield waiting.pop(future), future.result()
                    submit(1)
        finally:
            pool.shutdown(cancel_futures=True)


def read_shards(paths: list[Path]) -> Iterator[pd.DataFrame]:
    """Tables of the shards, one in memory at a time."""
    for path in paths:
        yield pd.read_parquet(path)


def write_samples(paths: list[Path], target: Path) -> None:
    """One table of all shards (``raremat-evaluate`` reads it), row group by row group; without the seconds spent."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    names = [name for name in pq.read_schema(paths[0]).names if name != "seconds"]
    first = pq.read_table(paths[0], columns=names)
    with pq.ParquetWriter(temporary, first.schema) as writer:
        for path in paths:
            writer.write_table(pq.read_table(path, columns=names).cast(first.schema))
    temporary.replace(target)


def drawing_device(device: str) -> str:
    """``auto`` for whatever is there."""
    return str(best_device(device))
