"""Which of the drawn crystals go to the judge: cheap rules, no repetition, nothing known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from data.dataset import CrystalDataset
from data.decorations import load_decorations
from data.exchanges import load_exchanges
from generators.oracles.hull_tables import reference_compounds
from generators.screening.pool import StageCount
from generators.screening.rules import MIN_START_RATIO

TOO_CLOSE, DUPLICATE, NOT_CHOSEN = "sites too close", "duplicate", "beyond judge_calls"
KNOWN, TRAINING = "known compound", "hypothetical crystal of the training data"


def known_keys(own: CrystalDataset | None = None) -> dict[str, str]:
    """Crystal key -> why a crystal of that key is not new.

    Args:
        own: the user's table of what is known.
    """
    keys = dict.fromkeys([*load_exchanges().keys(), *load_decorations().keys()], TRAINING)
    keys.update(dict.fromkeys(reference_compounds()["crystal_key"], KNOWN))
    if own is not None:
        keys.update(dict.fromkeys(own.keys(), KNOWN))
    return keys


@dataclass(frozen=True, eq=False)
class Screened:
    """What is left of the drawn crystals.

    Attributes:
        chosen: rows of the shards that go to the judge, in the order drawn.
        counts: what each stage dropped and why.
        n_new, n_new_prototypes: distinct new crystals; and those whose protostructure no known crystal has.
    """

    chosen: pd.DataFrame
    counts: tuple[StageCount, ...]
    n_new: int
    n_new_prototypes: int


def screen_crystals(
    shards: Iterable[pd.DataFrame],
    known: Mapping[str, str],
    prototypes: frozenset[str],
    wanted: int,
    keep_known: bool = False,
    geometries: int | None = 1,
) -> Screened:
    """Stream the shards once; in memory are one shard, the chosen rows and 16 bytes per distinct crystal.

    Args:
        shards: tables of `generators.crystal_draws`.
        known: crystal keys that are not new (`known_keys`).
        prototypes: protostructures that are not new.
        wanted: rows to choose at most.
        keep_known: known crystals go on as well.
        geometries: crystals of one key that go on; None for all.
    """
    seen: Counter[int] = Counter()
    reasons: dict[str, Counter[str]] = {stage: Counter() for stage in ("distances", "unique", "novel", "chosen")}
    kept: list[pd.DataFrame] = []
    drawn = chosen = n_new = n_new_prototypes = 0
    seconds = 0.0
    for shard in shards:
        drawn += len(shard)
        seconds += float(shard["seconds"].sum())
        rows = []
        table = zip(shard["distance_ratio"], shard["crystal_key"], shard["protostructure"], strict=True)
        for i, (ratio, key, prototype) in enumerate(table):
            if not ratio >= MIN_START_RATIO:
                reasons["distances"][TOO_CLOSE] += 1
                continue
            seen[hash(key)] += 1
            if geometries is not None and seen[hash(key)] > geometries:
                reasons["unique"][DUPLICATE] += 1
                continue
            if seen[hash(key)] == 1 and key not in known:
                n_new += 1
                n_new_prototypes += prototype not in prototypes
            if key in known and not keep_known:
                reasons["novel"][known[key]] += 1
                continue
            if chosen == wanted:
                reasons["chosen"][NOT_CHOSEN] += 1
                continue
            rows.append(i)
            chosen += 1
        if rows:
            kept.append(shard.iloc[rows].assign(novel=~shard["crystal_key"].iloc[rows].isin(known)))
    counts, left = [], drawn
    for stage, why in reasons.items():
        after = left - sum(why.values())
        counts.append(StageCount(stage, left, after, dict(why), seconds if stage == "distances" else 0.0))
        left = after
    empty = pd.DataFrame({"crystal_key": np.array([], dtype=object)})
    return Screened(pd.concat(kept, ignore_index=True) if kept else empty, tuple(counts), n_new, n_new_prototypes)
