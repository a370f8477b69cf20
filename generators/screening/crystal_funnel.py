"""Which of the drawn crystals go to the judge: cheap rules, no repetition, nothing known."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from data.dataset import CrystalDataset
from data.decorations import load_decorations
from data.exchanges import load_draws, load_exchanges, load_predicted
from data.protostructure import crystal_key
from generators.oracles.hull_tables import reference_compounds
from generators.screening.pool import StageCount
from generators.screening.rules import MIN_START_RATIO

TOO_CLOSE, DUPLICATE = "sites too close", "duplicate"
BEYOND, NOT_CHOSEN = "beyond judge_calls", "below the surrogate's choice"
PROBABILITY = "hit_probability"
"""Column: by the surrogate, before the judge was asked."""
KNOWN, TRAINING = "known compound", "hypothetical crystal of the training data"


class KnownCrystals:
    """Which crystal keys are not new, and why.

    Keys of the embedded training data are made when one of the same space group and elements is asked for.

    Args:
        own: the user's table of what is known.
    """

    def __init__(self, own: CrystalDataset | None = None) -> None:
        self._compounds = set(reference_compounds()["crystal_key"]) | set(own.keys() if own is not None else ())
        self._why: dict[str, str] = {}
        draws = load_draws()
        learned = [load_exchanges(), *([draws] if draws is not None else []), load_decorations()]
        # The first are known formulas.
        self._batches = [load_predicted().batch, *(dataset.batch for dataset in learned)]
        self._rows: dict[_Chemistry, list[tuple[int, int]]] = defaultdict(list)
        for which, batch in enumerate(self._batches):
            numbers = batch.atomic_number.sort(1, descending=True).values.tolist()
            for row, (group, zs) in enumerate(zip(batch.space_group.tolist(), numbers, strict=True)):
                self._rows[_chemistry(group, zs)].append((which, row))

    def add(self, keys: Iterable[str]) -> None:
        """Crystals that are not new any more."""
        self._why.update(dict.fromkeys(keys, TRAINING))

    def reason(self, key: str, space_group: int, atomic_numbers: Sequence[int]) -> str:
        """Why the crystal of that key is not new; empty if it is."""
        if key in self._compounds:
            return KNOWN
        for which, row in self._rows.pop(_chemistry(space_group, atomic_numbers), ()):
            learned = crystal_key(self._batches[which].select(torch.tensor([row])).to_crystals()[0])
            self._why.setdefault(learned, TRAINING if which else KNOWN)
        return self._why.get(key, "")


_Chemistry = tuple[int, tuple[int, ...]]


def _chemistry(space_group: int, atomic_numbers: Iterable[int]) -> _Chemistry:
    return int(space_group), tuple(sorted(int(z) for z in atomic_numbers if z))


@dataclass(frozen=True, eq=False)
class Screened:
    """What is left of the drawn crystals.

    Attributes:
        chosen: rows of the shards that go to the judge, in the order drawn or the likeliest first.
        counts: what each stage dropped and why.
        n_new, n_new_prototypes: distinct new crystals; and those whose protostructure no known crystal has.
    """

    chosen: pd.DataFrame
    counts: tuple[StageCount, ...]
    n_new: int
    n_new_prototypes: int


def screen_crystals(
    shards: Iterable[pd.DataFrame],
    known: KnownCrystals,
    prototypes: frozenset[str],
    wanted: int,
    keep_known: bool = False,
    geometries: int | None = 1,
    likely: Callable[[pd.DataFrame], Tensor] | None = None,
) -> Screened:
    """Stream the shards once; in memory are one shard, the chosen rows and 16 bytes per distinct crystal.

    Args:
        shards: tables of `generators.crystals.draws`.
        known: what is not new.
        prototypes: protostructures that are not new.
        wanted: rows to choose at most.
        keep_known: known crystals go on as well.
        geometries: crystals of one key that go on; None for all.
        likely: log-probabilities [B] that rows of a shard are hits; the likeliest are chosen (`PROBABILITY`). None: the
            first.
    """
    seen: Counter[int] = Counter()
    reasons: dict[str, Counter[str]] = {stage: Counter() for stage in ("distances", "unique", "novel", "chosen")}
    chosen = pd.DataFrame({"crystal_key": np.array([], dtype=object)})
    drawn = n_new = n_new_prototypes = 0
    seconds = 0.0
    for shard in shards:
        drawn += len(shard)
        seconds += float(shard["seconds"].sum())
        rows, novel = [], []
        names = ("distance_ratio", "crystal_key", "protostructure", "space_group", "atomic_numbers")
        for i, (ratio, key, prototype, group, numbers) in enumerate(zip(*(shard[n] for n in names), strict=True)):
            if not ratio >= MIN_START_RATIO:
                reasons["distances"][TOO_CLOSE] += 1
                continue
            seen[hash(key)] += 1
            if geometries is not None and seen[hash(key)] > geometries:
                reasons["unique"][DUPLICATE] += 1
                continue
            why = known.reason(key, group, numbers)
            if seen[hash(key)] == 1 and not why:
                n_new += 1
                n_new_prototypes += prototype not in prototypes
            if why and not keep_known:
                reasons["novel"][why] += 1
                continue
            rows.append(i)
            novel.append(not why)
        if rows:
            left_over = shard.iloc[rows].assign(novel=novel)
            if likely is not None:
                left_over[PROBABILITY] = likely(left_over).numpy()  # logarithms keep the order of what is far off
            chosen = pd.concat([chosen, left_over], ignore_index=True) if len(chosen) else left_over
            if likely is not None:
                chosen = chosen.sort_values(PROBABILITY, ascending=False, kind="stable")
            if len(chosen) > wanted:
                reasons["chosen"][BEYOND if likely is None else NOT_CHOSEN] += len(chosen) - wanted
                chosen = chosen.iloc[:wanted]
    counts, left = [], drawn
    for stage, dropped in reasons.items():
        after = left - sum(dropped.values())
        counts.append(StageCount(stage, left, after, dict(dropped), seconds if stage == "distances" else 0.0))
        left = after
    if likely is not None and len(chosen):
        chosen = chosen.assign(**{PROBABILITY: np.exp(chosen[PROBABILITY])})
    return Screened(chosen.reset_index(drop=True), tuple(counts), n_new, n_new_prototypes)
