"""Crystals that a model drew and the embedded surrogate chose: what a model can learn from without a judge.

A model that learns from the best of its own draws gives such draws at once (expert iteration: Anthony, Tian & Barber,
NeurIPS 2017). The geometry of a draw is not relaxed, so only what is discrete is learnt from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
from tqdm import tqdm

from data.dataset import CrystalDataset
from data.frames import CRYSTAL_COLUMNS, from_frame
from generators.crystals.hit_odds import LikelyHits
from generators.crystals.judging import ABOVE, CrystalJudge
from generators.oracles.hull_tables import ENERGY
from generators.screening.crystal_features import crystal_features
from generators.screening.crystal_funnel import KnownCrystals, Screened, screen_crystals
from generators.wish import Interval, Wish

LOW = 0.05
"""eV/atom above the hull of the known compounds that the choice asks for: some are worse than expected."""
_COLUMNS = ("distance_ratio", "crystal_key", "protostructure")
_ROWS = 4000


def likely_draws(path: Path, share: float, own: CrystalDataset | None = None) -> CrystalDataset:
    """The likeliest of the crystals in a ``samples.parquet`` of ``raremat-generate``, with the surrogate's labels.

    Args:
        path: the table.
        share: of all its crystals that is kept, if so many are new and well-spaced.
        own: the user's table of what is known and therefore left out.

    Raises:
        ValueError: not such a table, or nothing in it is new.
    """
    try:
        names = pq.read_schema(path).names
    except (OSError, ValueError):
        raise ValueError(f"data.drawn={path}: not a Parquet file, give a run's samples.parquet") from None
    missing = [name for name in (*CRYSTAL_COLUMNS, *_COLUMNS) if name not in names]
    if missing:
        raise ValueError(f"data.drawn={path}: has no column {missing[0]}, give a run's samples.parquet")
    with CrystalJudge(Wish({ABOVE: Interval(None, LOW)}), hull="known") as judge:
        likely = LikelyHits(judge)
        chosen = _screened(path, share, own, likely).chosen
        if not len(chosen):
            raise ValueError(f"data.drawn={path}: no crystal in it is new and well-spaced")
        batch = from_frame(chosen)
        mean, _ = likely.model.predict(crystal_features(batch))
        properties = {name: mean[:, i].double() for i, name in enumerate(likely.model.properties)}
        hull = likely.odds.hull_energy(batch)
    assert hull is not None
    properties[ABOVE] = properties[ENERGY] - hull
    return CrystalDataset(batch, properties, tuple(chosen["protostructure"].astype(str)), tuple(chosen["id"]))


def _screened(path: Path, share: float, own: CrystalDataset | None, likely: LikelyHits) -> Screened:
    file = pq.ParquetFile(path)
    with tqdm(total=file.metadata.num_rows, unit="crystal", desc="choose", mininterval=1.0) as bar:

        def tables() -> Iterator[pd.DataFrame]:
            for batch in file.iter_batches(_ROWS):
                yield batch.to_pandas().assign(seconds=0.0)
                bar.update(len(batch))

        wanted = max(round(share * file.metadata.num_rows), 1)
        return screen_crystals(tables(), KnownCrystals(own), frozenset(), wanted, likely=likely.log_probability)
