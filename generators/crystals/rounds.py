"""Judge calls in rounds: draw widely, let a surrogate choose, judge, and learn from the answers.

The pool has three sources: the model under the wish, the model's exchange of an element in the best crystals that are
known or judged so far, and their exchange by similar elements without the model, which costs next to nothing and makes
most of it. The last two are drawn anew in every round, and what was not judged yet competes again. What was drawn,
chosen and judged is a file each, so that a run that was killed goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from data.frames import from_frame
from data.orbit_batch import OrbitBatch
from generators.conditioning import Conditions
from generators.crystals.draws import CrystalDraws, draw_shards, drawn_table, read_shards, shard_paths
from generators.crystals.gap_look import DRAWN_GAP, REDRAWN_GAPS, GapLook
from generators.crystals.hit_surrogate import HitSurrogate
from generators.crystals.judging import GAP, CrystalJudge
from generators.crystals.labelled import Labelled
from generators.judging import write_parquet
from generators.sampling.crystal_task import CrystalTask
from generators.sampling.crystals import CrystalSampler
from generators.screening.capped import capped
from generators.screening.crystal_exchange import exchange_crystals
from generators.screening.crystal_funnel import NOT_CHOSEN, PROBABILITY, KnownCrystals, Screened, screen_crystals
from generators.screening.pool import StageCount
from generators.screening.proposals import shard_seed

EXCHANGE_NOISE = 0.02
WIDER = 7
"""Hits of 180 calls for a high magnetization: in nine rounds 41 without, 49 with 5, 67 with 15 (one seed); in eighteen
74 with 7, 77 with 15 (another seed), which takes twice the time; for a band gap, which the surrogate hardly knows, 77
with 15, 88 with 3."""
LOOKED_AT = 150
"""Crystals that the judge's network is asked about before the judge is, for each of its calls."""


@dataclass(frozen=True)
class RoundSettings:
    """How judge calls are spent.

    Attributes:
        rounds: the calls are split evenly.
        exchange: share of a round's draws that exchange an element of the best crystals so far.
        similar: children of the best crystals by exchange of similar elements, in a round (`Rounds._similar`).
        seeds: so many best crystals.
        per_system: at most this share of a round has the same set of elements, if others are left.
        per_prototype: the same for the protostructure.
        redrawn: for each call, so many of the crystals that the judge's network is asked about are seen in geometries
            of the model too.
        workers: processes that draw, on a CPU.
        shard_size: crystals per file.
    """

    rounds: int = 3
    exchange: float = 0.5
    similar: int = 4000
    seeds: int = 150
    per_system: float = 0.1
    per_prototype: float = 0.2
    redrawn: int = 30
    workers: int = 2
    shard_size: int = 250

    def __post_init__(self) -> None:
        for name in ("rounds", "seeds", "workers", "shard_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        for name in ("similar", "redrawn"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: must not be negative")
        for name in ("exchange", "per_system", "per_prototype"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: must lie between 0 and 1")


def shares(total: int, parts: int) -> list[int]:
    """``total`` in whole parts that differ by 1 at most, the larger ones first.

    >>> shares(10, 3)
    [4, 3, 3]
    """
    return [total // parts + (i < total % parts) for i in range(parts)]


class Rounds:
    """One run in rounds.

    Args:
        draws: of the model, under the task and the wish.
        judge: entered.
        known: what is not new.
        prototypes: protostructures that are not new.
        labelled: reads what the surrogate learns from first; called when it is needed.
        settings: how calls are spent.
        folder: of the run.
        keep_known, geometries: of `screen_crystals`.
    """

    def __init__(
        self,
        draws: CrystalDraws,
        judge: CrystalJudge,
        known: KnownCrystals,
        prototypes: frozenset[str],
        labelled: Callable[[], Labelled],
        settings: RoundSettings,
        folder: Path,
        keep_known: bool = False,
        geometries: int | None = 1,
    ) -> None:
        self.draws, self.judge, self.known, self.prototypes = draws, judge, known, prototypes
        self.labelled, self.settings, self.folder = labelled, settings, folder
        self.keep_known, self.geometries = keep_known, geometries
        self._seeded: tuple[int, CrystalTask] | None = None
        self._observed = 0

    def run(self, n: int, calls: int) -> tuple[list[Path], Screened, pd.DataFrame]:
        """Draw ``n`` crystals and judge at most ``calls`` of them.

        Returns:
            Files of everything drawn, the funnel with what was judged as chosen, and the judged table, with
            ``round`` (from 1) and `PROBABILITY` of the surrogate beside the judge's columns.
        """
        paths: list[Path] = []
        judged = pd.DataFrame()
        rounds = self.settings.rounds
        for number, wanted in enumerate(shares(calls, rounds), 1):
            file = self.folder / "rounds" / f"chosen-{number}.parquet"
            paths += self._paths(number, n)
            if not file.exists():
                self._draw(number, n, judged)
                write_parquet(self._choose(number, paths, judged, wanted), file)
            chosen = pd.read_parquet(file)
            if not len(chosen):
                continue
            frame = self.judge.judge(chosen, self.folder / "judged", f"round-{number}")
            told = [name for name in (PROBABILITY, DRAWN_GAP, REDRAWN_GAPS) if name in chosen]
            frame = frame.assign(round=number, **{name: chosen[name].to_numpy() for name in told})
            judged = pd.concat([judged, frame], ignore_index=True)
        return paths, self._funnel(paths, judged), judged

    # -- drawing ----------------------------------------------------------------------------------------------

    def _parts(self, number: int, n: int) -> dict[str, tuple[int, int]]:
        """Name -> (crystals, crystals per file) of what round ``number`` draws."""
        settings = self.settings
        exchanged = shares(round(settings.exchange * n), settings.rounds)
        parts = {
            "model": (n - sum(exchanged) if number == 1 else 0, settings.shard_size),
            f"round-{number}-exchange": (exchanged[number - 1], settings.shard_size),
            f"round-{number}-similar": (settings.similar, max(settings.similar, 1)),
        }
        return {name: part for name, part in parts.items() if part[0]}

    def _paths(self, number: int, n: int) -> list[Path]:
        samples = self.folder / "samples"
        parts = self._parts(number, n).items()
        return [path for name, (count, size) in parts for path, _ in shard_paths(samples / name, count, size)]

    def _draw(self, number: int, n: int, judged: pd.DataFrame) -> None:
        """What the model draws under the wish needs no answers: all of it is drawn in the first round."""
        samples, settings = self.folder / "samples", self.settings
        parts = self._parts(number, n)
        with tqdm(total=sum(count for count, _ in parts.values()), unit="crystal", desc=f"draw round {number}") as bar:
            for name, (count, size) in parts.items():
                if name == "model":
                    draws = replace(self.draws, name=name)
                    draw_shards(draws, samples / name, count, size, settings.workers, bar.update)
                    continue
                for shard, (path, wanted) in enumerate(shard_paths(samples / name, count, size)):
                    if not path.exists():
                        similar = name.endswith("similar")
                        work = self._similar if similar else self._exchanged
                        write_parquet(work(name, shard, wanted, judged), path)
                    bar.update(wanted)

    def _exchanged(self, name: str, shard: int, n: int, judged: pd.DataFrame) -> pd.DataFrame:
        task = self._exchange_task(judged)
        return replace(self.draws, name=name, task=task).draw(self._sampler, shard, n)

    @cached_property
    def _sampler(self) -> CrystalSampler:
        return self.draws.sampler()

    def _exchange_task(self, judged: pd.DataFrame) -> CrystalTask:
        """Exchange of an element in the best crystals that are known or judged so far."""
        if self._seeded is None or self._seeded[0] != len(judged):
            task = replace(self.draws.task, exchange=max(self.draws.task.exchange, 1), noise=EXCHANGE_NOISE)
            surrogate = self._taught(judged)
            try:
                usable = self._sampler.usable_seeds(replace(task, seeds=surrogate.batch))
            except ValueError:
                raise ValueError(
                    "screening.exchange: no known crystal can fulfil the task, say screening.exchange=0 "
                    "screening.similar=0"
                ) from None
            self._seeded = len(judged), replace(task, seeds=surrogate.best(usable, self.settings.seeds))
        return self._seeded[1]

    def _similar(self, name: str, shard: int, n: int, judged: pd.DataFrame) -> pd.DataFrame:
        """Children that fulfil the task, of the best crystals: one element or several replaced by similar ones.

        They are the likeliest of `WIDER` times as many, unless the judge's network will look at their gaps.
        """
        start, task = time.process_time(), self.draws.task
        generator = torch.Generator().manual_seed(shard_seed(self.draws.seed, name, shard))
        seeds = self._exchange_task(judged).seeds
        assert seeds is not None
        elements = task.element_mask(self._sampler.known_elements).nonzero().squeeze(-1).tolist()
        picked = torch.randint(len(seeds), ((1 if self._looks_at_gaps else WIDER) * n,), generator=generator)
        children, rows = exchange_crystals(seeds.select(picked), generator, elements)
        identity = torch.cat([picked[rows][:, None], children.atomic_number], 1)
        identity[~task.fulfilled(children)] = -1
        _, first = np.unique(identity.numpy(), axis=0, return_index=True)
        distinct = torch.from_numpy(np.sort(first))
        children = children.select(distinct[identity[distinct, 0] >= 0])
        if len(children) > n:
            score = self._taught(judged).log_probability(children)
            children = children.select(torch.argsort(score, descending=True, stable=True)[:n])
        frame = drawn_table(children, f"{name}-{shard:05d}")
        frame["seconds"] = (time.process_time() - start) / max(len(frame), 1)
        return frame

    # -- choosing ---------------------------------------------------------------------------------------------

    @cached_property
    def surrogate(self) -> HitSurrogate:
        """Fitted when it is first needed."""
        return HitSurrogate(self.judge, self.labelled(), self.draws.seed)

    def _taught(self, judged: pd.DataFrame) -> HitSurrogate:
        if len(judged) != self._observed:
            self.surrogate.observe(judged)
            self._observed = len(judged)
        return self.surrogate

    def _screened(self, paths: list[Path]) -> Screened:
        return screen_crystals(
            read_shards(paths), self.known, self.prototypes, 10**9, self.keep_known, self.geometries
        )  # fmt: skip

    @property
    def _looks_at_gaps(self) -> bool:
        return self.judge.network is not None and GAP in self.judge.goal.intervals

    @cached_property
    def _look(self) -> GapLook:
        assert self.judge.network is not None
        sampler = self._sampler
        anything = Conditions.from_wish({}, [scale.name for scale in sampler.scales], 1)

        def redraw(batch: OrbitBatch, noise: float, generator: torch.Generator) -> OrbitBatch:
            with torch.no_grad():
                return sampler.draw_geometry(batch, anything, generator, noise, sampler.geometry.standard(batch))

        return GapLook(self.judge.network, redraw)

    def _choose(self, number: int, paths: list[Path], judged: pd.DataFrame, wanted: int) -> pd.DataFrame:
        candidates = self._screened(paths).chosen
        if len(judged) and len(candidates):
            candidates = candidates[~candidates["id"].isin(judged["id"])].reset_index(drop=True)
        if not len(candidates):
            return pd.DataFrame({PROBABILITY: []})
        surrogate = self._taught(judged)
        score, gaps = surrogate.log_probability(from_frame(candidates)), None
        if self._looks_at_gaps:
            score, gaps = surrogate.look_closer(candidates, score, LOOKED_AT * wanted, self._look, judged)
            if redrawn := self.settings.redrawn * wanted:
                seed = shard_seed(self.draws.seed, f"round-{number}-redrawn", 0)
                score, gaps = surrogate.look_closest(candidates, score, redrawn, self._look, judged, seed)
        systems = ["-".join(map(str, sorted({int(z) for z in zs}))) for zs in candidates["atomic_numbers"]]
        prototypes = candidates["protostructure"].tolist()
        shares = (systems, self.settings.per_system), (prototypes, self.settings.per_prototype)
        rows = capped(score, [(kind, max(round(share * wanted), 1)) for kind, share in shares], wanted)
        chosen = candidates.iloc[rows].reset_index(drop=True)
        chosen[PROBABILITY] = score[rows].exp().numpy()
        if gaps is not None:
            chosen[DRAWN_GAP] = gaps[rows, 0].numpy()
            if self.settings.redrawn:
                chosen[REDRAWN_GAPS] = list(gaps[rows, 1:].numpy())
        return chosen

    def _funnel(self, paths: list[Path], judged: pd.DataFrame) -> Screened:
        screened = self._screened(paths)
        chosen = screened.chosen
        if len(judged):
            order = pd.Series(np.arange(len(judged)), index=judged["id"])
            kept = chosen[chosen["id"].isin(order.index)]
            chosen = kept.iloc[np.argsort(order[kept["id"]].to_numpy())].reset_index(drop=True)
        *before, last = screened.counts
        left = last.n_in - len(chosen)
        reasons = {NOT_CHOSEN: left} if left else {}
        return replace(
            screened, chosen=chosen, counts=(*before, StageCount(last.stage, last.n_in, len(chosen), reasons))
        )
