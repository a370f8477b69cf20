"""Encoded crystals of large files, kept: finding symmetry takes minutes for 20,000 structures, reading it seconds."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import data
from data.dataset import CrystalDataset
from data.frames import from_frame, to_frame
from data.sources.rows import Rejected

LEAST_ROWS = 2000
"""Smaller sources are read as fast without."""
_PREFIX = "property:"

Read = tuple[CrystalDataset, list[Rejected]]


def folder() -> Path | None:
    """Where encoded crystals are kept: ``RAREMAT_CACHE``, by default ``~/.cache/raremat``; nowhere if that is empty."""
    named = os.environ.get("RAREMAT_CACHE", "~/.cache/raremat")
    return Path(named).expanduser() / "encoded" if named else None


def fingerprint(path: Path, settings: Sequence[object]) -> str:
    """Of the file's content, how it is read, and the code and libraries that read it."""
    total = hashlib.sha256(repr((settings, _code())).encode())
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()[:32]


def load(key: str) -> Read | None:
    """What was kept under ``key``; None if nothing was, or it cannot be read."""
    where = folder()
    if where is None or not (where / f"{key}.parquet").is_file():
        return None
    try:
        frame = pd.read_parquet(where / f"{key}.parquet")
        rejected = json.loads((where / f"{key}.json").read_text(encoding="utf-8"))
        batch = from_frame(frame)
    except (OSError, ValueError):
        return None
    properties = {
        name.removeprefix(_PREFIX): torch.from_numpy(frame[name].to_numpy(dtype=np.float64, copy=True))
        for name in frame.columns
        if name.startswith(_PREFIX)
    }
    dataset = CrystalDataset(batch, properties, tuple(frame["prototype"]), tuple(frame["id"]))
    return dataset, [Rejected(*row) for row in rejected]


def keep(key: str, dataset: CrystalDataset, rejected: Sequence[Rejected]) -> None:
    """Keep what a large source gave; a folder that cannot be written is no error."""
    where = folder()
    if where is None or len(dataset) + len(rejected) < LEAST_ROWS:
        return
    columns = {_PREFIX + name: values.numpy() for name, values in dataset.properties.items()}
    frame = to_frame(dataset.batch).assign(id=dataset.ids, prototype=dataset.prototype, **columns)
    try:
        where.mkdir(parents=True, exist_ok=True)
        for name in (f"{key}.json", f"{key}.parquet"):  # the table last: with it the entry is complete
            part = where / f".{name}.{os.getpid()}.part"
            if name.endswith(".json"):
                part.write_text(json.dumps([(r.id, r.reason) for r in rejected]), encoding="utf-8")
            else:
                frame.to_parquet(part, index=False, compression="zstd")
            part.replace(where / name)
    except OSError:
        return


@lru_cache(maxsize=1)
def _code() -> str:
    total = hashlib.sha256()
    for path in sorted(Path(data.__file__).parent.rglob("*.py")):
        total.update(path.read_bytes())
    libraries = [version(name) for name in ("moyopy", "pymatgen")]
    return f"{total.hexdigest()} {libraries}"
