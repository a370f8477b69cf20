from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pymatgen.core import Lattice, Structure

from data.sources import Source, kept, read, read_crystals


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three crystals, one of them without a cell; anything is worth keeping."""
    monkeypatch.setattr(kept, "LEAST_ROWS", 1)
    monkeypatch.setenv("RAREMAT_CACHE", str(tmp_path / "cache"))
    rows = []
    for i, (a, z) in enumerate([(5.64, ["Na", "Cl"]), (4.21, ["Mg", "O"]), (0.0, ["K", "Br"])]):
        s = Structure.from_spacegroup("Fm-3m", Lattice.cubic(a or 6.6), z, [[0] * 3, [0.5] * 3])
        rows.append({
            "id": f"m{i}", "lattice": list(s.lattice.matrix.flatten() * (a > 0)), "band_gap": np.nan if i else 5.0,
            "frac_coords": list(s.frac_coords.flatten()), "atomic_numbers": list(s.atomic_numbers),
        })  # fmt: skip
    pd.DataFrame(rows).to_parquet(tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


def test_a_file_is_encoded_once(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(workers=1)
    first, rejected = read_crystals(table, source)
    assert len(first) == 2 and [r.id for r in rejected] == ["m2"]
    with monkeypatch.context() as m:
        m.setattr(read, "encode_rows", lambda *_: pytest.fail("encoded again"))
        counted: list[int] = []
        again, left_out = read_crystals(table, Source(workers=2), progress=counted.append)
        assert counted == [3]
    assert left_out == rejected and again.ids == first.ids and again.prototype == first.prototype
    assert again.keys() == first.keys()
    assert torch.equal(again.batch.coordinates, first.batch.coordinates)
    assert torch.equal(again.batch.strain, first.batch.strain)
    assert list(again.properties) == list(first.properties)
    assert torch.equal(again.properties["band_gap"].isnan(), first.properties["band_gap"].isnan())
    without, _ = read_crystals(table, Source(workers=1, labels=False))
    assert "band_gap" not in without.properties  # read in another way


def test_another_content_is_another_entry(table: Path) -> None:
    read_crystals(table, Source(workers=1))
    frame = pd.read_parquet(table)
    frame.iloc[:1].to_parquet(table)
    assert len(read_crystals(table, Source(workers=1))[0]) == 1


def test_a_broken_entry_or_no_folder_is_no_error(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(workers=1)
    read_crystals(table, source)
    for path in (tmp_path / "cache" / "encoded").glob("*.parquet"):
        path.write_bytes(b"no table")
    assert len(read_crystals(table, source)[0]) == 2
    monkeypatch.setenv("RAREMAT_CACHE", str(table))  # a file: no folder can be made there
    assert len(read_crystals(table, source)[0]) == 2
    monkeypatch.setenv("RAREMAT_CACHE", "")
    assert kept.folder() is None and len(read_crystals(table, source)[0]) == 2
