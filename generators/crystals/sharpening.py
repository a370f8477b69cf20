"""A model of whole crystals learns to draw without guidance and without a choice what it draws best with them.

Expert iteration (Anthony, Tian & Barber, NeurIPS 2017) with few judge calls: in each round the model draws under the
wish to be stable, the embedded surrogate chooses the likeliest new part within limits on what is common, and the
model learns these, and to draw less often what is least likely or is known, beside its training data. What an earlier
round drew is not chosen again, and not unlearnt either: much of it is what the model shall draw. Prototypes and
elements alone are learnt, so that draws need no geometry but that of their templates, and a round has many. A few of
what is chosen are judged, and correct the surrogate: a model that is paid by it would else find where it errs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.frames import from_frame
from data.orbit_batch import OrbitBatch
from data.respelling import respell
from data.workers import threads, worker_context
from generators.conditioning import condition_features
from generators.crystals.datamodule import CrystalDataModule, CrystalRows, SizedBatches, trimmed
from generators.crystals.draws import CrystalDraws
from generators.crystals.expert_iteration import start_drawing
from generators.crystals.judging import ABOVE
from generators.crystals.kept_rounds import KeptRounds
from generators.crystals.likelihood import negative_log_likelihood
from generators.crystals.module import TRAINED, CrystalDiffusion
from generators.crystals.sharpening_draws import BALANCED, DISTANCE, FREE, LEVELS, NEAR, draw_shard
from generators.judging import JudgeWorkers, judged_formation_energies, write_parquet
from generators.manifest import claim_folder
from generators.oracles.chgnet_potential import SCALE
from generators.oracles.hull import fractions_of_batch
from generators.oracles.hull_tables import ENERGY, FAR_BELOW, KNOWN, WORDS, read_hull
from generators.precision import fast_bfloat16
from generators.schedule import move_average
from generators.screening.crystal_funnel import KnownCrystals
from generators.screening.element_shares import within_shares
from generators.screening.known_formulas import known_formulas

LANTHANIDES = frozenset(range(57, 72))
"""Atomic numbers."""
ANIONS = frozenset((7, 8, 9, 16, 17, 34, 35, 53))
"""Atomic numbers of N, O, F, S, Cl, Se, Br, I."""
PAY = np.array([0.25, 0.25, 0.5])
"""Weights of these in the score. A model that is paid for lying near the hull alone ends at soft alloys, of which
everything does and hardly anything is on it (docs/crystal-trials.md)."""
FAR_TEMPLATE = 0.4
"""Distance of elements at which a score falls to a half. Of a round's choice those nearer than this move by 0.05 Å
(median) when they relax, those farther than three times as much by 0.4 Å; what is nearer is no less likely to be stable
(docs/crystal-trials.md)."""
MANY_FREE = 15.0
"""Free coordinates at which a score falls to a half: of crystals with at most three four in five keep their structure
when they relax, of those with more than 15 one in two (docs/crystal-trials.md)."""
NO_SYMMETRY = 0.5
"""Factor of the score in space group 1."""
LEAST = 0.02
"""Score below which nothing is chosen."""
MAY_DIFFER = ("sharpening.workers", "draws.batch_size")
BOUND_SCALE = 10.0
"""nats by which evidence bounds of what is chosen are divided, beside the loss on training data."""
JUDGE_SHARD = 32
"""Crystals of one job of the judge."""
WARMUP = 50
"""Steps in which the learning rate rises."""
LAST_RATE = 0.1
"""The learning rate falls along a cosine to this share of itself."""


@dataclass(frozen=True)
class SharpeningSettings:
    """How much of everything.

    Attributes:
        rounds: of drawing and learning.
        draws: crystals drawn in a round.
        share: of the draws that are learnt, at most: fewer keep to the limits or are new.
        per_system, per_prototype, per_group: largest share of these with the same elements, the same protostructure, or
            the same space group.
        per_element: an element occurs in at most so many times as large a share of them as among known compounds
            (`generators.screening.element_shares`).
        lanthanides: largest share of these that hold any (of the known compounds 37 %). They are alike: where one is
            stable, all are, and each keeps to its own share.
        anion_free: largest share of these without any of `ANIONS`. Of those that hold one fewer come out near the hull,
            and without a limit they are hardly drawn any more (docs/crystal-trials.md).
        no_template: distance of elements that counts where no embedded crystal has the protostructure, and at most.
        judged: of these, at random, are relaxed by CHGNet before the next round draws; 0 for none.
        passes: over these.
        known: weight of what is known or a repetition in a round, beside 1 of what is chosen; negative: it shall be
            drawn less often. A formula that a known compound has is known.
        unlikely: weight of the others with the lowest score.
        unlikely_share: of the draws that are these.
        unlearnt: largest sum of either of these weights beside that of what is chosen; of what is known, in each space
            group. A model that unlearns more than it learns ends where nothing was seen.
        batch_size: of both in a step.
        anchor: weight of the usual loss on training data; a third as many crystals in a step.
        learning_rate: after `WARMUP` steps; it follows a cosine.
        ema_decay: of the averaged weights, which draw.
        shard_size: crystals of one job.
        workers: processes that draw, and threads that learn.
        seed: of all.
    """

    rounds: int = 6
    draws: int = 20_000
    share: float = 0.25
    per_system: float = 0.002
    per_prototype: float = 0.02
    per_group: float = 0.1
    per_element: float = 2.0
    lanthanides: float = 0.35
    anion_free: float = 0.75
    no_template: float = 1.0
    judged: int = 300
    passes: int = 3
    known: float = -0.75
    unlikely: float = -0.5
    unlikely_share: float = 0.125
    unlearnt: float = 0.4
    batch_size: int = 192
    anchor: float = 0.5
    learning_rate: float = 4e-4
    ema_decay: float = 0.98
    shard_size: int = 1500
    workers: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rounds", "draws", "passes", "batch_size", "shard_size", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        for name in ("judged", "anchor", "learning_rate", "unlearnt"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)}: must not be negative")
        if not 0 < self.share < 1:
            raise ValueError(f"share={self.share}: must lie between 0 and 1")
        if not 0 <= self.unlikely_share <= 1 - self.share:
            raise ValueError(f"unlikely_share={self.unlikely_share}: must lie in [0, 1 - share]")
        for name in ("lanthanides", "anion_free"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: must lie in (0, 1]")
        for name in ("known", "unlikely"):
            if not -1 < getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)}: must lie in (-1, 0]")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay={self.ema_decay}: must lie in [0, 1)")


class Sharpening:
    """Rounds of drawing and learning; every round is written, and a killed run goes on.

    Args:
        module: the model at the start.
        data: its training data.
        draws: how it draws; model, name and seed are set for each round.
        settings: how much of everything.
        folder: where ``model``, ``drawn`` and ``judged`` with the number of the round are kept.
        hull: tables that energies count against, on CHGNet's scale (`generators.oracles.hull_tables.read_hull`).
        log: takes one line for each round.

    Raises:
        ValueError: the folder holds a run with other settings, or a table cannot be used.
    """

    def __init__(
        self,
        module: CrystalDiffusion,
        data: CrystalDataModule,
        draws: CrystalDraws,
        settings: SharpeningSettings,
        folder: Path,
        hull: Sequence[Path] = (Path(KNOWN),),
        log: Callable[[str], object] = print,
    ) -> None:
        self.hull_tables, self.hull = tuple(hull), read_hull(hull, SCALE)
        self.module, self.draws, self.settings, self.folder, self.log = module, draws, settings, folder, log
        plain = {"sharpening": asdict(settings), "draws": asdict(draws.settings), "hull": [str(p) for p in hull]}
        tables = {f"hull {path}": path for path in hull if str(path) not in WORDS}
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
        first = self._resume()
        with (
            threads(self.settings.workers),
            ProcessPoolExecutor(self.settings.workers, worker_context(), start_drawing) as pool,
            JudgeWorkers(workers=self.settings.workers, device="cpu") as judge,
        ):
            for number in range(first, self.settings.rounds):
                self._round(number, pool, judge)
        return self.kept.model(self.settings.rounds)

    # -- what is kept -------------------------------------------------------------------------------------

    def _drawn(self, number: int) -> Path:
        return self.folder / f"drawn-{number:02d}.parquet"

    def _judged(self, number: int) -> Path:
        return self.folder / f"judged-{number:02d}.parquet"

    def _resume(self) -> int:
        """The first round to do; the model and the optimizer are as they were then."""
        done = self.kept.resume()
        for number in range(done):
            self.drawn.update(pd.read_parquet(self._drawn(number), columns=["crystal_key"])["crystal_key"])
        return done

    # -- one round ----------------------------------------------------------------------------------------

    def _round(self, number: int, pool: ProcessPoolExecutor, judge: JudgeWorkers) -> None:
        settings, start = self.settings, time.monotonic()
        if not self._drawn(number).exists():
            write_parquet(self._draw(number, pool), self._drawn(number))
        drawn, middle = pd.read_parquet(self._drawn(number)), time.monotonic()
        new, groups = _new(drawn, self.known), drawn["space_group"].to_numpy(np.int64)
        first = new & ~drawn["crystal_key"].isin(self.drawn).to_numpy()
        score = self._score(drawn, first)
        chosen = self._choose(drawn, score)
        if not chosen:
            raise ValueError(f"draws={settings.draws}: nothing of round {number + 1} is new and likely, draw more")
        told = self._confirm(number, drawn.iloc[chosen], judge)
        self.drawn.update(drawn["crystal_key"])
        loss = self._learn(number, from_frame(drawn), self._weights(groups, ~new, first, score, chosen))
        self.kept.keep(number + 1)
        near, on, _ = (float((drawn[name] * new).mean()) for name in LEVELS)
        self.log(
            f"round {number + 1}/{settings.rounds}: {len(drawn):,} drawn in {middle - start:.0f} s, "
            f"{new.mean():.1%} new, near the hull and new {near:.1%}, on it and new {on:.1%}; "
            f"{len(chosen):,} chosen, {drawn[NEAR].iloc[chosen].mean():.1%} near the hull; "
            f"{told}loss on training data {loss:.2f}, {time.monotonic() - middle:.0f} s of learning"
        )

    def _draw(self, number: int, pool: ProcessPoolExecutor) -> pd.DataFrame:
        settings = self.settings
        draws = replace(self.draws, model=self.kept.model(number), seed=settings.seed, name=f"round-{number:02d}")
        sizes = [min(settings.shard_size, settings.draws - i) for i in range(0, settings.draws, settings.shard_size)]
        judged = tuple(path for path in map(self._judged, range(number)) if path.exists())
        parts = pool.map(draw_shard, repeat(draws), range(len(sizes)), sizes, repeat(judged), repeat(self.hull_tables))
        return pd.concat(parts, ignore_index=True)

    def _confirm(self, number: int, chosen: pd.DataFrame, judge: JudgeWorkers) -> str:
        """Judge some of what was chosen, for the next rounds' surrogate; what came of them, in words."""
        if not self.settings.judged:
            return ""
        rows = np.random.default_rng([self.settings.seed, number]).permutation(len(chosen))[: self.settings.judged]
        some = chosen.iloc[np.sort(rows)]
        if not self._judged(number).exists():
            batch = from_frame(some)
            frame = judge.judge(batch, self.folder / "judge", f"round-{number:02d}", JUDGE_SHARD)
            values = judged_formation_energies(frame)
            above = self.hull.e_above_hull(fractions_of_batch(batch), values, SCALE)
            usable = frame["valid"].to_numpy(bool) & (above >= FAR_BELOW)
            # As they were drawn, not as they relaxed: so the surrogate sees those that it is asked about.
            write_parquet(some.assign(**{ENERGY: values, ABOVE: above})[usable], self._judged(number))
        above = pd.read_parquet(self._judged(number), columns=[ABOVE])[ABOVE].to_numpy(np.float64)
        found = ", ".join(f"{(above <= level).sum() / len(some):.1%}" for level in LEVELS.values())
        expected = ", ".join(f"{some[name].mean():.1%}" for name in LEVELS)
        levels = ", ".join(f"{level:g}" for level in LEVELS.values())
        return f"of {len(some)} judged {found} at most {levels} ({expected} expected); "

    def _score(self, drawn: pd.DataFrame, new: NDArray[np.bool_]) -> NDArray[np.float64]:
        """[N]: how likely it is stable, more near a template and with few free coordinates; 0 where it is not new or
        neither neutral nor an alloy."""
        score = drawn[list(LEVELS)].to_numpy(np.float64) @ PAY * new * drawn[BALANCED].to_numpy(bool)
        score /= 1 + (drawn[DISTANCE].clip(upper=self.settings.no_template).to_numpy(np.float64) / FAR_TEMPLATE) ** 2
        score /= 1 + (drawn[FREE].to_numpy(np.float64) / MANY_FREE) ** 2
        return score * np.where(drawn["space_group"] == 1, NO_SYMMETRY, 1.0)

    def _choose(self, drawn: pd.DataFrame, score: NDArray[np.float64]) -> list[int]:
        """Rows: those with the highest score, few of one kind."""
        settings = self.settings
        wanted = max(round(settings.share * len(drawn)), 1)
        labels = list(drawn["protostructure"])
        elements = [frozenset(map(int, numbers)) for numbers in drawn["atomic_numbers"]]
        lanthanides = ["lanthanide" if LANTHANIDES & some else row for row, some in enumerate(elements)]
        anion_free = [row if ANIONS & some else "anion-free" for row, some in enumerate(elements)]
        kept = within_shares(
            torch.from_numpy(score), elements, settings.per_element, wanted,
            [
                (elements, max(round(settings.per_system * wanted), 1)),
                (labels, max(round(settings.per_prototype * wanted), 1)),
                (list(drawn["space_group"]), max(round(settings.per_group * wanted), 1)),
                (lanthanides, max(round(settings.lanthanides * wanted), 1)),
                (anion_free, max(round(settings.anion_free * wanted), 1)),
            ],
        )  # fmt: skip
        return [row for row in kept if score[row] > LEAST]

    def _weights(
        self,
        groups: NDArray[np.int64],
        known: NDArray[np.bool_],
        first: NDArray[np.bool_],
        score: NDArray[np.float64],
        chosen: list[int],
    ) -> NDArray[np.float64]:
        """[N]: how much each shall be drawn more often, or less; ``groups`` [N]: space groups; ``first`` [N]: neither
        known nor drawn in an earlier round."""
        settings, weight = self.settings, np.zeros(len(score))
        rows = np.flatnonzero(first)
        least = rows[np.argsort(score[rows], kind="stable")][: round(settings.unlikely_share * len(score))]
        weight[least] = max(settings.unlikely, -settings.unlearnt * len(chosen) / max(len(least), 1))
        # Where a space group is mostly known, unlearning all of that would unlearn the group.
        learnt = np.bincount(groups[chosen], minlength=groups.max() + 1)
        unlearnt = np.bincount(groups[known], minlength=groups.max() + 1)
        each = np.maximum(settings.known, -settings.unlearnt * learnt / np.maximum(unlearnt, 1))
        weight[known] = each[groups[known]]
        weight[chosen] = 1.0
        return weight

    # -- learning -----------------------------------------------------------------------------------------

    def _learn(self, number: int, drawn: OrbitBatch, weight: NDArray[np.float64]) -> float:
        """The mean loss on training data of the round's steps. ``weight``: [N] of the draws; 0 is left out."""
        settings, module = self.settings, self.module
        generator = torch.Generator().manual_seed(settings.seed * 100_003 + number)
        weights = torch.from_numpy(weight).float()
        rate = LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * number / settings.rounds))
        used = weights.nonzero().squeeze(-1)
        own = [batch for _ in range(settings.passes) for batch in _sized(drawn, used, settings.batch_size, generator)]
        learnt = float((weights[used] > 0).double().mean())
        before = max((int(state["step"]) for state in self.optimizer.state.values()), default=0)
        losses = []
        module.denoiser.train()
        for step, (rows, base) in enumerate(
            zip(own, self._training_data(len(own), generator), strict=True), before + 1
        ):
            for group in self.optimizer.param_groups:
                group["lr"] = settings.learning_rate * rate * min(step / WARMUP, 1)
            crystals = trimmed(drawn.select(rows))
            crystals = crystals.replace(coordinates=crystals.coordinates.float(), strain=crystals.strain.float())
            with torch.autocast("cpu", torch.bfloat16, enabled=fast_bfloat16()):
                bound = negative_log_likelihood(
                    module.denoiser, module.strain_scale, crystals, self.wish, self.draws.settings.source,
                    self.elements, generator,
                )  # fmt: skip
                usual, _ = module.losses(base, generator, module.denoiser, TRAINED)
            loss = (weights[rows] * bound).mean() / (learnt * BOUND_SCALE) + settings.anchor * usual
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
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


def _sized(batch: OrbitBatch, rows: Tensor, size: int, generator: torch.Generator) -> list[Tensor]:
    """Batches of some rows, of crystals of like size."""
    seed = int(torch.randint(2**31, (1,), generator=generator))
    sampler = SizedBatches(batch.n_orbits, rows, 12 * size, size, seed, True, 0, 1)
    return [torch.as_tensor(some) for some in sampler]


def _new(table: pd.DataFrame, known: KnownCrystals) -> NDArray[np.bool_]:
    """[N] neither known nor a repetition of a row before it, of a formula that no known compound has."""
    fresh = ~(table["crystal_key"].duplicated() | table["formula"].isin(known_formulas())).to_numpy()
    rows = zip(table["crystal_key"], table["space_group"], table["atomic_numbers"], strict=True)
    return np.array([some and not known.reason(*row) for some, row in zip(fresh, rows, strict=True)], dtype=bool)
