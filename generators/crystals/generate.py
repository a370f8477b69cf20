"""A task and a wish become ranked crystals: draw, screen, judge, rank."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from data.dataset import CrystalDataset
from data.frames import from_frame
from data.prototypes import prototype_library
from generators.crystals.as_relaxed import NOT_NEW, RELAXED_KEY, as_relaxed
from generators.crystals.draws import CrystalDraws, draw_shards, read_shards, write_samples
from generators.crystals.hit_odds import LikelyHits
from generators.crystals.judging import METASTABLE, CrystalJudge
from generators.crystals.labelled import labelled_crystals
from generators.crystals.rounds import Rounds, RoundSettings
from generators.oracles.hull import fractions_of_batch
from generators.oracles.hull_tables import reference_compounds
from generators.outcome import Answer
from generators.ranking import depth
from generators.screening.charge_balance import charge_balanced
from generators.screening.crystal_funnel import PROBABILITY, KnownCrystals, Screened, screen_crystals
from generators.screening.pool import StageCount
from generators.wish import Wish

BEST_GEOMETRY = "a better geometry of this crystal was found"


@dataclass(frozen=True)
class CrystalRunSettings:
    """How a run of whole crystals goes.

    Attributes:
        n: crystals to draw, in shards of ``shard_size``.
        judge_calls: candidates that the judge relaxes; 0 for samples only.
        top: candidates kept if nothing is judged.
        keep_known: known crystals are candidates too.
        geometries: crystals of one key that go on; None for all.
        workers: processes on a CPU.
        likely: judge calls go to those that the embedded surrogate finds likeliest to be hits; else to the first.
        rounds: how judge calls are spent in rounds, with a surrogate that learns; None: all at once.
    """

    n: int = 1000
    shard_size: int = 250
    judge_calls: int = 300
    top: int = 50
    keep_known: bool = False
    geometries: int | None = 1
    workers: int = 2
    likely: bool = True
    rounds: RoundSettings | None = None


class CrystalGeneration:
    """One run: what is drawn, the wish and the folder."""

    def __init__(
        self,
        draws: CrystalDraws,
        wish: Wish,
        task_text: str,
        spread: Mapping[str, float],
        settings: CrystalRunSettings,
        folder: Path,
        judge: CrystalJudge,
        own: CrystalDataset | None = None,
    ) -> None:
        self.draws, self.wish, self.task_text, self.spread = draws, wish, task_text, spread
        self.settings, self.folder, self.own, self.judge = settings, folder, own, judge

    @cached_property
    def known(self) -> KnownCrystals:
        """What is not new."""
        return KnownCrystals(self.own)

    def run(self) -> Answer:
        """Everything; a second call in the same folder only reads what is there."""
        start = time.perf_counter()
        with self.judge:
            paths, screened, judged = self._in_rounds() if self.settings.rounds else self._at_once()
        write_samples(paths, self.folder / "samples.parquet")
        if not len(screened.chosen):
            reasons = ", ".join(f"{n} {why}" for c in screened.counts for why, n in c.reasons.items())
            raise ValueError(
                f"task: none of {screened.counts[0].n_in} drawn crystals is new and well-spaced ({reasons}), draw more"
            )
        table, rejected, counts = self._ranked(screened, judged)
        batch = from_frame(table) if len(table) else from_frame(screened.chosen).select(torch.arange(0))
        summary = self._summary(screened, judged, table, counts, time.perf_counter() - start)
        return Answer(table, rejected, batch, summary, {"raremat": judged if judged is not None else screened.chosen})

    def _at_once(self) -> tuple[list[Path], Screened, pd.DataFrame | None]:
        settings = self.settings
        with tqdm(total=settings.n, unit="crystal", desc="draw", mininterval=1.0) as bar:
            paths = draw_shards(
                self.draws, self.folder / "samples", settings.n, settings.shard_size, settings.workers, bar.update
            )
        likely = LikelyHits(self.judge) if settings.likely else None
        screened = screen_crystals(
            tqdm(read_shards(paths), total=len(paths), unit="shard", desc="screen", mininterval=1.0),
            self.known,
            known_prototypes(),
            settings.judge_calls or settings.top,
            settings.keep_known,
            settings.geometries,
            likely.log_probability if likely else None,
        )
        if not settings.judge_calls or not len(screened.chosen):
            return paths, screened, None
        judged = self.judge.judge(screened.chosen, self.folder / "judged")
        if PROBABILITY in screened.chosen:
            judged[PROBABILITY] = screened.chosen[PROBABILITY].to_numpy()
        return paths, screened, judged

    def _in_rounds(self) -> tuple[list[Path], Screened, pd.DataFrame | None]:
        settings = self.settings
        assert settings.rounds is not None
        rounds = Rounds(
            self.draws, self.judge, self.known, known_prototypes(), partial(labelled_crystals, self.own),
            settings.rounds, self.folder, settings.keep_known, settings.geometries,
        )  # fmt: skip
        return rounds.run(settings.n, settings.judge_calls)

    # -- ranking ------------------------------------------------------------------------------------------

    def _ranked(
        self, screened: Screened, judged: pd.DataFrame | None
    ) -> tuple[pd.DataFrame, pd.DataFrame, tuple[StageCount, ...]]:
        """Candidates, hits first, deepest inside the wish first, then lowest above the hull; what was rejected."""
        counts = screened.counts
        if judged is None:
            table = screened.chosen.drop(columns="seconds").reset_index(drop=True)
            return self._identified(table), _rejected(table.iloc[:0], "judge", []), counts
        valid = judged["valid"].to_numpy()
        failed = judged[~valid]
        rejected = [_rejected(failed, "judge", failed["reason"].tolist())]
        good = as_relaxed(judged[valid], self.known)
        repeats = (good[NOT_NEW] != "").to_numpy() & (not self.settings.keep_known)
        rejected.append(_rejected(good[repeats], "relaxed", good[NOT_NEW][repeats].tolist()))
        relaxed = StageCount("relaxed", len(good), int((~repeats).sum()), _counts(good[NOT_NEW][repeats]))
        good = good[~repeats]
        inside = depth(good, self.judge.measured, self.spread)
        above = good["e_above_hull"].to_numpy(dtype=float)
        good = good.iloc[np.lexsort((above, -inside, ~good["hit"].to_numpy()))]
        worse = good[RELAXED_KEY].duplicated().to_numpy()
        rejected.append(_rejected(good[worse], "geometry", [BEST_GEOMETRY] * int(worse.sum())))
        table = good[~worse].drop(columns=[NOT_NEW, RELAXED_KEY]).reset_index(drop=True)
        missed = int((~table["hit"]).sum())
        counts = (
            *counts,
            StageCount("judge", len(judged), relaxed.n_in, _counts(failed["reason"])),
            relaxed,
            StageCount("geometry", len(good), len(table), {BEST_GEOMETRY: int(worse.sum())} if worse.any() else {}),
            StageCount("wish", len(table), len(table) - missed, {"outside the wish": missed} if missed else {}),
        )
        return self._identified(table), pd.concat(rejected, ignore_index=True), counts

    def _identified(self, table: pd.DataFrame) -> pd.DataFrame:
        batch = from_frame(table) if len(table) else None
        crystals = batch.to_crystals() if batch is not None else []
        names = {p.label: p.name for p in reversed(list(prototype_library()))}
        table.insert(0, "rank", np.arange(1, len(table) + 1))
        table["prototype"] = [names.get(label, "") for label in table["protostructure"]]
        as_last_seen = "protostructure_relaxed" if "protostructure_relaxed" in table else "protostructure"
        table["new_prototype"] = ~table[as_last_seen].isin(known_prototypes())
        table["charge_balanced"] = [charge_balanced(c.atomic_numbers, c.multiplicities) for c in crystals]
        if "e_above_hull" in table and batch is not None:
            parts = self.judge.hull.decomposition(fractions_of_batch(batch))
            table["decomposes_to"] = [" + ".join(names) for names in parts]
        return table

    def _summary(
        self,
        screened: Screened,
        judged: pd.DataFrame | None,
        table: pd.DataFrame,
        counts: tuple[StageCount, ...],
        seconds: float,
    ) -> dict[str, Any]:
        summary: dict[str, Any] = {
            "wish": {name: [i.low, i.high] for name, i in self.wish.intervals.items()},
            "wish_text": self.wish.describe(),
            "task": self.task_text,
            "not_judged": self.judge.not_judged,
            "hit_means": self.judge.hit_text(),
            "hull": self.judge.hull_name,
            "judge": "CHGNet 0.3.0 (not DFT), relaxed within symmetry" if judged is not None else None,
            "samples": screened.counts[0].n_in,
            "distinct_new": screened.n_new,
            "distinct_new_with_new_prototype": screened.n_new_prototypes,
            "funnel": [count.as_row() for count in counts],
            "seconds": round(seconds, 1),
        }
        if judged is not None:
            hits, calls = int(judged["hit"].sum()), len(judged)
            above = judged["e_above_hull"].to_numpy(dtype=float)
            summary["raremat"] = {
                "judge_calls": calls,
                "hits": hits,
                "hits_per_call": hits / calls,
                "new_hits": int((table["hit"] & table["novel"]).sum()),
                "proposals": screened.counts[0].n_in,
                "metastable": int((judged["valid"] & (above <= METASTABLE)).sum()),
                "stable": int((judged["valid"] & (above <= 0)).sum()),
                "on_or_below_the_known_hull": int((judged["valid"] & (judged["e_above_known_hull"] <= 0)).sum()),
                "judge_evaluations": int(judged["judge_evaluations"].sum()),
                "distinct_prototypes_in_hits": int(table.loc[table["hit"], "protostructure"].nunique()),
            }
            if PROBABILITY in judged:
                summary["raremat"]["expected_hits"] = round(float(judged[PROBABILITY].sum()), 1)
            if self.settings.rounds is not None:
                summary["rounds"] = _by_round(judged)
        previous = self.folder / "summary.json"
        if previous.exists():  # read again, not drawn again: keep the seconds that the work took
            summary["seconds"] = max(summary["seconds"], json.loads(previous.read_text())["seconds"])
        return summary


def _by_round(judged: pd.DataFrame) -> list[dict[str, float]]:
    """Judge calls, hits, and the hits that the surrogate expected, of every round."""
    return [
        {
            "round": number, "judge_calls": len(group), "hits": int(group["hit"].sum()),
            "expected_hits": round(float(group[PROBABILITY].sum()), 1),
        }
        for number in range(1, int(judged["round"].max()) + 1)
        for group in (judged[judged["round"] == number],)
    ]  # fmt: skip


def known_prototypes() -> frozenset[str]:
    """Protostructure labels that are not new."""
    return frozenset(reference_compounds()["protostructure"]) | {p.label for p in prototype_library()}


def _counts(reasons: pd.Series) -> dict[str, int]:
    return {str(reason): int(n) for reason, n in reasons.value_counts().items()}


def _rejected(table: pd.DataFrame, stage: str, reasons: list[str]) -> pd.DataFrame:
    names = table["id"].tolist(), table["protostructure"].tolist(), table["formula"].tolist()
    columns = {"stage": [stage] * len(table), "reason": reasons}
    return pd.DataFrame(columns | dict(zip(("id", "protostructure", "formula"), names, strict=True)), dtype=object)


def describe_crystals(answer: Answer) -> str:
    """The run as text for the terminal."""
    summary = answer.summary
    lines = [f"{'':24s}{'in':>9s}{'out':>9s}"]
    for stage in summary["funnel"]:
        why = ", ".join(f"{n:,} {reason}" for reason, n in stage["reasons"].items())
        lines.append(f"{stage['stage']:24s}{stage['in']:9,d}{stage['out']:9,d}  {why}".rstrip())
    lines.append(
        f"distinct and new: {summary['distinct_new']:,}, of them {summary['distinct_new_with_new_prototype']:,} with a "
        "prototype that no embedded known compound has"
    )
    if "raremat" in summary:
        row = summary["raremat"]
        expected = f", {row['expected_hits']:.0f} expected by the surrogate" if "expected_hits" in row else ""
        lines.append(
            f"judge calls {row['judge_calls']}, hits {row['hits']} ({row['hits_per_call']:.1%}{expected}), "
            f"{row['new_hits']} of them distinct and new when relaxed: {summary['hit_means']}"
        )
        lines.append(f"above the hull: {row['metastable']} at most {METASTABLE:g}, {row['stable']} at most 0 eV/atom")
    for row in summary.get("rounds", ()):
        lines.append(
            f"round {row['round']}: judge calls {row['judge_calls']}, hits {row['hits']}, "
            f"expected by the surrogate {row['expected_hits']:.1f}"
        )
    if summary["not_judged"]:
        lines.append(f"not judged, only asked of the model: {', '.join(summary['not_judged'])}")
    return "\n".join(lines)
