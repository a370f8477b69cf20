"""A pool of proposed decorations, and the record of what was dropped from it and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.decoration import decoration_codes
from data.prototype_table import PrototypeTable


@dataclass(frozen=True)
class StageCount:
    """What one stage of the funnel did."""

    stage: str
    n_in: int
    n_out: int
    reasons: dict[str, int]
    seconds: float = 0.0

    def as_row(self) -> dict[str, object]:
        """For ``summary.json``."""
        return {
            "stage": self.stage,
            "in": self.n_in,
            "out": self.n_out,
            "reasons": self.reasons,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, eq=False)
class Pool:
    """N proposed decorations in the order in which they were proposed.

    Attributes:
        table: prototypes.
        row: [N] row of each in the table.
        elements: [N, K] atomic numbers, 0 where padded.
        origin: [N] running number of the proposal.
        counts: what the stages so far have dropped.
    """

    table: PrototypeTable
    row: Tensor
    elements: Tensor
    origin: Tensor
    counts: tuple[StageCount, ...] = field(default_factory=tuple)

    def __len__(self) -> int:
        return len(self.row)

    @property
    def codes(self) -> NDArray[np.void]:
        """[N] decoration codes (`data.decoration`)."""
        return decoration_codes(self.table, self.row, self.elements)

    def select(self, rows: Tensor) -> Pool:
        """The proposals at ``rows``, in that order."""
        return replace(self, row=self.row[rows], elements=self.elements[rows], origin=self.origin[rows])

    def keep(self, stage: str, reasons: list[str], seconds: float = 0.0) -> tuple[Pool, list[str]]:
        """Drop every proposal with a non-empty reason; returns the rest and the reasons of the dropped."""
        kept = torch.tensor([not reason for reason in reasons], dtype=torch.bool)
        dropped = Counter(reason for reason in reasons if reason)
        count = StageCount(stage, len(self), int(kept.sum()), dict(dropped.most_common()), seconds)
        return replace(self.select(kept), counts=(*self.counts, count)), [r for r in reasons if r]


def duplicate_reasons(codes: NDArray[np.void], known: NDArray[np.void]) -> list[str]:
    """Per proposal: ``"duplicate"`` if an earlier one is the same crystal, ``"in the training data"`` if
    ``known`` holds it, else empty."""
    _, first = np.unique(codes, return_index=True)
    is_first = np.zeros(len(codes), dtype=bool)
    is_first[first] = True
    in_training = np.isin(codes, known)
    return [
        "in the training data" if old else ("" if new else "duplicate")
        for new, old in zip(is_first, in_training, strict=True)
    ]
