"""The order in which candidates are shown, with what identifies them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from data.dataset import CrystalDataset
from data.orbit_batch import OrbitBatch
from data.protostructure import key_of
from data.prototype_table import PrototypeTable
from generators.judging import judged_batch
from generators.oracles.chgnet_potential import SCALE
from generators.oracles.hull import Hull, fractions_of_batch
from generators.screening.baselines import balanced_flags
from generators.wish import Wish


def depth(table: pd.DataFrame, wish: Wish, spread: Mapping[str, float]) -> NDArray[np.float64]:
    """[N] how far inside the wish each crystal is (negative: outside), summed over properties.

    Args:
        spread: standard deviation of each property in the training data, the unit of depth.
    """
    total = np.zeros(len(table))
    for name, interval in wish.intervals.items():
        x = table[name].to_numpy(dtype=float)
        low = x - interval.low if interval.low is not None else np.full(len(x), np.inf)
        high = interval.high - x if interval.high is not None else np.full(len(x), np.inf)
        total += np.nan_to_num(np.minimum(low, high) / spread[name], nan=-1e6)
    return total


def ranked(
    judged: pd.DataFrame,
    wish: Wish,
    spread: Mapping[str, float],
    table: PrototypeTable,
    training: CrystalDataset,
    compounds: pd.DataFrame,
    hull: Hull,
) -> tuple[pd.DataFrame, OrbitBatch]:
    """Valid crystals, hits first, each part deepest first.

    Args:
        judged: what the judge saw.
        spread: standard deviation of each property in the training data.
        table: the prototypes that were decorated.
        training: what the model was trained on; compounds: what else is known (``crystal_key``).
        hull: on the judge's scale.

    Returns:
        The table (columns in ``docs/outputs.md``) and the relaxed crystals in its order.
    """
    order = np.lexsort((-depth(judged, wish, spread), ~judged["hit"].to_numpy()))
    frame = judged.iloc[order[judged["valid"].to_numpy()[order]]].reset_index(drop=True)
    batch = judged_batch(frame)
    crystals = batch.to_crystals()
    names = dict(zip(table.names, table.prototypes, strict=True))
    frame.insert(0, "rank", np.arange(1, len(frame) + 1))
    frame.insert(0, "id", [f"raremat-{i:05d}" for i in range(1, len(frame) + 1)])
    frame.insert(2, "formula", [c.reduced_formula for c in crystals])
    frame["protostructure"] = [names[p].label for p in frame["prototype"]]
    frame["crystal_key"] = [key_of(c.space_group, c.letters, c.atomic_numbers) for c in crystals]
    # Decorations of the training prototypes were checked before the judge; a user's prototype can repeat one.
    frame["novel"] = ~frame["crystal_key"].isin({*training.keys(), *compounds["crystal_key"]})
    fractions = fractions_of_batch(batch)
    frame["e_above_hull"] = hull.e_above_hull(fractions, frame["formation_energy_per_atom"].to_numpy(), SCALE)
    frame["decomposes_to"] = [" + ".join(parts) for parts in hull.decomposition(fractions)]
    row = torch.tensor([table.names.index(p) for p in frame["prototype"]], dtype=torch.long)
    elements = torch.zeros(len(frame), table.mask.shape[1], dtype=torch.long)
    elements[:, : batch.atomic_number.shape[1]] = batch.atomic_number
    frame["charge_balanced"] = balanced_flags(table, row, elements)
    return frame, batch


def failures(judged: pd.DataFrame) -> pd.DataFrame:
    """Crystals that the judge could not measure, with the reason."""
    failed = judged[~judged["valid"]]
    return pd.DataFrame(
        {
            "stage": "judge",
            "reason": failed["reason"],
            "prototype": failed["prototype"],
            "formula": [c.reduced_formula for c in judged_batch(failed).to_crystals()] if len(failed) else [],
        }
    ).reset_index(drop=True)
