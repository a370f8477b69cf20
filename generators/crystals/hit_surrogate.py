"""How likely a crystal is to be a hit: a surrogate of the judge, asked about the wish."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from data.frames import from_frame
from data.orbit_batch import OrbitBatch
from generators.crystals.judging import ABOVE, GAP, CrystalJudge
from generators.crystals.labelled import Labelled
from generators.element_features import N_STATES
from generators.oracles.crystal_surrogate import CrystalSurrogate
from generators.oracles.hit_probability import log_inside
from generators.oracles.hull import fractions_of_batch
from generators.oracles.judge import exact_bulk_modulus
from generators.screening.crystal_features import crystal_features

ENERGY = "formation_energy_per_atom"
DRAWN_GAP = "band_gap_as_drawn"
MOVED, MOVED_WEIGHT = 0.2, 10
"""First guess of how far a gap moves in the relaxation (eV), and what it counts for in answers of the judge."""


class HitSurrogate:
    """How likely crystals are to be hits of a judge, learnt from labels and from what it has judged."""

    def __init__(self, judge: CrystalJudge, labelled: Labelled, seed: int) -> None:
        self.judge = judge
        goal = judge.goal.intervals
        self.properties = tuple(dict.fromkeys([ENERGY if name == ABOVE else name for name in goal]))
        for name in self.properties:
            if name not in labelled.dataset.properties:
                raise ValueError(
                    f"screening.rounds: no crystal has a label of {name}, give a table of them as data.path=FILE"
                )
        self.batch, self.features = labelled.dataset.batch, labelled.features
        self.labels = torch.stack([labelled.dataset.properties[name].double() for name in self.properties], 1)
        # Neighbours in the periodic table are alike; by the shares of the elements they would be as far apart as any.
        self.model = CrystalSurrogate(
            self.features, self.labels, self.properties, seed, alike=slice(N_STATES, None)
        )  # fmt: skip
        self.judged = torch.zeros(0, dtype=torch.bool)
        self._gaps: dict[str, float] = {}
        self.hull = self._hull_energy(self.batch) if ABOVE in goal else None

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
        if self.hull is not None:
            self.hull = torch.cat([self.hull[:known], self._hull_energy(batch)])
        self.judged = torch.ones(len(batch), dtype=torch.bool)
        self.model.observe(features, labels)

    def log_probability(self, batch: OrbitBatch) -> Tensor:
        """[B] that every interval holds, the properties taken as independent normals."""
        hull = None if self.hull is None else self._hull_energy(batch)
        return self._log_probability(batch, *self.model.predict(crystal_features(batch)), hull)

    def look_closer(
        self, candidates: pd.DataFrame, score: Tensor, n: int, judged: pd.DataFrame
    ) -> tuple[Tensor, Tensor]:
        """The judge's network, which costs no relaxation, asked about the ``n`` likeliest crystals as they were drawn.

        Its gap takes the place of the surrogate's; how far gaps move in the relaxation is learnt from what was judged.
        No crystal is asked about twice.

        Returns:
            Log-probabilities [B], -inf for those not asked about, and the network's gaps [B] (eV), NaN for those.
        """
        assert self.judge.network is not None
        rows = torch.argsort(score, descending=True, stable=True)[:n]
        part = candidates.iloc[rows.numpy()]
        new = part[~part["id"].isin(self._gaps.keys())]
        if len(new):
            gaps = self.judge.network.evaluate(from_frame(new)).values[GAP]
            self._gaps.update(zip(new["id"], gaps.tolist(), strict=True))
        gap = torch.tensor([self._gaps[name] for name in part["id"]], dtype=torch.float64)
        batch = from_frame(part)
        mean, std = self.model.predict(crystal_features(batch))
        column = self.properties.index(GAP)
        mean[:, column], std[:, column] = gap, self._moved(judged)
        hull = None if self.hull is None else self._hull_energy(batch)
        closer, seen = torch.full_like(score, -torch.inf), torch.full_like(score, torch.nan)
        closer[rows], seen[rows] = self._log_probability(batch, mean, std, hull), gap
        return closer, seen

    @staticmethod
    def _moved(judged: pd.DataFrame) -> float:
        """Root mean square change of the gap in the relaxation, eV."""
        if DRAWN_GAP not in judged:
            return MOVED
        change = (judged[GAP] - judged[DRAWN_GAP]).dropna().to_numpy(dtype=float)
        return float(((MOVED_WEIGHT * MOVED**2 + (change**2).sum()) / (MOVED_WEIGHT + len(change))) ** 0.5)

    def _log_probability(self, batch: OrbitBatch, mean: Tensor, std: Tensor, hull: Tensor | None) -> Tensor:
        total = torch.zeros(len(batch), dtype=torch.float64)
        for name, interval in self.judge.goal.intervals.items():
            column = self.properties.index(ENERGY if name == ABOVE else name)
            middle = mean[:, column] if hull is None or name != ABOVE else mean[:, column] - hull
            total = total + log_inside(middle, std[:, column], interval)
        if "bulk_modulus" in self.judge.goal.intervals and not self.judge.settings.all_bulk_moduli:
            total = torch.where(exact_bulk_modulus(batch), total, -torch.inf)
        return total.masked_fill(total.isnan(), -torch.inf)

    def _hull_energy(self, batch: OrbitBatch) -> Tensor:
        return torch.from_numpy(self.judge.hull.hull_energy(fractions_of_batch(batch)))

    def best(self, allowed: Tensor, n: int) -> OrbitBatch:
        """The ``n`` known or judged crystals most like a hit, of the rows ``allowed``.

        Labels stand for the means where they are known: it is the probability of a crystal *like* this one.
        """
        part, labels = self.batch.select(allowed), self.labels[allowed]
        mean, std = self.model.predict(self.features[allowed])
        mean = torch.where(torch.isfinite(labels), labels, mean)
        score = self._log_probability(part, mean, std, None if self.hull is None else self.hull[allowed])
        chosen = torch.argsort(score, descending=True, stable=True)[:n]
        return part.select(chosen)
