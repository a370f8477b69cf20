"""How likely a crystal is to be a hit: a surrogate of the judge, asked about the wish."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from data.frames import from_frame
from data.orbit_batch import OrbitBatch
from generators.crystals.judging import ABOVE, CrystalJudge
from generators.crystals.labelled import Labelled
from generators.element_features import N_STATES
from generators.oracles.crystal_surrogate import CrystalSurrogate
from generators.oracles.hull import fractions_of_batch
from generators.oracles.judge import exact_bulk_modulus
from generators.oracles.surrogate import log_interval
from generators.screening.crystal_features import crystal_features
from generators.wish import Interval

ENERGY = "formation_energy_per_atom"


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
        self.judged = torch.ones(len(batch), dtype=torch.bool)
        self.model.observe(features, labels)

    def log_probability(
        self, batch: OrbitBatch, features: Tensor | None = None, labels: Tensor | None = None
    ) -> Tensor:
        """[B] that every interval holds, the properties taken as independent normals.

        Args:
            labels: [B, P] that stand for the means where they are known: then it is the probability of a crystal
                *like* this one.
        """
        mean, std = self.model.predict(crystal_features(batch) if features is None else features)
        if labels is not None:
            mean = torch.where(torch.isfinite(labels), labels, mean)
        total = torch.zeros(len(batch), dtype=torch.float64)
        for name, interval in self.judge.goal.intervals.items():
            column = self.properties.index(ENERGY if name == ABOVE else name)
            middle = mean[:, column]
            if name == ABOVE:
                middle = middle - torch.from_numpy(self.judge.hull.hull_energy(fractions_of_batch(batch)))
            total = total + _inside(middle, std[:, column], interval)
        if "bulk_modulus" in self.judge.goal.intervals and not self.judge.settings.all_bulk_moduli:
            total = torch.where(exact_bulk_modulus(batch), total, -torch.inf)
        return total.masked_fill(total.isnan(), -torch.inf)

    def best(self, allowed: Tensor, n: int) -> OrbitBatch:
        """The ``n`` known or judged crystals most like a hit, of the rows ``allowed``."""
        part = self.batch.select(allowed)
        score = self.log_probability(part, self.features[allowed], self.labels[allowed])
        chosen = torch.argsort(score, descending=True, stable=True)[:n]
        return part.select(chosen)


def _inside(mean: Tensor, std: Tensor, interval: Interval) -> Tensor:
    low = -torch.inf if interval.low is None else interval.low
    high = torch.inf if interval.high is None else interval.high
    width = std.clamp(min=1e-9)
    return log_interval((low - mean) / width, (high - mean) / width)
