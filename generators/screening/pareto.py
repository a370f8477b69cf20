"""Several properties wished for at once: which crystals nothing else beats in all of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from generators.wish import Wish

CHUNK = 1024


def objectives(wish: Wish, values: Mapping[str, Tensor]) -> Tensor:
    """[n, P] one objective per property of the wish, smaller is better, from values [n] by name in their units.

    An interval that is open below is wished small, one that is open above large, a closed one near its middle.

    Raises:
        ValueError: the wish names no property.
    """
    if not wish.intervals:
        raise ValueError("wish: names no property, a front needs at least one")
    columns = []
    for name, interval in wish.intervals.items():
        value = values[name].double()
        if interval.low is None:
            columns.append(value)
        elif interval.high is None:
            columns.append(-value)
        else:
            columns.append((value - (interval.low + interval.high) / 2).abs())
    return torch.stack(columns, 1)


def non_dominated(objective: Tensor) -> Tensor:
    """[n] bool: no other row of ``objective`` [n, P] is as small everywhere and smaller somewhere. Equal rows keep each
    other; a row with NaN is never on the front and beats none."""
    known = ~torch.isnan(objective).any(1)
    front = known.clone()
    rows = known.nonzero().squeeze(1)
    rivals = objective[rows]
    for part in rows.split(CHUNK):
        mine = objective[part][:, None]
        beaten = ((rivals <= mine).all(-1) & (rivals < mine).any(-1)).any(1)
        front[part] = ~beaten
    return front
