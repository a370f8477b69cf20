"""What ``raremat-generate`` gives, before it is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from data.orbit_batch import OrbitBatch


@dataclass(frozen=True, eq=False)
class Answer:
    """What a run gives.

    Attributes:
        candidates: table of the judged candidates, best first (columns in ``docs/outputs.md``).
        rejected: what was dropped, with stage and reason.
        batch: relaxed crystals in the order of ``candidates``.
        summary: content of ``summary.json``.
        judged: per source (raremat and the baselines) everything that the judge saw, in its order.
    """

    candidates: pd.DataFrame
    rejected: pd.DataFrame
    batch: OrbitBatch
    summary: dict[str, Any]
    judged: dict[str, pd.DataFrame]
