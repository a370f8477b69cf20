"""The best by score, without too many of one kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor


def capped(
    score: Tensor, kinds: Sequence[tuple[Sequence[Hashable], int]], n: int, chosen: Sequence[int] = ()
) -> list[int]:
    """``chosen`` and the rows of the highest scores until there are ``n``, not too many of one kind as long as others
    are left.

    Args:
        score: [N].
        kinds: the kind of each row, for instance its elements, and how many rows of one there may be, those chosen
            before included; several such limits hold at once.
        n: rows wanted.
        chosen: rows that come first whatever their score.
    """
    taken, passed = list(chosen), []
    counts = [Counter(kind[row] for row in taken) for kind, _ in kinds]
    inside = set(taken)
    for row in torch.argsort(score, descending=True, stable=True).tolist():
        if len(taken) >= n:
            break
        if row in inside:
            continue
        if all(count[kind[row]] < limit for count, (kind, limit) in zip(counts, kinds, strict=True)):
            for count, (kind, _) in zip(counts, kinds, strict=True):
                count[kind[row]] += 1
            taken.append(row)
        else:
            passed.append(row)
    return (taken + passed)[:n]
