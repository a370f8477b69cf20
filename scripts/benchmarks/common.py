"""What several benchmarks share."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray

from data.decorations import load_decorations
from generators.build import load_generator
from generators.generate import Generation
from generators.generate_settings import GenerateSettings
from generators.oracles.surrogate import SurrogateOracle
from generators.screening.proposals import propose_unique
from generators.shipped import shipped
from generators.wish import Interval, Wish

NAME = "formation_energy_per_atom"


def fit(module: pl.LightningModule, data: pl.LightningDataModule, epochs: int) -> float:
    """Train without logs and checkpoints; seconds."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=epochs, logger=False, enable_checkpointing=False, enable_model_summary=False, accelerator="cpu",
            gradient_clip_val=1.0, num_sanity_val_steps=0, reload_dataloaders_every_n_epochs=1,
            check_val_every_n_epoch=epochs, default_root_dir=folder,
        )  # fmt: skip
        trainer.fit(module, data)
    return time.perf_counter() - start


@dataclass(frozen=True, eq=False)
class Judged:
    """Unscreened samples under one wish: how many hit, and how varied they are."""

    calls: int
    hits: int
    unique: float
    elements: int
    prototypes: int
    values: NDArray[np.float64]

    @property
    def rate(self) -> float:
        """Hits per judge call."""
        return self.hits / max(self.calls, 1)


class Bench:
    """The shipped models and the embedded data."""

    def __init__(self) -> None:
        self.module = load_generator(None)
        self.surrogate = SurrogateOracle.load(shipped("surrogate"))
        self.training = load_decorations()
        self.scale = next(s for s in self.module.scales if s.name == NAME)

    def quantile(self, share: float) -> float:
        """Formation energy below which a share of the training data lies."""
        return float(self.scale.quantile(torch.tensor([share], dtype=torch.float64)))

    def samples(self, intervals: Mapping[str, Interval], guidance: float, calls: int, seed: int) -> Judged:
        """Judge the first ``calls`` unique novel samples, no surrogate in between."""
        settings = GenerateSettings(seed=seed, judge_calls=calls, pool=calls, guidance=guidance)
        with tempfile.TemporaryDirectory() as folder:
            generation = Generation(self.module, self.surrogate, self.training, Wish(intervals), settings, Path(folder))
            propose = generation.sources.model()
            pool = propose_unique(
                propose, generation.table, generation.sources.known, calls, seed, "bench", Path(folder), shard_size=512
            )
            count = pool.counts[0]
            with generation.judge:
                table = generation.judge_pool(pool, generation.predict(pool)[1], "bench")
        hits = table[table["hit"]]
        return Judged(
            calls=len(table),
            hits=len(hits),
            unique=1 - count.reasons.get("duplicate", 0) / count.n_in,
            elements=len({int(z) for zs in hits["atomic_numbers"] for z in zs}),
            prototypes=int(hits["prototype"].nunique()),
            values=table[NAME].to_numpy(dtype=float),
        )
