"""How likely a crystal is to be a hit, from means and standard deviations of what the judge will measure."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from data.frames import from_frame
from data.orbit_batch import OrbitBatch
from generators.crystals.judging import ABOVE, CrystalJudge
from generators.oracles.hit_probability import log_inside
from generators.oracles.hull import Hull, fractions_of_batch
from generators.oracles.hull_tables import ENERGY
from generators.oracles.judge import exact_bulk_modulus
from generators.oracles.overcounted import overcounted
from generators.screening.crystal_features import crystal_features
from generators.shipped import load_crystal_surrogate


def predicted_name(name: str) -> str:
    """What a surrogate predicts for a wish: energies above the hull follow from formation energies."""
    return ENERGY if name == ABOVE else name


class HitOdds:
    """Log-probability that what the judge's goal says of ``properties`` holds, as independent normals.

    Args:
        judge: whose goal and hull count.
        properties: P names that are predicted; the goal's other intervals are left out.
        hull: that energies count against in place of the judge's.
    """

    def __init__(self, judge: CrystalJudge, properties: Sequence[str], hull: Hull | None = None) -> None:
        self.judge, self.properties, self.hull = judge, tuple(properties), hull
        goal = judge.goal.intervals
        self.intervals = {name: i for name, i in goal.items() if predicted_name(name) in self.properties}
        self.needs_hull = ABOVE in self.intervals

    def hull_energy(self, batch: OrbitBatch) -> Tensor | None:
        """[B] eV/atom of the hull at each composition; None if no energy above it is asked for."""
        if not self.needs_hull:
            return None
        hull = self.judge.hull if self.hull is None else self.hull
        return torch.from_numpy(hull.hull_energy(fractions_of_batch(batch)))

    def log_probability(
        self, batch: OrbitBatch, mean: Tensor, std: Tensor, hull: Tensor | None, known: dict[str, Tensor] | None = None
    ) -> Tensor:
        """[B] that every interval holds.

        Args:
            batch: the crystals.
            mean, std: [B, P].
            hull: `hull_energy` of the batch.
            known: log-probabilities [B] of single intervals that are better known.
        """
        total = torch.zeros(len(batch), dtype=torch.float64)
        for name, interval in self.intervals.items():
            if known and name in known:
                total = total + known[name]
                continue
            column = self.properties.index(predicted_name(name))
            middle = mean[:, column] if hull is None or name != ABOVE else mean[:, column] - hull
            total = total + log_inside(middle, std[:, column], interval)
        if "bulk_modulus" in self.intervals and not self.judge.settings.all_bulk_moduli:
            total = torch.where(exact_bulk_modulus(batch), total, -torch.inf)
        return total.masked_fill(total.isnan(), -torch.inf)


class LikelyHits:
    """The embedded surrogate, asked how likely drawn crystals are to be hits of a judge (``hull``: of `HitOdds`)."""

    def __init__(self, judge: CrystalJudge, hull: Hull | None = None) -> None:
        self.model = load_crystal_surrogate()
        self.odds = HitOdds(judge, self.model.properties, hull)

    def __bool__(self) -> bool:
        """Whether the surrogate knows anything of the goal."""
        return bool(self.odds.intervals)

    def predicted(self, batch: OrbitBatch) -> tuple[Tensor, Tensor]:
        """Means and standard deviations [B, P] by the surrogate.

        Energies are taken for higher by what the judge may overcount (`generators.oracles.overcounted`).
        """
        mean, std = self.model.predict(crystal_features(batch))
        if ENERGY in self.model.properties:
            mean[:, self.model.properties.index(ENERGY)] += overcounted(batch)
        return mean, std

    def log_probability(self, table: pd.DataFrame) -> Tensor:
        """[B] of a table of `generators.crystals.draws`."""
        batch = from_frame(table)
        return self.odds.log_probability(batch, *self.predicted(batch), self.odds.hull_energy(batch))
