"""A model of whole crystals learns from its own draws, in rounds: what sharpening and distillation have in common."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.orbit_batch import OrbitBatch
from data.respelling import respell
from data.workers import threads, worker_context
from generators.conditioning import condition_features
from generators.crystals.datamodule import CrystalDataModule, CrystalRows, SizedBatches, trimmed
from generators.crystals.draws import CrystalDraws
from generators.crystals.expert_iteration import start_drawing
from generators.crystals.kept_rounds import KeptRounds
from generators.crystals.module import TRAINED, CrystalDiffusion
from generators.crystals.sharpening_draws import draw_shard
from generators.judging import write_parquet
from generators.manifest import claim_folder
from generators.oracles.chgnet_potential import SCALE
from generators.oracles.hull_tables import KNOWN, WORDS, read_hull
from generators.precision import fast_bfloat16
from generators.sampling.crystal_geometry import CrystalSamplerSettings
from generators.schedule import move_average
from generators.screening.crystal_funnel import KnownCrystals
from generators.screening.known_formulas import known_formulas

MAY_DIFFER = ("learning.workers", "draws.batch_size")
WARMUP = 50
"""Steps in which the learning rate rises."""
LAST_RATE = 0.1
"""The learning rate falls along a cosine to this share of itself."""


@dataclass(frozen=True)
class LearningSettings:
    """How much is drawn and how it is learnt.

    Attributes:
        rounds: of drawing and learning.
        draws: crystals drawn in a round.
        passes: over what is learnt of them.
        batch_size: of these in a step.
        anchor: weight of the usual loss on training data; a third as many crystals in a step.
        learning_rate: after `WARMUP` steps; it follows a cosine over all rounds.
        ema_decay: of the averaged weights, which draw.
        shard_size: crystals of one job.
        workers: processes that draw, and threads that learn.
        seed: of all.
    """

    rounds: int = 1
    draws: int = 20_000
    passes: int = 2
    batch_size: int = 192
    anchor: float = 0.1
    learning_rate: float = 4e-4
    ema_decay: float = 0.98
    shard_size: int = 1500
    workers: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rounds", "draws", "passes", "batch_size", "shard_size", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        for name in ("anchor", "learning_rate"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)}: must not be negative")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay={self.ema_decay}: must lie in [0, 1)")


S = TypeVar("S", bound=LearningSettings)
Loss = Callable[[Tensor, OrbitBatch, torch.Generator], Tensor]
"""Of rows of a round's draws [B] and their crystals, single precision; a generator for what is left to chance."""


class DrawAndLearn(ABC, Generic[S]):
    """Rounds of drawing and learning; every round is written, and a killed run goes on.

    Args:
        module: the model at the start.
        data: its training data.
        draws: how it draws; model, name and seed are set for each round.
        settings: how much of everything.
        folder: where ``model`` and ``drawn`` with the number of the round are kept.
        hull: tables that energies count against, on CHGNet's scale (`generators.oracles.hull_tables.read_hull`).
        log: takes one line for each round.
        judged: tables of `generators.crystals.sharpening` that correct the surrogate.

    Raises:
        ValueError: the folder holds a run with other settings, or a table cannot be used.
    """

    def __init__(
        self,
        module: CrystalDiffusion,
        data: CrystalDataModule,
        draws: CrystalDraws,
        settings: S,
        folder: Path,
        hull: Sequence[Path] = (Path(KNOWN),),
        log: Callable[[str], object] = print,
        judged: Sequence[Path] = (),
    ) -> None:
        self.module, self.draws, self.settings, self.folder, self.log = module, draws, settings, folder, log
        self.hull_tables, self.judged = tuple(hull), tuple(judged)
        plain = {"learning": asdict(settings), "draws": asdict(draws.settings), "hull": [str(p) for p in hull]}
        tables = {f"hull {path}": path for path in hull if str(path) not in WORDS}
        tables |= {f"judged {path}": path for path in judged}
        missing = next((name for name, path in tables.items() if not path.exists()), None)
        if missing is not None:
            raise ValueError(f"{missing}: is not there")
        self.hull = read_hull(hull, SCALE)
        claim_folder(folder, plain, {"generator": draws.model, **tables}, MAY_DIFFER)
        self.base, self.share = data.parts["train"], data.share
        self.known, self.drawn = KnownCrystals(), set[str]()
        self.elements = torch.zeros(len(module.denoiser.elements), dtype=torch.bool)
        self.elements[list(draws.task.allowed_elements or module.known_elements)] = True
        self.wish = (condition_features(draws.wish, module.scales), draws.wish.given)
        self.optimizer = torch.optim.AdamW(
            module.denoiser.parameters(), lr=settings.learning_rate, weight_decay=0.0, betas=(0.9, 0.98), fused=True
        )
        self.kept = KeptRounds(module, self.optimizer, folder)

    def run(self) -> Path:
        """The file of the last model."""
        first, workers = self.kept.resume(), self.settings.workers
        for number in range(first):
            self.drawn.update(pd.read_parquet(self._drawn(number), columns=["crystal_key"])["crystal_key"])
        with threads(workers), ProcessPoolExecutor(workers, worker_context(), start_drawing) as pool:
            for number in range(first, self.settings.rounds):
                start = time.monotonic()
                if not self._drawn(number).exists():
                    write_parquet(self._draw(number, pool), self._drawn(number))
                drawn, middle = pd.read_parquet(self._drawn(number)), time.monotonic()
                told = self._round(number, drawn, kinds_of(drawn, self.known, self.drawn))
                self.drawn.update(drawn["crystal_key"])
                self.kept.keep(number + 1)
                self.log(
                    f"round {number + 1}/{self.settings.rounds}: {len(drawn):,} drawn in {middle - start:.0f} s, "
                    f"{told}, {time.monotonic() - middle:.0f} s of learning"
                )
        return self.kept.model(self.settings.rounds)

    @abstractmethod
    def _round(self, number: int, drawn: pd.DataFrame, kinds: Kinds) -> str:
        """Learn; what there is to say of it."""

    def _sampling(self) -> CrystalSamplerSettings:
        """How it draws."""
        return self.draws.settings

    def _drawn(self, number: int) -> Path:
        return self.folder / f"drawn-{number:02d}.parquet"

    def _draw(self, number: int, pool: ProcessPoolExecutor) -> pd.DataFrame:
        settings = self.settings
        draws = replace(
            self.draws, model=self.kept.model(number), settings=self._sampling(), seed=settings.seed,
            name=f"round-{number:02d}",
        )  # fmt: skip
        sizes = [min(settings.shard_size, settings.draws - i) for i in range(0, settings.draws, settings.shard_size)]
        parts = pool.map(
            draw_shard, repeat(draws), range(len(sizes)), sizes, repeat(self.judged), repeat(self.hull_tables)
        )
        return pd.concat(parts, ignore_index=True)

    def _learn(self, number: int, drawn: OrbitBatch, used: Tensor, loss: Loss) -> float:
        """The mean loss on training data of the round's steps. ``used``: rows of the draws."""
        settings, module = self.settings, self.module
        generator = torch.Generator().manual_seed(settings.seed * 100_003 + number)
        own = [batch for _ in range(settings.passes) for batch in _sized(drawn, used, settings.batch_size, generator)]
        before = max((int(state["step"]) for state in self.optimizer.state.values()), default=0)
        losses = []
        module.denoiser.train()
        for i, (rows, base) in enumerate(zip(own, self._training_data(len(own), generator), strict=True)):
            step, done = before + 1 + i, (number + i / len(own)) / settings.rounds
            rate = LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * done))
            for group in self.optimizer.param_groups:
                group["lr"] = settings.learning_rate * rate * min(step / WARMUP, 1)
            crystals = trimmed(drawn.select(rows))
            crystals = crystals.replace(coordinates=crystals.coordinates.float(), strain=crystals.strain.float())
            with torch.autocast("cpu", torch.bfloat16, enabled=fast_bfloat16()):
                own_loss = loss(rows, crystals, generator)
                usual, _ = module.losses(base, generator, module.denoiser, TRAINED)
            self.optimizer.zero_grad(set_to_none=True)
            (own_loss + settings.anchor * usual).backward()
            torch.nn.utils.clip_grad_norm_(module.denoiser.parameters(), 1.0)
            self.optimizer.step()
            move_average(module.averaged, module.denoiser, step, settings.ema_decay)
            losses.append(usual.detach())
        return float(torch.stack(losses).mean())

    def _training_data(self, n: int, generator: torch.Generator) -> Iterator[dict[str, Any]]:
        """``n`` batches, a third as large as those of draws."""
        size = max(self.settings.batch_size // 3, 1)
        rows = torch.multinomial(self.share.double(), n * size, n * size > len(self.share), generator=generator)
        batch = respell(self.base.batch.select(rows), generator)
        part = CrystalRows(batch, self.base.labels[rows], self.base.source[rows])
        batches = _sized(batch, torch.arange(len(batch)), size, generator)
        for i in range(n):
            yield part[batches[i % len(batches)].tolist()]


class Kinds(NamedTuple):
    """[N] bool each, of a table of draws.

    Attributes:
        known: the crystal is known or embedded.
        old_formula: a known compound has the formula.
        again: an earlier round drew it, or it repeats a row before it.
    """

    known: NDArray[np.bool_]
    old_formula: NDArray[np.bool_]
    again: NDArray[np.bool_]


def kinds_of(table: pd.DataFrame, known: KnownCrystals, drawn: Set[str]) -> Kinds:
    """``drawn``: crystal keys of what earlier rounds drew."""
    rows = zip(table["crystal_key"], table["space_group"], table["atomic_numbers"], strict=True)
    return Kinds(
        np.array([bool(known.reason(*row)) for row in rows], dtype=bool),
        table["formula"].isin(known_formulas()).to_numpy(),
        (table["crystal_key"].duplicated() | table["crystal_key"].isin(drawn)).to_numpy(),
    )


def _sized(batch: OrbitBatch, rows: Tensor, size: int, generator: torch.Generator) -> list[Tensor]:
    """Batches of some rows, of crystals of like size."""
    seed = int(torch.randint(2**31, (1,), generator=generator))
    sampler = SizedBatches(batch.n_orbits, rows, 12 * size, size, seed, True, 0, 1)
    return [torch.as_tensor(some) for some in sampler]
