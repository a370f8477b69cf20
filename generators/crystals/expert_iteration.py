"""A model of whole crystals learns from the best of what it draws, judged by CHGNet, again and again.

Expert iteration (Anthony, Tian & Barber, NeurIPS 2017): in each round the model draws, a surrogate chooses the
likeliest of what is new, the judge relaxes and labels them, and the model learns from all that was judged beside its
training data.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from data.dataset import CrystalDataset
from data.frames import from_frame
from data.orbit_batch import OrbitBatch
from data.respelling import respell
from data.workers import start_worker, worker_context
from generators.crystals.datamodule import CrystalDataModule, CrystalRows, SizedBatches
from generators.crystals.draws import CrystalDraws
from generators.crystals.hit_odds import LikelyHits
from generators.crystals.judging import ABOVE, CrystalJudge
from generators.crystals.kept_rounds import KeptRounds
from generators.crystals.labelling import LABELS, labelled
from generators.crystals.module import TRAINED, CrystalDiffusion
from generators.crystals.task_schema import SOURCES
from generators.datamodule import known_labels
from generators.judging import JudgeWorkers, write_parquet
from generators.manifest import claim_folder
from generators.oracles.judge import JudgeSettings
from generators.oracles.overcounted import raised
from generators.sampling.crystals import CrystalSampler
from generators.schedule import move_average
from generators.screening.crystal_funnel import KnownCrystals, screen_crystals
from generators.screening.element_shares import within_shares
from generators.wish import Interval, Wish

LOW = 0.03
"""eV/atom above the hull of the known compounds that the choice asks for."""
RECENT = 3
"""Rounds whose crystals make up half of what is learnt of own draws."""
MAY_DIFFER = ("iteration.draw_workers", "iteration.judge_workers", "iteration.device", "draws.batch_size")
_IDENTITY = ("crystal_key", "space_group", "atomic_numbers")


@dataclass(frozen=True)
class IterationSettings:
    """How much of everything.

    Attributes:
        rounds: of drawing, judging, learning.
        draws: crystals drawn in a round.
        share: of the draws that are judged, at most: fewer keep to the limits or are new.
        per_system, per_prototype: largest share of these with the same elements, or the same protostructure.
        per_element: an element occurs in at most so many times as large a share of them as among known compounds
            (`generators.screening.element_shares`).
        steps: of training in a round.
        batch_size: crystals in a step.
        own: share of them that the model drew, between 0 and 1.
        learning_rate: after 20 steps; it follows a cosine to zero at the last.
        shard_size, judge_shard: crystals of one job.
        draw_workers, judge_workers: processes; on a graphics card they share it.
        device: ``cpu`` or ``cuda``.
        seed: of all.
    """

    rounds: int = 8
    draws: int = 40_000
    share: float = 0.3
    per_system: float = 0.002
    per_prototype: float = 0.02
    per_element: float = 2.5
    steps: int = 80
    batch_size: int = 1024
    own: float = 0.4
    learning_rate: float = 4e-4
    shard_size: int = 2500
    judge_shard: int = 192
    draw_workers: int = 2
    judge_workers: int = 2
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rounds", "draws", "steps", "batch_size", "shard_size", "judge_shard"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        for name in ("share", "own"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must lie between 0 and 1")
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"device={self.device}: use cpu or cuda")


@dataclass(frozen=True, eq=False)
class _Learnt:
    batch: OrbitBatch
    labels: Tensor
    source: Tensor
    weight: Tensor


class ExpertIteration:
    """Rounds of drawing, judging and learning; every round is written, and a killed run goes on.

    Args:
        module: the model at the start.
        data: its training data.
        draws: how it draws; the file is that of the module, and is set for each round as name and seed are.
        settings: how much of everything.
        folder: where rounds are kept: ``chosen``, ``judged`` and ``model`` with the number of the round.
        log: takes one line for each round.

    Raises:
        ValueError: the folder holds a run with other settings.
    """

    def __init__(
        self,
        module: CrystalDiffusion,
        data: CrystalDataModule,
        draws: CrystalDraws,
        settings: IterationSettings,
        folder: Path,
        log: Callable[[str], object] = print,
    ) -> None:
        self.module, self.draws, self.settings, self.folder, self.log = module, draws, settings, folder, log
        plain = {"iteration": asdict(settings), "draws": asdict(draws.settings)}
        claim_folder(folder, plain, {"generator": draws.model}, MAY_DIFFER)
        part = data.parts["train"]
        self.base = _Learnt(part.batch, part.labels, part.source, data.share)
        self.names = [scale.name for scale in module.scales]
        self.own: list[_Learnt] = []
        self.known = KnownCrystals()
        module.to(settings.device)
        config = module.optimizer_config
        self.optimizer = torch.optim.AdamW(
            module.denoiser.parameters(), lr=settings.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98)
        )
        self.kept = KeptRounds(module, self.optimizer, folder)

    def run(self) -> Path:
        """The file of the last model."""
        settings = self.settings
        first = self._resume()
        with (
            ProcessPoolExecutor(settings.draw_workers, worker_context(), start_drawing) as pool,
            JudgeWorkers(JudgeSettings(), settings.judge_workers, settings.device) as judge,
        ):
            for number in range(first, settings.rounds):
                self._round(number, pool, judge)
        return self.kept.model(settings.rounds)

    def judged(self) -> list[pd.DataFrame]:
        """What was judged, round by round: crystal columns (relaxed), labels, ``crystal_key``."""
        return [pd.read_parquet(self._judged(number)) for number in range(len(self.own))]

    # -- what is kept -------------------------------------------------------------------------------------

    def _chosen(self, number: int) -> Path:
        return self.folder / f"chosen-{number:02d}.parquet"

    def _judged(self, number: int) -> Path:
        return self.folder / f"judged-{number:02d}.parquet"

    def _resume(self) -> int:
        """The first round to do; the model, the optimizer and what was learnt from are as they were then."""
        done = self.kept.resume()
        for number in range(done):
            self._take(number)
        return done

    def _take(self, number: int) -> pd.DataFrame:
        """What was judged in a round is learnt from now on, and what was chosen is not new any more."""
        judged = pd.read_parquet(self._judged(number))
        batch = from_frame(judged)
        properties = {name: torch.from_numpy(judged[name].to_numpy(dtype=np.float64, copy=True)) for name in LABELS}
        unnamed = ("",) * len(batch)
        labels = known_labels(raised(CrystalDataset(batch, properties, unnamed, unnamed)), self.names)
        source = torch.full((len(batch),), SOURCES.index("chosen"))
        self.own.append(_Learnt(batch, labels, source, torch.ones(len(batch))))
        for file in (self._chosen(number), self._judged(number)):
            self.known.add(pd.read_parquet(file, columns=["crystal_key"])["crystal_key"])
        return judged

    # -- one round ----------------------------------------------------------------------------------------

    def _round(self, number: int, pool: ProcessPoolExecutor, judge: JudgeWorkers) -> None:
        settings, told, start = self.settings, f"round {number + 1}/{self.settings.rounds}:", time.monotonic()
        if not self._chosen(number).exists():
            drawn = self._draw(number, pool)
            chosen, new = self._choose(drawn)
            if not len(chosen):
                raise ValueError(f"draws={settings.draws}: none of round {number + 1} is new, draw more or hotter")
            write_parquet(chosen, self._chosen(number))
            likely = np.exp(drawn["log_probability"]).mean()
            told += f" {len(drawn):,} drawn in {time.monotonic() - start:.0f} s, {new / len(drawn):.1%} new,"
            told += f" likely hits {likely:.1%};"
        if not self._judged(number).exists():
            start, chosen = time.monotonic(), pd.read_parquet(self._chosen(number))
            frame = judge.judge(
                _largest_first(from_frame(chosen)), self.folder / "judge", f"round-{number:02d}", settings.judge_shard
            )
            good, reasons = labelled(frame)
            unknown = [not self.known.reason(*row) for row in zip(*(good[n] for n in _IDENTITY), strict=True)]
            write_parquet(good.loc[unknown], self._judged(number))
            told += f" {len(chosen):,} judged in {time.monotonic() - start:.0f} s, left out: {reasons or 'none'};"
        above, start = self._take(number)[ABOVE], time.monotonic()
        loss = self._learn(number)
        self.kept.keep(number + 1)
        self.log(
            f"{told} at most 0.1 eV/atom above the hull {(above <= 0.1).mean():.1%}, at most 0.001 "
            f"{(above <= 1e-3).mean():.1%}; loss {loss:.2f}, {time.monotonic() - start:.0f} s of learning"
        )

    def _draw(self, number: int, pool: ProcessPoolExecutor) -> pd.DataFrame:
        settings = self.settings
        draws = replace(
            self.draws, model=self.kept.model(number), device=settings.device, seed=settings.seed,
            name=f"round-{number:02d}",
        )  # fmt: skip
        sizes = [min(settings.shard_size, settings.draws - i) for i in range(0, settings.draws, settings.shard_size)]
        parts = pool.map(_draw_shard, [draws] * len(sizes), range(len(sizes)), sizes)
        return pd.concat(parts, ignore_index=True)

    def _choose(self, drawn: pd.DataFrame) -> tuple[pd.DataFrame, int]:
        """The likeliest new ones, with few of one kind, and how many were new."""
        wanted = round(self.settings.share * len(drawn))
        screened = screen_crystals(
            [drawn], self.known, frozenset(), len(drawn), likely=lambda t: torch.tensor(t["log_probability"].to_numpy())
        )
        table = screened.chosen
        elements = [set(map(int, numbers)) for numbers in table["atomic_numbers"]]
        settings = self.settings
        kept = within_shares(
            torch.tensor(table["hit_probability"].to_numpy()), elements, settings.per_element, wanted,
            [
                ([frozenset(zs) for zs in elements], max(round(settings.per_system * wanted), 1)),
                (list(table["protostructure"]), max(round(settings.per_prototype * wanted), 1)),
            ],
        )  # fmt: skip
        return table.iloc[kept].reset_index(drop=True), screened.n_new

    # -- learning -----------------------------------------------------------------------------------------

    def _learn(self, number: int) -> float:
        """The mean loss of the round's steps."""
        settings, module = self.settings, self.module
        total = settings.steps * settings.rounds
        losses = []
        for i, batch in enumerate(self._batches(number)):
            step = number * settings.steps + i
            rate = settings.learning_rate * 0.5 * (1 + math.cos(math.pi * step / total)) * min((step + 1) / 20, 1)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
            loss, _ = module.losses(_on(batch, settings.device), generator, module.denoiser, TRAINED)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.denoiser.parameters(), 1.0)
            self.optimizer.step()
            move_average(module.averaged, module.denoiser, step, module.optimizer_config.ema_decay)
            losses.append(loss.detach())
        return float(torch.stack(losses).mean())

    def _batches(self, number: int) -> Iterator[dict[str, Any]]:
        """As many batches as a round has steps: training data, and what was judged, half of it lately."""
        settings = self.settings
        generator = torch.Generator().manual_seed(settings.seed * 100_003 + number)
        crystals = settings.steps * settings.batch_size
        old, recent = self.own[:-RECENT], self.own[-RECENT:]
        shares = [(recent, 0.5 if old else 1.0), (old, 0.5 if old else 0.0)]
        parts = [_some(self.base, round(crystals * (1 - settings.own)), generator)]
        for group, share in shares:
            parts += [_some(p, max(round(crystals * settings.own * share / len(group)), 1), generator) for p in group]
        batch = respell(OrbitBatch.concatenate([part.batch for part in parts]), generator)
        chosen = CrystalRows(batch, torch.cat([p.labels for p in parts]), torch.cat([p.source for p in parts]))
        sampler = SizedBatches(
            batch.n_orbits, torch.arange(len(batch)), 12 * settings.batch_size, settings.batch_size,
            settings.seed * 100_003 + number, True, 0, 1,
        )  # fmt: skip
        for rows in sampler.batches[: settings.steps]:
            yield chosen[rows.tolist()]


def _some(part: _Learnt, n: int, generator: torch.Generator) -> _Learnt:
    rows = torch.multinomial(part.weight.double(), n, replacement=n > len(part.weight), generator=generator)
    return _Learnt(part.batch.select(rows), part.labels[rows], part.source[rows], part.weight[rows])


def _on(batch: dict[str, Any], device: str) -> dict[str, Any]:
    return {name: value.to(device) for name, value in batch.items()}


def _largest_first(batch: OrbitBatch) -> OrbitBatch:
    """Alike in size together, and the longest jobs first."""
    return OrbitBatch.from_crystals(batch.select(torch.argsort(-batch.n_atoms, stable=True)).to_crystals())


_sampler: tuple[Path, CrystalSampler] | None = None
_likely: LikelyHits | None = None


def start_drawing() -> None:
    """Initializer of a process that draws."""
    start_worker()
    torch.set_float32_matmul_precision("high")  # TF32 on a graphics card


def _draw_shard(draws: CrystalDraws, shard: int, n: int) -> pd.DataFrame:
    """A table of draws with ``log_probability`` by the embedded surrogate."""
    global _sampler, _likely
    if _sampler is None or _sampler[0] != draws.model:
        _sampler = (draws.model, draws.sampler())
    if _likely is None:
        _likely = LikelyHits(CrystalJudge(Wish({ABOVE: Interval(None, LOW)}), hull="known"))
    table = draws.draw(_sampler[1], shard, n)
    return table.assign(log_probability=_likely.log_probability(table).numpy())
