"""Which judged crystals are still new when they are relaxed: many have more symmetry then than they were drawn with."""

from __future__ import annotations

import numpy as np
import pandas as pd

from data.frames import from_frame
from data.full_symmetry import in_full_symmetry
from data.protostructure import crystal_key, protostructure_label
from generators.screening.crystal_funnel import KnownCrystals

RELAXED_KEY, NOT_NEW = "relaxed_key", "not_new"


def as_relaxed(judged: pd.DataFrame, known: KnownCrystals) -> pd.DataFrame:
    """Judged crystals with ``space_group_relaxed``, ``protostructure_relaxed`` and `RELAXED_KEY` (a crystal key) in all
    the symmetry that they have within 0.1 Å, `NOT_NEW` (text, why it is not new any more) and ``novel`` that says the
    same.

    Args:
        judged: relaxed crystals (`data.frames`) with ``novel`` as drawn.
        known: what is not new.
    """
    crystals = in_full_symmetry(from_frame(judged)) if len(judged) else []
    keys = [crystal_key(crystal) for crystal in crystals]
    reasons = [
        known.reason(key, crystal.space_group, crystal.atomic_numbers) if novel else ""
        for key, crystal, novel in zip(keys, crystals, judged["novel"], strict=True)
    ]
    still = np.array([not reason for reason in reasons], dtype=bool)
    return judged.assign(
        space_group_relaxed=np.array([crystal.space_group for crystal in crystals], dtype=int),
        protostructure_relaxed=np.array([protostructure_label(crystal) for crystal in crystals], dtype=object),
        novel=judged["novel"].to_numpy(dtype=bool) & still,
        **{
            RELAXED_KEY: np.array(keys, dtype=object),
            NOT_NEW: np.array([f"relaxed to a {reason}" if reason else "" for reason in reasons], dtype=object),
        },
    )
