"""A wish becomes ranked candidates: propose, screen, judge, rank, compare."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from data.dataset import CrystalDataset
from data.decoration import to_orbit_batch, with_volume_per_atom
from data.orbit_batch import OrbitBatch
from data.prototypes import Prototype
from generators.generate_settings import GenerateSettings
from generators.judging import JudgeWorkers, judged_batch, judged_formation_energies
from generators.oracles.base import OracleResult
from generators.oracles.chgnet_potential import SCALE
from generators.oracles.hull import fractions_of_batch
from generators.oracles.hull_tables import chgnet_hull
from generators.oracles.judge import JudgeSettings
from generators.oracles.surrogate import SurrogateOracle
from generators.outcome import Answer
from generators.ranking import failures, ranked
from generators.screening.atomic_volumes import additive_volume
from generators.screening.baselines import SOURCES
from generators.screening.ion_exchange import Similarity
from generators.screening.pool import Pool, StageCount
from generators.screening.proposals import Propose, propose_unique
from generators.screening.rules import distance_reasons
from generators.sources import Sources
from generators.wish import Wish

if TYPE_CHECKING:  # importing Lightning takes seconds
    from generators.module import CompositionDiffusion

log = logging.getLogger(__name__)
SURROGATE_CHUNK = 4096


@dataclass(frozen=True, eq=False)
class _Judged:
    table: pd.DataFrame
    summary: dict[str, Any]
    counts: tuple[StageCount, ...] = field(default_factory=tuple)


def expected_volume(batch: OrbitBatch, predicted: pd.DataFrame) -> Tensor:
    """[B] Å^3 per atom: the surrogate's, or the mean of the atoms' volumes where it was taught none."""
    if "volume_per_atom_surrogate" in predicted:
        return torch.from_numpy(predicted["volume_per_atom_surrogate"].to_numpy())
    return additive_volume(batch)


class Generation:
    """One run: the models, the wish and the folder."""

    def __init__(
        self,
        module: CompositionDiffusion,
        surrogate: SurrogateOracle,
        training: CrystalDataset,
        wish: Wish,
        settings: GenerateSettings,
        folder: Path,
        extra_prototypes: Sequence[Prototype] = (),
        judge: JudgeSettings | None = None,
    ) -> None:
        self.module, self.surrogate, self.training = module, surrogate, training
        self.wish, self.settings, self.folder = wish, settings, folder
        self.judge = JudgeWorkers(judge, settings.workers, settings.device)
        self.sources = Sources(module, training, wish, settings, extra_prototypes)
        self.table = self.sources.table

    # -- screening and judging --------------------------------------------------------------------------

    def screen(self, pool: Pool, n: int) -> tuple[Pool, pd.DataFrame]:
        """The ``n`` proposals most likely to hit by the surrogate, and its predictions for them.

        Proposals whose sites would overlap at the volume that is expected of them are dropped first.
        """
        start = time.process_time()
        probability, table = self.predict(pool)
        volume = expected_volume(to_orbit_batch(self.table, pool.row, pool.elements), table)
        reasons = distance_reasons(self.table, pool.row, pool.elements, volume)
        apart = torch.tensor([not reason for reason in reasons])
        pool, _ = pool.keep("distances", reasons, time.process_time() - start)
        probability, table = probability[apart], table[apart.numpy()].reset_index(drop=True)
        order = torch.argsort(probability, descending=True, stable=True)
        reasons = ["below the surrogate's choice"] * len(pool)
        for i in order[:n].tolist():
            reasons[i] = ""
        kept, _ = pool.keep("surrogate", reasons)
        chosen = [i for i, reason in enumerate(reasons) if not reason]
        return kept, table.iloc[chosen].reset_index(drop=True)

    def predict(self, pool: Pool) -> tuple[Tensor, pd.DataFrame]:
        """Hit probability [N], and a table of the surrogate's means, standard deviations and `out_of_domain` flags."""
        parts, tables = [], []
        for rows in torch.arange(len(pool)).split(SURROGATE_CHUNK):
            result: OracleResult = self.surrogate.predict(self.table, pool.row[rows], pool.elements[rows])
            parts.append(self.surrogate.log_hit_probability(result, self.wish.intervals))
            columns = {f"{k}_surrogate": v.numpy() for k, v in result.values.items()}
            columns.update({f"{k}_surrogate_std": v.numpy() for k, v in result.std.items()})
            flag = self.surrogate.out_of_domain(self.table, pool.row[rows], pool.elements[rows])
            columns["out_of_domain"] = flag.numpy()
            tables.append(pd.DataFrame(columns))
        return torch.cat(parts), pd.concat(tables, ignore_index=True)

    def judge_pool(self, pool: Pool, predicted: pd.DataFrame, name: str) -> pd.DataFrame:
        """Relax and judge every proposal; the table of `JudgeWorkers.judge` with hits and predictions."""
        batch = to_orbit_batch(self.table, pool.row, pool.elements)
        batch = with_volume_per_atom(batch, expected_volume(batch, predicted))
        hits = 0
        with tqdm(total=len(pool), unit="crystal", desc=f"judge {name}", mininterval=1.0) as bar:

            def progress(n: int, frame: pd.DataFrame) -> None:
                nonlocal hits
                hits += int(self._hits(self._with_energy(frame)).sum())
                bar.set_postfix(hits=hits)
                bar.update(n)

            frame = self.judge.judge(batch, self.folder / "judged", name, progress=progress)
        frame = self._with_energy(frame)
        frame["hit"] = self._hits(frame)
        frame["prototype"] = [self.table.names[i] for i in pool.row.tolist()]
        return pd.concat([frame, predicted.reset_index(drop=True)], axis=1)

    def _with_energy(self, frame: pd.DataFrame) -> pd.DataFrame:
        relaxed = judged_batch(frame)
        values = judged_formation_energies(frame, relaxed)
        frame = frame.assign(formation_energy_per_atom=values)
        if "e_above_hull" in self.wish.intervals:
            frame["e_above_hull"] = chgnet_hull().e_above_hull(fractions_of_batch(relaxed), values, SCALE)
        return frame

    def _hits(self, frame: pd.DataFrame) -> NDArray[np.bool_]:
        properties = {name: torch.from_numpy(frame[name].to_numpy(copy=True)) for name in self.wish.intervals}
        hits = self.wish.hits(properties).numpy()
        return np.asarray(hits & frame["valid"].to_numpy())

    # -- the whole run -----------------------------------------------------------------------------------

    def run(self) -> Answer:
        """Everything; a second call in the same folder only reads what is there."""
        start, settings = time.perf_counter(), self.settings
        n = settings.judge_calls
        with self.judge:
            main = self._source("raremat", self.sources.model(), settings.pool, screened=True)
            sources = {"raremat": main}
            if settings.baselines:
                screening = self.sources.random()
                sources["surrogate_screening"] = self._source(
                    "surrogate_screening", screening, settings.baseline_pool, screened=True
                )
                sources |= self._exchanges(n)
                balanced = self.sources.random(balanced=True)
                sources["random_charge_balanced"] = self._source("random_charge_balanced", balanced, n, screened=False)
                sources["random"] = self._source("random", self.sources.random(), n, screened=False)
        spread = {scale.name: float(scale.std) for scale in self.module.scales}
        candidates, batch = ranked(
            main.table, self.wish, spread, self.table, self.training, self.sources.compounds, chgnet_hull()
        )
        rejected = failures(main.table)
        summary: dict[str, Any] = {
            "wish": {name: [i.low, i.high] for name, i in self.wish.intervals.items()},
            "wish_text": self.wish.describe(),
            "judge": "CHGNet 0.3.0 (not DFT), relaxed within symmetry",
            "random_hit_rate_in_training_data": self._training_rate(),
            **{name: source.summary for name, source in sources.items()},
            "unique_novel": len(main.table),
            "funnel": [count.as_row() for count in main.counts],
            "seconds": round(time.perf_counter() - start, 1),
        }
        previous = self.folder / "summary.json"
        if previous.exists():  # read again, not judged again: keep the seconds that the work took
            summary["seconds"] = max(summary["seconds"], json.loads(previous.read_text())["seconds"])
        return Answer(candidates, rejected, batch, summary, {name: source.table for name, source in sources.items()})

    def _exchanges(self, n: int) -> dict[str, _Judged]:
        """Ion exchange by both similarities; what knows no parents, or no new crystal of the allowed elements, is left
        out."""
        kinds: tuple[tuple[str, Similarity], ...] = (("ion_exchange", "probability"), ("ion_exchange_group", "group"))
        found = {}
        for name, similarity in kinds:
            try:
                found[name] = self._source(name, self.sources.exchange(similarity), n, screened=False)
            except ValueError as error:
                log.warning("%s is left out: %s", name, error)
        return found

    def _training_rate(self) -> float | None:
        """Share of the training crystals (random decorations) that fulfil the wish."""
        if any(name not in self.training.properties for name in self.wish.intervals):
            return None
        return float(self.wish.hits(self.training.properties).double().mean())

    def _source(self, name: str, propose: Propose, wanted: int, screened: bool) -> _Judged:
        with tqdm(total=wanted, unit="crystal", desc=f"propose {name}", mininterval=1.0) as bar:

            def progress(kept: int, drawn: int) -> None:
                bar.set_postfix(drawn=drawn)
                bar.update(min(kept, wanted) - bar.n)

            pool = propose_unique(
                propose,
                self.table,
                self.sources.known,
                wanted,
                self.settings.seed,
                name,
                self.folder / "proposals",
                self.settings.shard_size,
                self.settings.max_shards,
                progress,
            )
        if len(pool) == 0:
            raise ValueError(f"wish: no new crystal was proposed by {name}, allow more elements or prototypes")
        if screened:
            pool, predicted = self.screen(pool, self.settings.judge_calls)
        else:
            pool, predicted = pool, self.predict(pool)[1]
        start = time.perf_counter()
        table = self.judge_pool(pool, predicted, name)
        reasons = [r if not v else "" for r, v in zip(table["reason"], table["valid"], strict=True)]
        judged, _ = pool.keep("judge", reasons, time.perf_counter() - start)
        missed = ["" if hit else "outside the wish" for hit in table["hit"][table["valid"]]]
        counts = judged.keep("wish", missed)[0].counts
        hits, calls = int(table["hit"].sum()), len(table)
        summary = {
            "judge_calls": calls,
            "hits": hits,
            "hits_per_call": hits / calls,
            "proposals": counts[0].n_in,
            "unique_novel_proposals": len(pool) if not screened else counts[1].n_in,
            "judge_evaluations": int(table["judge_evaluations"].sum()),
            "cpu_seconds_before_judge": round(sum(c.seconds for c in counts[: 3 if screened else 1]), 2),
            "distinct_elements_in_hits": len({z for zs in table["atomic_numbers"][table["hit"]] for z in zs}),
            "distinct_prototypes_in_hits": int(table["prototype"][table["hit"]].nunique()),
        }
        return _Judged(table, summary, counts)


def describe(summary: Mapping[str, Any]) -> str:
    """The comparison as text for the terminal."""
    rate = summary["random_hit_rate_in_training_data"]
    lines = [f"{'':24s}{'calls':>7s}{'hits':>7s}{'hits/call':>11s}{'x random':>10s}"]
    for name in SOURCES:
        if name not in summary:
            continue
        row = summary[name]
        ratio = f"{row['hits_per_call'] / rate:.0f}" if rate else "-"
        lines.append(f"{name:24s}{row['judge_calls']:7d}{row['hits']:7d}{row['hits_per_call']:11.3f}{ratio:>10s}")
    if rate is not None:
        lines.append(f"x random: against the share in the training data, random decorations: {rate:.4f}")
    second = summary.get("second_opinion")
    if second:
        lines.append(
            f"second opinion on the {second['judged']} best ({second['judges']}): {second['confirmed']} confirmed, "
            f"{second['refuted']} refuted, {second['unknown']} cannot be told ({second['hits_confirmed']} of "
            f"{second['hits']} hits confirmed); they differ by "
            f"{second['mean_disagreement']:.3f} eV/atom on average"
        )
    return "\n".join(lines)
