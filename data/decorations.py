"""The embedded set of decorated prototypes. Its labels are CHGNet's, not DFT's."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from data.dataset import CrystalDataset
from data.orbit_batch import OrbitBatch
from data.prototypes import Prototype, PrototypeLibrary, prototype_library
from data.wyckoff import wyckoff_table

GEOMETRY_COLUMNS = ("prototype", "atomic_numbers", "coordinates", "strain")
EFFORT_COLUMN = "judge_evaluations"


def load_decorations(path: Path | None = None, library: PrototypeLibrary | None = None) -> CrystalDataset:
    """Relaxed decorations and their labels, made by ``scripts/build_decorations.py``.

    Args:
        path: a table of the same columns; default is the embedded ``data/tables/decorations.parquet``.
        library: where its prototypes are found; default is the embedded one.

    Raises:
        ValueError: missing file or column, unknown prototype, or rows that do not fit their prototype.
    """
    if path is None:
        with as_file(files("data.tables") / "decorations.parquet") as embedded:
            return load_decorations(embedded, library)
    if not path.is_file():
        raise ValueError(f"path={str(path)!r}: no such file, make it with scripts/build_decorations.py")
    frame = pd.read_parquet(path)
    missing = [name for name in GEOMETRY_COLUMNS if name not in frame.columns]
    if missing:
        raise ValueError(f"column {missing[0]!r} is not in {path.name}: it has {', '.join(frame.columns)}")
    library = library or prototype_library()
    names = frame["prototype"].astype(str).to_numpy()
    properties = {
        str(name): torch.tensor(frame[name].to_numpy(dtype=np.float64, na_value=np.nan))
        for name in frame.columns
        if name not in (*GEOMETRY_COLUMNS, EFFORT_COLUMN) and pd.api.types.is_numeric_dtype(frame[name])
    }
    return CrystalDataset(
        batch=_batch(frame, [(name, library.get(name)) for name in dict.fromkeys(names.tolist())]),
        properties=properties,
        prototype=tuple(names.tolist()),
        ids=tuple(str(i) for i in range(len(frame))),
    )


def _batch(frame: pd.DataFrame, prototypes: list[tuple[str, Prototype]]) -> OrbitBatch:
    table = wyckoff_table()
    b, k = len(frame), max((len(p.letters) for _, p in prototypes), default=1)
    space_group = torch.zeros(b, dtype=torch.long)
    position = torch.zeros(b, k, dtype=torch.long)
    atomic_number = torch.zeros(b, k, dtype=torch.long)
    coordinates = torch.zeros(b, k, 3, dtype=torch.float64)
    mask = torch.zeros(b, k, dtype=torch.bool)
    names = frame["prototype"].astype(str).to_numpy()
    for name, prototype in prototypes:
        rows = np.flatnonzero(names == name)
        n, index = len(prototype.letters), torch.from_numpy(rows)
        space_group[index] = prototype.space_group
        position[index, :n] = torch.tensor([table.index(prototype.space_group, x) for x in prototype.letters])
        atomic_number[index, :n] = _stack(frame, "atomic_numbers", name, rows, n).long()
        coordinates[index, :n] = _stack(frame, "coordinates", name, rows, 3 * n).reshape(-1, n, 3)
        mask[index, :n] = True
    every = np.arange(b)
    return OrbitBatch(
        space_group=space_group,
        position=position,
        atomic_number=atomic_number,
        coordinates=coordinates,
        strain=_stack(frame, "strain", "any", every, 6),
        mask=mask,
    )


def _stack(frame: pd.DataFrame, column: str, prototype: str, rows: np.ndarray, width: int) -> Tensor:
    values = frame[column].to_numpy()[rows]
    bad = next((row for row, value in zip(rows, values, strict=True) if len(value) != width), None)
    if bad is not None:
        raise ValueError(
            f"{column} of row {bad}: has {len(frame[column].iloc[bad])} numbers, prototype {prototype} needs {width}"
        )
    return torch.from_numpy(np.stack(values).astype(np.float64))
