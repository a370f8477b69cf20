"""The best by score, without too many of one kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor


def capped(score: Tensor, system: Sequence[Hashable], n: int, limit: int, chosen: Sequence[int] = ()) -> list[int]:
    """``chosen`` and the rows of the highest scores until there are ``n``, at most ``limit`` of one system as long as
    others are left.

    Args:
        score: [N].
        system: of each row, for instance its elements.
        n: rows wanted.
        limit: rows of one system, those chosen before included.
        chosen: rows that come first whatever their score.
    """
    taken, passed = list(chosen), []
    count, inside = Counter(system[row] for row in taken), set(taken)
    for row in torch.argsort(score, descending=True, stable=True).tolist():
        if len(taken) >= n:
            break
        if row in inside:
            continue
        if count[system[row]] < limit:
            count[system[row]] += 1
            taken.append(row)
        else:
            passed.append(row)
    return (taken + passed)[:n]
