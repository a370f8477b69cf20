"""Embedded crystals that were calculated: by ion exchange, predicted for known formulas, and drawn by an earlier model.
Labels are CHGNet's, not DFT's."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from data.dataset import CrystalDataset
from data.frames import CRYSTAL_COLUMNS, from_frame
from data.orbit_batch import OrbitBatch
from data.strain_scale import volume_per_atom

PARENT, LABEL, VOLUME = "parent", "protostructure", "volume_per_atom"
STABLE = 0.05
"""eV/atom above the embedded hull, of the crystals that serve as seeds of new ones."""
ROUNDING = 1e-6
"""Tables hold 32-bit numbers."""


def load_exchanges(path: Path | None = None) -> CrystalDataset:
    """Relaxed hypothetical crystals and their labels, made by ``scripts/build_exchanges.py``; ids name their parents,
    prototypes are protostructure labels, the volume per atom (Å^3) is that of the cell.

    Args:
        path: a table of the same columns; default is the embedded ``data/tables/exchanges.parquet``.

    Raises:
        ValueError: missing file or column.
    """
    if path is None:
        with as_file(files("data.tables") / "exchanges.parquet") as embedded:
            return load_exchanges(embedded)
    if not path.is_file():
        raise ValueError(f"path={str(path)!r}: no such file, make it with scripts/build_exchanges.py")
    frame = pd.read_parquet(path)
    if PARENT not in frame.columns:
        raise ValueError(f"column {PARENT!r} is not in {path.name}: it has {', '.join(frame.columns)}")
    properties = {
        str(name): torch.tensor(frame[name].to_numpy(dtype=np.float64, na_value=np.nan))
        for name in frame.columns
        if name not in CRYSTAL_COLUMNS and pd.api.types.is_numeric_dtype(frame[name])
    }
    batch = from_frame(frame)
    if VOLUME not in properties:
        properties[VOLUME] = volume_per_atom(batch)
    labels = tuple(frame[LABEL].astype(str).tolist()) if LABEL in frame.columns else ("",) * len(frame)
    return CrystalDataset(batch, properties, labels, tuple(frame[PARENT].astype(str).tolist()))


def load_predicted() -> CrystalDataset:
    """Predicted structures of known formulas, made by ``scripts/build_predicted_compounds.py``."""
    with as_file(files("data.tables") / "predicted_compounds.parquet") as embedded:
        return load_exchanges(embedded)


def load_all_exchanges() -> CrystalDataset:
    """`load_exchanges`, and `load_predicted`, whose structures came about in the same way."""
    return CrystalDataset.concatenate([load_exchanges(), load_predicted()])


def stable_exchanges() -> OrbitBatch:
    """Of `load_all_exchanges` those at most `STABLE` above the hull."""
    return _stable(load_all_exchanges())


def stable_chosen() -> OrbitBatch:
    """Of the chosen draws (`load_draws`) those at most `STABLE` above the hull."""
    draws = load_draws(chosen=True)
    if draws is None:
        raise ValueError("task.seed_structures=chosen: none are embedded, make them with scripts/iterate_crystals.py")
    return _stable(draws)


def _stable(dataset: CrystalDataset) -> OrbitBatch:
    return dataset.batch.select((dataset.properties["e_above_hull"] <= STABLE + ROUNDING).nonzero().squeeze(-1))


def load_draws(chosen: bool | None = None) -> CrystalDataset | None:
    """Relaxed crystals of earlier generators; None before there are any.

    They are made by ``scripts/build_draws.py`` and ``scripts/iterate_crystals.py``.

    Args:
        chosen: those that the embedded surrogate chose, or the others; None for all.
    """
    names = {False: ("draws",), True: ("chosen",), None: ("draws", "chosen")}[chosen]
    parts = []
    for name in names:
        with as_file(files("data.tables") / f"{name}.parquet") as embedded:
            if embedded.is_file():
                parts.append(load_exchanges(embedded))
    return CrystalDataset.concatenate(parts) if parts else None
