"""How likely a crystal is to be a hit: a surrogate of the judge, asked about the wish."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from data.frames import from_frame
from data.orbit_batch import OrbitBatch
from generators.crystals.gap_look import DRAWN_GAP, FIRST_WIDTH, REDRAWN_GAPS, GapLook, gap_width, log_gap_inside
from generators.crystals.hit_odds import HitOdds, predicted_name
from generators.crystals.judging import GAP, CrystalJudge
from generators.crystals.labelled import Labelled
from generators.element_features import N_STATES
from generators.oracles.crystal_surrogate import CrystalSurrogate
from generators.screening.crystal_features import crystal_features


class HitSurrogate:
    """How likely crystals are to be hits of a judge, learnt from labels and from what it has judged."""

    def __init__(self, judge: CrystalJudge, labelled: Labelled, seed: int) -> None:
        self.judge = judge
        self.properties = tuple(dict.fromkeys(map(predicted_name, judge.goal.intervals)))
        self.odds = HitOdds(judge, self.properties)
        for name in self.properties:
            if name not in labelled.dataset.properties:
                raise ValueError(
                    f"screening.rounds: no crystal has a label of {name}, give a table of them as data.path=FILE"
                )
        self.batch, self.features = labelled.dataset.batch, labelled.features
        self.labels = torch.stack([labelled.dataset.properties[name].double() for name in self.properties], 1)
        # Neighbours in the periodic table are alike; by the shares of the elements they would be as far apart as any.
        self.model = CrystalSurrogate.fit(
            self.features, self.labels, self.properties, seed, alike=slice(N_STATES, None)
        )  # fmt: skip
        self.judged = torch.zeros(0, dtype=torch.bool)
        self.hull = self.odds.hull_energy(self.batch)

    def observe(self, frame: pd.DataFrame) -> None:
        """Learn from all that was judged so far, and count it among what is known."""
        good = frame[frame["valid"]]
        if not len(good):
            return
        batch = from_frame(good)
        labels = torch.stack([torch.from_numpy(good[n].to_numpy(float, copy=True)) for n in self.properties], 1)
        features = crystal_features(batch)
        known = len(self.batch) - len(self.judged)
        rows = torch.arange(known)
        self.batch = OrbitBatch.concatenate([self.batch.select(rows), batch])
        self.labels = torch.cat([self.labels[:known], labels])
        self.features = torch.cat([self.features[:known], features])
        hull = self.odds.hull_energy(batch)
        if self.hull is not None and hull is not None:
            self.hull = torch.cat([self.hull[:known], hull])
        self.judged = torch.ones(len(batch), dtype=torch.bool)
        self.model.observe(features, labels)

    def log_probability(self, batch: OrbitBatch) -> Tensor:
        """[B] that every interval holds, the properties taken as independent normals."""
        return self.odds.log_probability(
            batch, *self.model.predict(crystal_features(batch)), self.odds.hull_energy(batch)
        )  # fmt: skip

    def look_closer(
        self, candidates: pd.DataFrame, score: Tensor, n: int, look: GapLook, judged: pd.DataFrame
    ) -> tuple[Tensor, Tensor]:
        """The judge's network, which costs no relaxation, asked about the ``n`` likeliest crystals as they were drawn.

        Its gap takes the place of the surrogate's; how far gaps move in the relaxation is learnt from what was judged.

        Returns:
            Log-probabilities [B], -inf for those not asked about, and the network's gaps [B, 1] (eV), NaN for those.
        """
        return self._closer(candidates, score, n, look.as_drawn, judged, (DRAWN_GAP,))

    def look_closest(
        self, candidates: pd.DataFrame, score: Tensor, n: int, look: GapLook, judged: pd.DataFrame, seed: int
    ) -> tuple[Tensor, Tensor]:
        """The same in several geometries for each crystal, as the model places atoms and cell; gaps [B, 1 + R]."""
        generator = torch.Generator().manual_seed(seed)
        return self._closer(
            candidates, score, n, lambda part: look.redrawn(part, generator), judged, (DRAWN_GAP, REDRAWN_GAPS)
        )  # fmt: skip

    def _closer(
        self,
        candidates: pd.DataFrame,
        score: Tensor,
        n: int,
        ask: Callable[[pd.DataFrame], Tensor],
        judged: pd.DataFrame,
        columns: tuple[str, ...],
    ) -> tuple[Tensor, Tensor]:
        rows = torch.argsort(score, descending=True, stable=True)[:n]
        rows = rows[torch.isfinite(score[rows])]
        part = candidates.iloc[rows.numpy()]
        gaps, interval = ask(part), self.judge.goal.intervals[GAP]
        width = FIRST_WIDTH
        if set(columns) <= set(judged):
            before = np.column_stack([np.stack(judged[name].to_list()) for name in columns]).astype(float)
            width = gap_width(torch.from_numpy(before), torch.tensor(judged[GAP].to_numpy(dtype=float)), interval)
        batch = from_frame(part)
        mean, std = self.model.predict(crystal_features(batch))
        closer = torch.full_like(score, -torch.inf)
        closer[rows] = self.odds.log_probability(
            batch, mean, std, self.odds.hull_energy(batch), {GAP: log_gap_inside(gaps, width, interval)}
        )
        seen = torch.full((len(score), gaps.shape[1]), torch.nan, dtype=torch.float64)
        seen[rows] = gaps
        return closer, seen

    def best(self, allowed: Tensor, n: int) -> OrbitBatch:
        """The ``n`` known or judged crystals most like a hit, of the rows ``allowed``.

        Labels stand for the means where they are known: it is the probability of a crystal *like* this one.
        """
        part, labels = self.batch.select(allowed), self.labels[allowed]
        mean, std = self.model.predict(self.features[allowed])
        mean = torch.where(torch.isfinite(labels), labels, mean)
        score = self.odds.log_probability(part, mean, std, None if self.hull is None else self.hull[allowed])
        chosen = torch.argsort(score, descending=True, stable=True)[:n]
        return part.select(chosen)
