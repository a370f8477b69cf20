"""The choice among drawn crystals: new ones, the likeliest, with the surrogate's labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from data.exchanges import load_exchanges
from data.frames import from_frame
from data.orbit_batch import OrbitBatch
from data.protostructure import crystal_key
from generators.crystals.draws import drawn_table
from generators.crystals.self_taught import likely_draws
from generators.oracles.hull import fractions_of_batch
from generators.oracles.hull_tables import ENERGY, known_hull
from generators.screening.crystal_features import crystal_features
from generators.shipped import load_crystal_surrogate


@pytest.fixture
def samples(tmp_path: Path, random_batch: Callable[..., OrbitBatch]) -> Path:
    """Random crystals, each twice, and embedded ones, which are known."""
    drawn = random_batch(60, seed=3, elements=(3, 8, 12, 17, 22, 26, 38, 56))
    known = load_exchanges().batch.select(torch.arange(10))
    table = pd.concat([drawn_table(b, f"b{i}") for i, b in enumerate((drawn, drawn, known))], ignore_index=True)
    table["distance_ratio"] = 1.0  # random ones are too close
    path = tmp_path / "samples.parquet"
    table.to_parquet(path)
    return path


def test_the_likeliest_new_ones_are_taken_once_with_the_surrogates_labels(samples: Path) -> None:
    everything, best = (likely_draws(samples, share) for share in (1.0, 0.1))
    keys = [crystal_key(c) for c in everything.batch.to_crystals()]
    assert len(set(keys)) == len(keys) <= 60
    assert not set(keys) & {crystal_key(c) for c in from_frame(pd.read_parquet(samples).iloc[120:]).to_crystals()}
    assert len(best) == 13 and list(best.ids) == list(everything.ids[:13])
    mean, _ = load_crystal_surrogate().predict(crystal_features(best.batch))
    hull = torch.from_numpy(known_hull().hull_energy(fractions_of_batch(best.batch)))
    assert torch.allclose(best.properties["e_above_hull"], mean[:, 0] - hull)
    assert torch.allclose(best.properties[ENERGY], mean[:, 0])
    above = [float(d.properties["e_above_hull"].median()) for d in (best, everything)]
    assert above[0] < above[1]


def test_what_is_known_to_the_user_is_left_out(samples: Path) -> None:
    first = likely_draws(samples, 0.1)
    left = likely_draws(samples, 1.0, first)
    assert not set(left.keys()) & set(first.keys())


def test_another_file_is_one_line(tmp_path: Path, samples: Path) -> None:
    text, other = tmp_path / "a.parquet", tmp_path / "b.parquet"
    text.write_text("no table")
    pd.read_parquet(samples).drop(columns="crystal_key").to_parquet(other)
    with pytest.raises(ValueError, match=r"data\.drawn=.*a\.parquet: not a Parquet file"):
        likely_draws(text, 0.5)
    with pytest.raises(ValueError, match=r"data\.drawn=.*b\.parquet: has no column crystal_key"):
        likely_draws(other, 0.5)
    with pytest.raises(ValueError, match=r"data\.drawn=.*none\.parquet: not a Parquet file"):
        likely_draws(tmp_path / "none.parquet", 0.5)
