"""The import arrow: data <- generators <- scripts."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = {"data": {"generators", "scripts", "tests"}, "generators": {"scripts", "tests"}}


def imported_packages(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_module_imports_against_the_arrow(package: str) -> None:
    modules = sorted((ROOT / package).rglob("*.py"))
    assert len(modules) > 10
    wrong = {
        str(path.relative_to(ROOT)): sorted(imported_packages(path) & FORBIDDEN[package])
        for path in modules
        if imported_packages(path) & FORBIDDEN[package]
    }
    assert wrong == {}


def test_diffusion_knows_no_crystals() -> None:
    modules = sorted((ROOT / "generators" / "diffusion").rglob("*.py"))
    assert modules
    assert not [path.name for path in modules if "data" in imported_packages(path)]


def python(code: str) -> subprocess.CompletedProcess[str]:
    """What a fresh interpreter prints."""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )


HEAVY = {"chgnet", "pytorch_lightning", "lightning_fabric", "torchmetrics", "wandb"}


@pytest.mark.parametrize(
    ("modules", "too_much"),
    [
        (
            "data.sources, data.decorations, data.splits, data.prototype_table",
            HEAVY | {"generators", "plotly", "torch_geometric", "smact"},
        ),
        ("generators.crystals.answer", HEAVY - {"chgnet"}),  # seconds of every start, in every process
    ],
)
def test_importing_loads_nothing_heavy(modules: str, too_much: set[str]) -> None:
    done = python(f"import sys, {modules}\nprint(sorted({too_much} & set(sys.modules)))")
    assert done.stdout.strip() == "[]"


def test_importing_data_prints_nothing_and_leaves_the_root_logger_alone() -> None:
    done = python(
        "import logging; before = (logging.root.level, list(logging.root.handlers))\n"
        "import data.sources, data.symmetry\n"
        "assert (logging.root.level, list(logging.root.handlers)) == before"
    )
    assert done.stdout == "" and done.stderr == ""
