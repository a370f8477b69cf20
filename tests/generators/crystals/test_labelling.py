"""Tables of drawn crystals: rows and what the card says of their makers are kept when more are added."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from data.cells import decode
from data.crystal import Crystal
from data.exchanges import load_exchanges
from data.frames import to_frame
from data.orbit_batch import OrbitBatch
from data.protostructure import crystal_key
from generators.crystals.labelling import LABELS, compact, labelled, write_drawn
from generators.oracles.chgnet_potential import SCALE
from generators.oracles.judge import elemental_references, formation_energy


def test_adding_keeps_rows_and_makers(tmp_path: Path) -> None:
    with as_file(files("data.tables") / "chosen.parquet") as path:
        rows = pd.read_parquet(path).iloc[::-1000][:30]
    output = tmp_path / "drawn.parquet"
    write_drawn(rows.iloc[:10], output, "a test", "one\n  over two lines", add=False)
    write_drawn(rows.iloc[10:], output, "a test", "two", add=True)
    kept = pd.read_parquet(output)
    assert kept["space_group"].is_monotonic_increasing
    for name in ("e_above_hull", "protostructure"):
        assert sorted(kept[name].astype(str)) == sorted(rows[name].astype(str))
    card = output.with_suffix(".md").read_text(encoding="utf-8")
    assert "- Drawn by one\n  over two lines\n- Drawn by two\n- Rows: 30;" in card
    assert card.count("- Made by a test") == 1


def test_compact_tables_are_rounded_and_their_volume_comes_from_the_cell(tmp_path: Path) -> None:
    crystals = load_exchanges().batch.select(torch.arange(20))
    values = {name: np.full(20, 1.23456) for name in LABELS}
    table = compact(to_frame(crystals).assign(parent="", **values))
    assert "volume_per_atom" not in table
    assert table["e_above_hull"].tolist() == pytest.approx([1.235] * 20)
    assert table["magnetization_density"].tolist() == pytest.approx([1.2346] * 20)
    path = tmp_path / "table.parquet"
    table.to_parquet(path)
    read = load_exchanges(path)
    cells = decode(crystals)
    assert sorted(read.properties["volume_per_atom"].tolist()) == pytest.approx(
        sorted((cells.volume / cells.n_atoms).tolist()), rel=0.01
    )


def test_labelled_crystals_have_all_their_symmetry_and_are_new(
    rocksalt: Callable[[str, str, float], tuple[Crystal, Crystal]],
) -> None:
    """An alloy in both spellings, the lower energy in P1; and sodium chloride in P1."""
    cubic, in_p1 = rocksalt("K", "Rb", 7.0)
    _, known = rocksalt("Na", "Cl", 5.6)
    batch = OrbitBatch.from_crystals([cubic, in_p1, known])
    elements = elemental_references(SCALE)
    above_elements = torch.tensor([0.02, 0.01, -2.0], dtype=torch.float64)
    energy = above_elements - formation_energy(batch, torch.zeros(3, dtype=torch.float64), elements, SCALE)
    frame = to_frame(batch).assign(
        energy_per_atom=energy.numpy(), bulk_modulus=10.0, magnetization_density=0.0, volume_per_atom=20.0, valid=True,
        reason="",
    )  # fmt: skip
    found, reasons = labelled(frame)
    assert reasons == {"relaxed to a known compound": 1, "relaxed to one of the others": 1}
    assert found["crystal_key"].tolist() == [crystal_key(cubic)]
    assert found["space_group"].tolist() == [225]
    assert found["formation_energy_per_atom"].tolist() == pytest.approx([0.01], abs=1e-6)
