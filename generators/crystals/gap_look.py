"""Band gaps of crystals that are not relaxed yet, by the network that will judge them: it costs no relaxation.

Relaxation moves gaps: where the volume changes by more than 2 %, most leave a narrow wish. So the likeliest crystals
are seen in several geometries, as they were drawn and as the model of whole crystals would place their atoms and cell.
A gap that is the same in all of them will most likely stay.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor

from data.frames import from_frame
from data.orbit_batch import OrbitBatch
from generators.crystals.judging import GAP
from generators.oracles.base import Oracle
from generators.oracles.hit_probability import log_inside
from generators.wish import Interval

DRAWN_GAP, REDRAWN_GAPS = "band_gap_as_drawn", "band_gaps_redrawn"
NOISE = (0.02, 0.02, 0.05, 0.05)
"""Time from which each of the other geometries is drawn."""
WIDTHS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
FIRST_WIDTH, FIRST_WEIGHT = 0.15, 5.0
"""eV, and what the first guess counts for in answers of the judge."""
Redraw = Callable[[OrbitBatch, float, torch.Generator], OrbitBatch]
"""Crystals with atoms and cell placed anew, starting from a little noise."""


class GapLook:
    """What the judge's network says of crystals that are not relaxed.

    Args:
        network: gives `GAP` (eV).
        redraw: of the geometry.
    """

    def __init__(self, network: Oracle, redraw: Redraw) -> None:
        self._network, self._redraw = network, redraw
        self._drawn: dict[str, float] = {}

    def as_drawn(self, table: pd.DataFrame) -> Tensor:
        """[B, 1] eV; no crystal is asked about twice."""
        new = table[~table["id"].isin(self._drawn.keys())]
        if len(new):
            self._drawn.update(zip(new["id"], self._gaps(from_frame(new)).tolist(), strict=True))
        return torch.tensor([self._drawn[name] for name in table["id"]], dtype=torch.float64)[:, None]

    def redrawn(self, table: pd.DataFrame, generator: torch.Generator) -> Tensor:
        """[B, 1 + R] eV, as drawn and in R other geometries."""
        batch = from_frame(table)
        others = [self._gaps(self._redraw(batch, noise, generator)) for noise in NOISE]
        return torch.cat([self.as_drawn(table), torch.stack(others, 1)], 1)

    def _gaps(self, batch: OrbitBatch) -> Tensor:
        return self._network.evaluate(batch).values[GAP].double()


def log_gap_inside(gaps: Tensor, width: float, interval: Interval) -> Tensor:
    """[B] that the relaxed gap lies in the interval: the mean over geometries of normals of ``width`` (eV) around each.

    Args:
        gaps: [B, R] eV, NaN where the network has no answer.
    """
    inside = log_inside(gaps, torch.full_like(gaps, width), interval)
    known = torch.isfinite(gaps)
    total = torch.logsumexp(inside.masked_fill(~known, -torch.inf), 1)
    return total - known.sum(1).clamp(min=1).log()


def gap_width(gaps: Tensor, relaxed: Tensor, interval: Interval) -> float:
    """The width (eV, of `WIDTHS`) under which the answers of the judge, inside or outside, were likeliest.

    Changes of gaps have heavy tails, so that their mean square says nothing of how many stay inside.

    Args:
        gaps: [N, R] eV of judged crystals before the relaxation.
        relaxed: [N] eV after it.
    """
    rows = torch.isfinite(relaxed) & torch.isfinite(gaps).any(1)
    gaps, relaxed = gaps[rows], relaxed[rows]
    hit = torch.ones_like(relaxed, dtype=torch.bool)
    if interval.low is not None:
        hit &= relaxed >= interval.low
    if interval.high is not None:
        hit &= relaxed <= interval.high
    scores = []
    for width in WIDTHS:
        p = log_gap_inside(gaps, width, interval).exp().clamp(1e-3, 1 - 1e-3)
        first = -FIRST_WEIGHT * math.log(width / FIRST_WIDTH) ** 2 / 2
        scores.append(first + float(torch.where(hit, p.log(), (-p).log1p()).sum()))
    return WIDTHS[max(range(len(WIDTHS)), key=scores.__getitem__)]
