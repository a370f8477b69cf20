"""Tables of drawn crystals: rows and what the card says of their makers are kept when more are added."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

import pandas as pd

from generators.crystals.labelling import write_drawn


def test_adding_keeps_rows_and_makers(tmp_path: Path) -> None:
    with as_file(files("data.tables") / "chosen.parquet") as path:
        rows = pd.read_parquet(path).iloc[:30]
    output = tmp_path / "drawn.parquet"
    write_drawn(rows.iloc[:10], output, "a test", "one\n  over two lines", add=False)
    write_drawn(rows.iloc[10:], output, "a test", "two", add=True)
    kept = pd.read_parquet(output)
    assert kept["e_above_hull"].tolist() == rows["e_above_hull"].tolist()
    assert kept["protostructure"].astype(str).tolist() == rows["protostructure"].astype(str).tolist()
    card = output.with_suffix(".md").read_text(encoding="utf-8")
    assert "- Drawn by one\n  over two lines\n- Drawn by two\n- Rows: 30;" in card
    assert card.count("- Made by a test") == 1
