"""Where the reference compounds of a hull come from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.decorations import load_decorations
from data.orbit_batch import OrbitBatch
from generators.oracles.chgnet_potential import SCALE
from generators.oracles.hull import Fractions, Hull, fractions_of, fractions_of_batch

ENERGY = "formation_energy_per_atom"
EMBEDDED = "embedded"
LOWEST = -6.0
"""eV/atom; lower formation energies are wrong labels (the lowest known are near -4.6)."""


def read_hull(paths: Sequence[Path], scale: str) -> Hull:
    """The lower envelope of tables (CSV or Parquet) with the columns ``formula`` and ``formation_energy_per_atom``.

    Args:
        paths: of the tables; the word ``embedded`` stands for `competing_compounds`.
        scale: the energy scale that all the tables share; nothing in a table can prove it, so it is named here and
            written into every manifest.

    Raises:
        ValueError: missing file or column, a formula that is none, or no row that can be used.
    """
    parts = [competing_compounds() if str(path) == EMBEDDED else _table(path) for path in paths]
    fractions, energy = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    if not len(energy):
        raise ValueError(f"hull: no usable {ENERGY} in {', '.join(path.name for path in paths)}")
    return Hull(fractions, energy, scale)


def _table(path: Path) -> tuple[Fractions, NDArray[np.float64]]:
    if not path.is_file():
        raise ValueError(f"hull={str(path)!r}: no such file")
    if path.suffix not in (".csv", ".parquet"):
        raise ValueError(f"hull={str(path)!r}: must be a CSV or Parquet table")
    table = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    missing = [name for name in ("formula", ENERGY) if name not in table.columns]
    if missing:
        raise ValueError(f"hull: column {missing[0]!r} is not in {path.name}, it has {', '.join(table.columns)}")
    energy = pd.to_numeric(table[ENERGY], errors="coerce").to_numpy(dtype=np.float64)
    usable = np.isfinite(energy) & (energy > LOWEST)
    return fractions_of(table["formula"][usable]), energy[usable]


def reference_compounds() -> pd.DataFrame:
    """The embedded table of known compounds; made by ``scripts/build_reference_compounds.py``."""
    with as_file(files("data.tables") / "reference_compounds.parquet") as path:
        return pd.read_parquet(path)


def competing_compounds() -> tuple[Fractions, NDArray[np.float64]]:
    """Known compounds, and hypothetical ones that make the hull stricter, with CHGNet's formation energies.

    The second are made by ``scripts/build_hull_compounds.py``.
    """
    with as_file(files("data.tables") / "hull_compounds.parquet") as path:
        tables = [reference_compounds(), pd.read_parquet(path)]
    fractions = np.concatenate([fractions_of(table["formula"]) for table in tables])
    energy = np.concatenate([table[ENERGY].to_numpy(dtype=np.float64) for table in tables])
    usable = np.isfinite(energy) & (energy > LOWEST)
    return fractions[usable], energy[usable]


def with_decorations(decorations: OrbitBatch, energy: NDArray[np.float64]) -> Hull:
    """The hull of `competing_compounds` and these decorations (formation energies [N], CHGNet)."""
    fractions, energies = competing_compounds()
    return Hull(
        np.concatenate([fractions, fractions_of_batch(decorations)]), np.concatenate([energies, energy]), SCALE
    )  # fmt: skip


@lru_cache(maxsize=1)
def known_hull() -> Hull:
    """The hull of the embedded known compounds alone, on the judge's own scale."""
    table = reference_compounds()
    energy = table[ENERGY].to_numpy(dtype=np.float64)
    usable = np.isfinite(energy) & (energy > LOWEST)
    return Hull(fractions_of(table["formula"][usable]), energy[usable], SCALE)


@lru_cache(maxsize=1)
def chgnet_hull() -> Hull:
    """The hull on the judge's own scale: known and hypothetical compounds and the embedded decorations.

    It holds what was at hand, not all that is known: an energy above it is a lower bound of the energy above the
    hull of everything.
    """
    decorations = load_decorations()
    return with_decorations(decorations.batch, decorations.properties[ENERGY].double().numpy())
