"""Where the reference compounds of a hull come from.

Two hulls on the judge's own scale are embedded. `known_hull` holds compounds that exist, relaxed by CHGNet; where only
the formula was at hand, the structure is predicted. It is what published figures of stability count against.
`chgnet_hull` adds hypothetical ones, which CHGNet finds below it: the stricter of the two, and the default.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.decorations import load_decorations
from data.exchanges import load_predicted
from data.orbit_batch import OrbitBatch
from generators.oracles.chgnet_potential import SCALE
from generators.oracles.hull import Fractions, Hull, fractions_of, fractions_of_batch

ENERGY = "formation_energy_per_atom"
EMBEDDED, KNOWN = "embedded", "known"
"""Words that stand for tables of this package where a hull is asked for: everything, or the known compounds only."""
WORDS = (EMBEDDED, KNOWN)
LOWEST = -6.0
"""eV/atom; lower formation energies are wrong labels (the lowest known are near -4.6)."""
FAR_BELOW = -0.3
"""eV/atom; no real compound lies so far below the hull of the known ones: rather an error of the potential."""


def read_hull(paths: Sequence[Path], scale: str) -> Hull:
    """The lower envelope of tables (CSV or Parquet) with the columns ``formula`` and ``formation_energy_per_atom``.

    Args:
        paths: of the tables; the words ``embedded`` and ``known`` stand for what `chgnet_hull` and `known_hull`
            hold.
        scale: the energy scale that all the tables share; nothing in a table can prove it, so it is named here and
            written into every manifest.

    Raises:
        ValueError: missing file or column, a formula that is none, no row that can be used, or a word for CHGNet's
            energies beside another scale.
    """
    words = {EMBEDDED: embedded_compounds, KNOWN: known_compounds}
    for path in paths:
        if str(path) in words and scale != SCALE:
            raise ValueError(f"hull={path}: its energies are on {SCALE!r}, not on {scale!r}; two scales never meet")
    parts = [words[str(path)]() if str(path) in words else _table(path) for path in paths]
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
    return _usable(table.assign(**{ENERGY: pd.to_numeric(table[ENERGY], errors="coerce")}))


def reference_compounds() -> pd.DataFrame:
    """The embedded table of known compounds; made by ``scripts/build_reference_compounds.py``."""
    with as_file(files("data.tables") / "reference_compounds.parquet") as path:
        return pd.read_parquet(path)


def judged_compounds(compounds: pd.DataFrame | None = None) -> pd.DataFrame:
    """`reference_compounds`, or some of them, with the column ``e_above_hull``: CHGNet's energies above the embedded
    hull, eV/atom."""
    if compounds is None:
        compounds = reference_compounds()
    energy = compounds[ENERGY].to_numpy(dtype=np.float64)
    return compounds.assign(
        e_above_hull=chgnet_hull().e_above_hull(fractions_of(compounds["formula"]), energy, SCALE)
    )  # fmt: skip


def known_compounds() -> tuple[Fractions, NDArray[np.float64]]:
    """(shares [N, 119], CHGNet's formation energies [N], eV/atom) of compounds that exist: `reference_compounds`, and
    formulas without a structure at hand in a predicted one (`data.exchanges.load_predicted`)."""
    predicted = load_predicted()
    energy = predicted.properties[ENERGY].numpy()
    return _joined(_usable(reference_compounds()), (fractions_of_batch(predicted.batch), energy))


def competing_compounds() -> tuple[Fractions, NDArray[np.float64]]:
    """Known compounds, and hypothetical ones that make the hull stricter, with CHGNet's formation energies.

    The second are made by ``scripts/build_hull_compounds.py``.
    """
    with as_file(files("data.tables") / "hull_compounds.parquet") as path:
        hypothetical = _usable(pd.read_parquet(path))
    return _joined(known_compounds(), hypothetical)


def embedded_compounds() -> tuple[Fractions, NDArray[np.float64]]:
    """`competing_compounds` and the embedded decorations: everything whose energy this package knows."""
    decorations = load_decorations()
    energy = decorations.properties[ENERGY].double().numpy()
    return _joined(competing_compounds(), (fractions_of_batch(decorations.batch), energy))


def with_decorations(decorations: OrbitBatch, energy: NDArray[np.float64]) -> Hull:
    """The hull of `competing_compounds` and these decorations (formation energies [N], CHGNet)."""
    return Hull(*_joined(competing_compounds(), (fractions_of_batch(decorations), energy)), SCALE)


@lru_cache(maxsize=1)
def chgnet_hull() -> Hull:
    """The hull on the judge's own scale: known and hypothetical compounds and the embedded decorations.

    It holds what was at hand, not all that is known: an energy above it is a lower bound of the energy above the
    hull of everything.
    """
    return Hull(*embedded_compounds(), SCALE)


@lru_cache(maxsize=1)
def known_hull() -> Hull:
    """The hull of the embedded known compounds (and the elements) alone, on the judge's own scale.

    To be set beside published figures: hypothetical compounds do not compete in them either.
    """
    return Hull(*known_compounds(), SCALE)


def _usable(table: pd.DataFrame) -> tuple[Fractions, NDArray[np.float64]]:
    energy = table[ENERGY].to_numpy(dtype=np.float64)
    usable = np.isfinite(energy) & (energy > LOWEST)
    return fractions_of(table["formula"][usable]), energy[usable]


def _joined(*parts: tuple[Fractions, NDArray[np.float64]]) -> tuple[Fractions, NDArray[np.float64]]:
    return np.concatenate([fractions for fractions, _ in parts]), np.concatenate([energy for _, energy in parts])
