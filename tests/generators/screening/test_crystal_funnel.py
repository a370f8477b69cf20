"""The funnel before the judge, with crystals whose fate is known."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch

from data.decorations import load_decorations
from data.exchanges import load_exchanges
from data.protostructure import crystal_key
from generators.oracles.hull_tables import reference_compounds
from generators.screening.crystal_funnel import (
    BEYOND,
    DUPLICATE,
    KNOWN,
    NOT_CHOSEN,
    PROBABILITY,
    TOO_CLOSE,
    TRAINING,
    KnownCrystals,
    Screened,
    screen_crystals,
)


def shard(*rows: tuple[str, float]) -> pd.DataFrame:
    keys = [key for key, _ in rows]
    return pd.DataFrame(
        {
            "crystal_key": keys, "distance_ratio": [ratio for _, ratio in rows],
            "protostructure": [f"prototype of {key[0]}" for key in keys], "seconds": 0.5,
            "space_group": 1, "atomic_numbers": [[1]] * len(rows),
        }
    )  # fmt: skip


SHARDS = [
    shard(("a", 0.9), ("b", 0.3), ("known", 0.9), ("a", 0.8)),
    shard(("c", 0.9), ("a", 0.7), ("d", 0.9), ("known", 0.9), ("e", float("nan"))),
]


class Known(KnownCrystals):
    """Knows one crystal."""

    def __init__(self) -> None:
        pass

    def reason(self, key: str, space_group: int, atomic_numbers: Sequence[int]) -> str:
        return KNOWN if key == "known" else ""


def screen(wanted: int = 2, keep_known: bool = False, geometries: int | None = 1) -> Screened:
    return screen_crystals(SHARDS, Known(), frozenset(["prototype of c"]), wanted, keep_known, geometries)


def test_every_crystal_leaves_at_the_right_stage() -> None:
    result = screen()
    assert result.chosen["crystal_key"].tolist() == ["a", "c"] and result.chosen["novel"].all()
    counts = {count.stage: count for count in result.counts}
    assert counts["distances"].reasons == {TOO_CLOSE: 2} and counts["distances"].n_in == 9
    assert counts["unique"].reasons == {DUPLICATE: 3}
    assert counts["novel"].reasons == {KNOWN: 1}
    assert counts["chosen"].reasons == {BEYOND: 1} and counts["chosen"].n_out == 2
    assert (result.n_new, result.n_new_prototypes) == (3, 2)
    assert counts["distances"].seconds == 4.5
    for one, other in zip(result.counts, result.counts[1:], strict=False):
        assert one.n_out == other.n_in and one.n_in - one.n_out == sum(one.reasons.values())


def test_the_likeliest_of_all_shards_are_chosen() -> None:
    asked: list[list[str]] = []
    odds = {"a": 0.3, "c": 0.1, "d": 0.9}

    def likely(table: pd.DataFrame) -> torch.Tensor:
        asked.append(table["crystal_key"].tolist())
        return torch.tensor([odds[key] for key in table["crystal_key"]], dtype=torch.float64).log()

    result = screen_crystals(SHARDS, Known(), frozenset(), 2, likely=likely)
    assert asked == [["a"], ["c", "d"]]  # what is dropped before costs nothing
    assert result.chosen["crystal_key"].tolist() == ["d", "a"]
    assert result.chosen[PROBABILITY].round(6).tolist() == [0.9, 0.3]
    assert result.counts[-1].reasons == {NOT_CHOSEN: 1} and result.counts[-1].n_out == 2
    assert screen_crystals(SHARDS, Known(), frozenset(), 9, likely=likely).counts[-1].reasons == {}
    odds = {"a": 1e-300, "c": 1e-250, "d": 1e-280}
    far = screen_crystals(SHARDS, Known(), frozenset(), 3, likely=lambda table: likely(table) * 10)
    assert far.chosen["crystal_key"].tolist() == ["c", "d", "a"] and (far.chosen[PROBABILITY] == 0).all()


def test_known_crystals_and_more_geometries_are_kept_on_demand() -> None:
    result = screen(wanted=9, keep_known=True, geometries=2)
    assert result.chosen["crystal_key"].tolist() == ["a", "known", "a", "c", "d", "known"]
    assert result.chosen["novel"].tolist() == [True, False, True, True, True, False]
    everything = screen(wanted=9, geometries=None)
    assert everything.chosen["crystal_key"].tolist() == ["a", "a", "c", "a", "d"]
    assert everything.n_new == 3  # distinct


def test_nothing_left_is_an_empty_table() -> None:
    result = screen_crystals([shard(("b", 0.1))], Known(), frozenset(), 5)
    assert len(result.chosen) == 0 and result.counts[-1].n_out == 0


def test_known_crystals_are_compounds_before_training_data() -> None:
    known = KnownCrystals()
    for key in reference_compounds()["crystal_key"].head(50):
        assert known.reason(key, 1, [1]) == KNOWN
    for batch in (load_exchanges().batch, load_decorations().batch):
        for crystal in batch.select(torch.arange(0, len(batch), 997)).to_crystals():
            key = crystal_key(crystal)
            assert known.reason(key, crystal.space_group, crystal.atomic_numbers) in (KNOWN, TRAINING)
            other = crystal.with_elements(tuple(z + 1 for z in crystal.atomic_numbers))
            assert known.reason(crystal_key(other) + " ", other.space_group, other.atomic_numbers) == ""
