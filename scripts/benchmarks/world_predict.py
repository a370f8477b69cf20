"""``predict=FILE``: what the models say of a table of compositions, for a blind check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pymatgen.core import Element

from generators.sampling.likelihood import log_likelihood
from generators.wish import Wish
from generators.worlds.learner import Learner
from generators.worlds.world import World

SLOTS = {"elpasolite": ("A", "B", "C", "D")} | dict.fromkeys(
    ("perov_5", "perov_5_gap"), ("A", "B", "X_xy", "X_xz", "X_yz")
)


def predict(world: World, learner: Learner, wish: Wish, path: Path) -> dict[str, Any]:
    """Write ``FILE`` with ``_predicted`` appended to its stem: the log-likelihood (nats) of each composition under the
    wish and without any, and the surrogate's mean and standard deviation."""
    if world.name not in SLOTS:
        raise ValueError(f"predict={path}: only for {', '.join(SLOTS)}, not for world {world.name}")
    read = pd.read_csv if path.suffix == ".csv" else pd.read_parquet
    table = read(path)
    missing = [slot for slot in SLOTS[world.name] if slot not in table]
    if missing:
        raise ValueError(f"predict={path}: column {missing[0]!r} is missing, it needs {', '.join(SLOTS[world.name])}")
    numbers = torch.tensor(
        table[list(SLOTS[world.name])].map(lambda symbol: int(Element(symbol).Z)).to_numpy(dtype="int64")
    )
    elements = numbers[:, list(world.space.table.prototypes[0].species)]
    outside = (world.space.index(elements) < 0).sum()
    assert learner.surrogate is not None
    mean, std = learner.surrogate.predict(elements)
    table["log_likelihood_wish"] = log_likelihood(learner.sampler(wish), elements).numpy()
    table["log_likelihood"] = log_likelihood(learner.sampler(Wish({})), elements).numpy()
    for p, name in enumerate(world.properties):
        table[f"{name}_surrogate"], table[f"{name}_surrogate_std"] = mean[:, p].numpy(), std[:, p].numpy()
    out = path.with_name(f"{path.stem}_predicted{path.suffix}")
    if path.suffix == ".csv":
        table.to_csv(out, index=False)
    else:
        table.to_parquet(out, index=False)
    return {"predicted": len(table), "outside_the_space": int(outside), "wish": wish.describe(), "file": str(out)}
