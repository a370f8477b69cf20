"""Data sets, their splits, and the table of decorations."""

from __future__ import annotations

import math
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from data.cells import decode
from data.dataset import CrystalDataset
from data.decorations import load_decorations
from data.orbit_batch import OrbitBatch
from data.protostructure import crystal_key
from data.prototypes import prototype_library
from data.spellings import random_spelling
from data.splits import PARTS, key_to_unit, split_by_key

LIBRARY = prototype_library()


def elpasolites(n: int, seed: int = 0) -> CrystalDataset:
    rng = np.random.default_rng(seed)
    drawn = [rng.choice(np.arange(3, 60), 4, replace=False).tolist() for _ in range(n)]
    return CrystalDataset(
        batch=OrbitBatch.from_crystals([LIBRARY.get("elpasolite").crystal(z) for z in drawn]),
        properties={"band_gap": torch.arange(n, dtype=torch.float64)},
        prototype=("elpasolite",) * n,
        ids=tuple(f"e{i}" for i in range(n)),
    )


def test_keys_are_those_of_the_crystals() -> None:
    data = elpasolites(20)
    assert data.keys() == [crystal_key(c) for c in data.batch.to_crystals()]


def test_selection_keeps_rows_together() -> None:
    data = elpasolites(10)
    keys = data.keys()
    part = data.select(torch.tensor([7, 2]))
    assert part.ids == ("e7", "e2") and part.properties["band_gap"].tolist() == [7, 2]
    assert part.keys() == [keys[7], keys[2]] == [crystal_key(c) for c in part.batch.to_crystals()]
    masked = data.select(torch.arange(10) > 7)
    assert masked.ids == ("e8", "e9")


def test_concatenation_fills_unknown_labels() -> None:
    first, second = elpasolites(3), elpasolites(2, seed=1)
    rock = CrystalDataset(
        OrbitBatch.from_crystals([LIBRARY.get("rocksalt").crystal([11, 17])]),
        {"bulk_modulus": torch.tensor([24.0], dtype=torch.float64)},
        ("rocksalt",),
        ("nacl",),
    )
    joined = CrystalDataset.concatenate([first, rock, second])
    assert len(joined) == 6 and joined.ids[3] == "nacl"
    assert joined.properties["bulk_modulus"][3] == 24
    assert joined.properties["bulk_modulus"].isnan().tolist() == [True] * 3 + [False] + [True] * 2
    assert joined.keys()[3] == "225|a:Na b:Cl"


def test_columns_of_another_length_are_refused() -> None:
    data = elpasolites(3)
    with pytest.raises(ValueError, match="band_gap: has 2 entries for 3 crystals"):
        CrystalDataset(data.batch, {"band_gap": torch.zeros(2)}, data.prototype, data.ids)
    with pytest.raises(ValueError, match="nothing to concatenate"):
        CrystalDataset.concatenate([])


def test_parts_are_disjoint_complete_and_of_the_wanted_size() -> None:
    data = elpasolites(4000)
    parts = split_by_key(data, (0.8, 0.15, 0.05), seed=3)
    assert tuple(parts) == PARTS
    rows = torch.cat(list(parts.values()))
    assert rows.sort().values.tolist() == list(range(4000))
    for name, share in zip(PARTS, (0.8, 0.15, 0.05), strict=True):
        error = math.sqrt(share * (1 - share) / 4000)
        assert abs(len(parts[name]) / 4000 - share) < 4 * error


def test_no_crystal_is_in_two_parts_in_any_spelling() -> None:
    rng = np.random.default_rng(0)
    crystals = elpasolites(60).batch.to_crystals()
    many = [random_spelling(c, rng) for c in crystals for _ in range(6)]
    data = CrystalDataset(OrbitBatch.from_crystals(many), {}, ("",) * 360, tuple(map(str, range(360))))
    parts = split_by_key(data, (0.4, 0.3, 0.3), seed=0)
    owner = [{int(row) // 6 for row in parts[name]} for name in PARTS]
    assert all(owner) and sum(map(len, owner)) == 60


def test_a_row_keeps_its_part_when_others_are_added_and_loses_it_with_another_seed() -> None:
    small, large = elpasolites(300), CrystalDataset.concatenate([elpasolites(300), elpasolites(300, seed=1)])
    test = split_by_key(small)["test"].tolist()
    assert [row for row in split_by_key(large)["test"].tolist() if row < 300] == test
    assert split_by_key(small, seed=1)["test"].tolist() != test


def test_place_of_a_key_is_fixed_for_all_time() -> None:
    assert key_to_unit("225|a:Na b:Cl", 0) == pytest.approx(0.1333707, abs=1e-6)


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.9, 0.2, -0.1), (0.9, 0.05, 0.1)])
def test_wrong_fractions_are_named(fractions: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"fractions=.*sum 1"):
        split_by_key(elpasolites(2), fractions)


def decoration_table(path: Path) -> CrystalDataset:
    """A table as scripts/build_decorations.py writes it, of two prototypes of different width."""
    crystals = [LIBRARY.get("rocksalt").crystal([11, 17]), LIBRARY.get("elpasolite").crystal([13, 11, 19, 9])] * 2
    pd.DataFrame(
        {
            "prototype": pd.Categorical(["rocksalt", "elpasolite"] * 2),
            "atomic_numbers": [np.array(c.atomic_numbers, dtype=np.uint8) for c in crystals],
            "coordinates": [np.array(c.coordinates, dtype=np.float32).ravel() for c in crystals],
            "strain": [np.array(c.strain, dtype=np.float32) for c in crystals],
            "formation_energy_per_atom": np.array([-2, -3, -2, -3], dtype=np.float32),
            "bulk_modulus": np.array([24.0, np.nan, 24.0, np.nan], dtype=np.float32),
            "judge_evaluations": np.array([9, 9, 9, 9], dtype=np.uint8),
        }
    ).to_parquet(path)
    return CrystalDataset(OrbitBatch.from_crystals(crystals), {}, ("",) * 4, tuple("0123"))


def test_decorations_are_read_as_written(tmp_path: Path) -> None:
    expected = decoration_table(tmp_path / "decorations.parquet")
    found = load_decorations(tmp_path / "decorations.parquet")
    assert found.prototype == ("rocksalt", "elpasolite") * 2
    assert found.keys() == expected.keys()
    assert torch.equal(found.batch.position, expected.batch.position)
    assert torch.allclose(found.batch.coordinates, expected.batch.coordinates, atol=1e-6)
    assert torch.allclose(decode(found.batch).volume, decode(expected.batch).volume, rtol=1e-5)
    assert sorted(found.properties) == ["bulk_modulus", "formation_energy_per_atom"]
    assert found.properties["bulk_modulus"].isnan().tolist() == [False, True, False, True]


def test_bad_decoration_tables_are_named(tmp_path: Path) -> None:
    path = tmp_path / "decorations.parquet"
    with pytest.raises(ValueError, match="no such file"):
        load_decorations(path)
    decoration_table(path)
    frame = pd.read_parquet(path)
    frame.drop(columns="strain").to_parquet(path)
    with pytest.raises(ValueError, match="column 'strain' is not in decorations.parquet"):
        load_decorations(path)
    frame.assign(prototype="rocksolt").to_parquet(path)
    with pytest.raises(ValueError, match=r"prototype='rocksolt'.*did you mean rocksalt"):
        load_decorations(path)
    frame.assign(prototype="rocksalt").to_parquet(path)
    with pytest.raises(ValueError, match="atomic_numbers of row 1: has 4 numbers, prototype rocksalt needs 2"):
        load_decorations(path)


@pytest.mark.skipif(not (files("data.tables") / "decorations.parquet").is_file(), reason="not built yet")
def test_the_embedded_decorations_agree_with_themselves() -> None:
    data = load_decorations()
    cells = decode(data.batch)
    volume = data.properties["volume_per_atom"]
    assert torch.allclose(cells.volume / cells.n_atoms, volume, rtol=1e-3)
    assert bool((data.batch.atomic_number[data.batch.mask] > 0).all())
    assert not data.properties["formation_energy_per_atom"].isnan().any()
    assert len(set(data.prototype)) >= 12
    assert len(set(data.batch.atomic_number[data.batch.mask].tolist())) >= 50
