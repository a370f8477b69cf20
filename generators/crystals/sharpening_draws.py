"""Draws of a round of sharpening, in processes of their own: prototypes and elements, and how likely they are hits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from data.frames import from_frame
from generators.crystals.draws import CrystalDraws, drawn_table
from generators.crystals.hit_odds import HitOdds, LikelyHits
from generators.crystals.judging import ABOVE, CrystalJudge
from generators.oracles.chgnet_potential import SCALE
from generators.oracles.crystal_surrogate import CrystalSurrogate
from generators.oracles.hull_tables import ENERGY, KNOWN, read_hull
from generators.sampling.crystals import CrystalSampler
from generators.screening.charge_balance import balanced_or_alloy
from generators.screening.crystal_features import crystal_features
from generators.screening.proposals import shard_seed
from generators.wish import Interval, Wish

BALANCED, DISTANCE, FREE = "balanced", "template_distance", "free_coordinates"
"""Columns: whether it is charge-balanced or an alloy; how far its elements are from those of its template; how many
coordinates its symmetry leaves free."""
NEAR = "probability_near"
LEVELS = {NEAR: 0.1, "probability_on": 0.0, "probability_below": -0.05}
"""Columns: chances that a crystal lies at most so far (eV/atom) above the hull."""

_sampler: tuple[Path, CrystalSampler] | None = None
_likely: LikelyHits | None = None
_odds: dict[str, HitOdds] = {}
_observed: tuple[Path, ...] = ()


def draw_shard(
    draws: CrystalDraws, shard: int, n: int, judged: tuple[Path, ...], hull: tuple[Path, ...] = (Path(KNOWN),)
) -> pd.DataFrame:
    """A table of sketches (`CrystalSampler.sketch`) with `LEVELS`, `BALANCED` and `DISTANCE`.

    Args:
        draws: how they are drawn.
        shard, n: number of the shard and of its crystals.
        judged: tables of what was judged, which correct the surrogate.
        hull: tables that energies count against (`generators.oracles.hull_tables.read_hull`), the same in all calls of
            a process.
    """
    global _sampler, _likely, _observed
    if _sampler is None or _sampler[0] != draws.model:
        _sampler = (draws.model, draws.sampler())
    if _likely is None:
        judges = {name: CrystalJudge(Wish({ABOVE: Interval(None, level)})) for name, level in LEVELS.items()}
        against = read_hull(hull, SCALE)
        _likely = LikelyHits(judges[NEAR], against)
        _odds.update((name, HitOdds(judge, _likely.model.properties, against)) for name, judge in judges.items())
    if judged != _observed:
        _observe(_likely.model, pd.concat(map(pd.read_parquet, judged), ignore_index=True))
        _observed = judged
    generator = torch.Generator().manual_seed(shard_seed(draws.seed, draws.name, shard))
    batch, distance = _sampler[1].sketch(draws.task, draws.wish, n, generator)
    (mean, std), energy = _likely.predicted(batch), _likely.odds.hull_energy(batch)
    return drawn_table(batch, f"{draws.name}-{shard:05d}").assign(
        **{name: odds.log_probability(batch, mean, std, energy).exp().numpy() for name, odds in _odds.items()},
        **{BALANCED: [balanced_or_alloy(c.atomic_numbers, c.multiplicities) for c in batch.to_crystals()]},
        **{DISTANCE: distance.numpy(), FREE: batch.coordinate_mask.flatten(1).sum(1).numpy()},
    )


def _observe(surrogate: CrystalSurrogate, judged: pd.DataFrame) -> None:
    """Let it learn from what was judged."""
    if not len(judged):
        return
    labels = torch.full((len(judged), len(surrogate.properties)), torch.nan, dtype=torch.float64)
    energy = torch.from_numpy(judged[ENERGY].to_numpy(dtype=np.float64, copy=True))
    labels[:, surrogate.properties.index(ENERGY)] = energy
    surrogate.observe(crystal_features(from_frame(judged)), labels)
