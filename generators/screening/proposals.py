"""Unique, new proposals from any source, in shards that can be resumed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.decoration import canonical_elements, decoration_codes
from data.prototype_table import PrototypeTable
from generators.judging import write_parquet
from generators.screening.pool import Pool, StageCount, duplicate_reasons

Propose = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]
"""(number, generator) -> rows of the table [n], elements [n, K]."""


def shard_seed(seed: int, source: str, shard: int) -> int:
    """Seed of one shard: the same whatever the number of workers or restarts."""
    text = f"{seed}:{source}:{shard}".encode()
    import hashlib

    return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "big")


def propose_unique(
    propose: Propose,
    table: PrototypeTable,
    known: NDArray[np.void],
    wanted: int,
    seed: int,
    source: str,
    folder: Path,
    shard_size: int = 1024,
    max_shards: int = 200,
    progress: Callable[[int, int], None] | None = None,
) -> Pool:
    """Propose shard after shard until ``wanted`` crystals are unique and not among ``known``.

    Each shard is written to ``folder/SOURCE-00012.parquet`` when it is drawn; a run that was killed reads
    what is there and goes on. Stops early when three shards in a row bring less than 1 % new crystals.

    Args:
        known: decoration codes of what is not novel.
        progress: called with (new so far, drawn so far).

    Returns:
        At most ``wanted`` proposals, in the order drawn, with the counts of what was dropped.
    """
    width = table.mask.shape[1]
    rows: list[Tensor] = []
    elements: list[Tensor] = []
    seen = known
    reasons: Counter[str] = Counter()
    n_drawn = n_kept = dry = 0
    seconds = 0.0
    for shard in range(max_shards):
        path = folder / f"{source}-{shard:05d}.parquet"
        if path.exists():
            row, drawn, spent = _read(path, width)
        else:
            start = time.process_time()
            generator = torch.Generator().manual_seed(shard_seed(seed, source, shard))
            row, drawn = propose(shard_size, generator)
            drawn = canonical_elements(table, row, drawn)
            spent = time.process_time() - start
            _write(path, row, drawn, spent)
        codes = decoration_codes(table, row, drawn)
        why = duplicate_reasons(codes, known)
        again = np.isin(codes, seen)
        why = [w or ("duplicate" if a else "") for w, a in zip(why, again, strict=True)]
        keep = torch.tensor([not w for w in why])
        reasons.update(w for w in why if w)
        n_drawn += len(row)
        n_kept += int(keep.sum())
        seconds += spent
        rows.append(row[keep])
        elements.append(drawn[keep])
        seen = np.concatenate([seen, codes[keep.numpy()]])
        if progress is not None:
            progress(n_kept, n_drawn)
        dry = dry + 1 if int(keep.sum()) < 0.01 * len(row) else 0
        if n_kept >= wanted or dry >= 3:
            break
    count = StageCount("unique and novel", n_drawn, n_kept, dict(reasons), seconds)
    row, drawn = torch.cat(rows)[:wanted], torch.cat(elements)[:wanted]
    return Pool(table, row, drawn, torch.arange(len(row)), (count,))


def _write(path: Path, row: Tensor, elements: Tensor, seconds: float) -> None:
    frame = pd.DataFrame({"row": row.numpy(), "elements": list(elements.to(torch.int16).numpy()), "seconds": seconds})
    write_parquet(frame, path)


def _read(path: Path, width: int) -> tuple[Tensor, Tensor, float]:
    frame = pd.read_parquet(path)
    elements = torch.from_numpy(np.stack(frame["elements"].tolist()).astype(np.int64))
    if elements.shape[1] != width:
        raise ValueError(f"{path}: was drawn for other prototypes, choose another run folder or remove it")
    return torch.from_numpy(frame["row"].to_numpy().copy()), elements, float(frame["seconds"].iloc[0])
