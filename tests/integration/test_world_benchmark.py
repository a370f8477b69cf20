from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["world=mars", "data=x"], "benchmark: world=mars: choose from elpasolite, perov_5"),
        (["world=perov_5", "data=nowhere"], "benchmark: data=nowhere: has no perov_5/perovskites.parquet"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], line: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "benchmark.py"), *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == line
