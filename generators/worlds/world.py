"""A world: a space, what its judge says of every crystal, and what may be learnt from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from generators.wish import Interval, Wish
from generators.worlds.space import Space


@dataclass(frozen=True, eq=False)
class World:
    """One benchmark world.

    Attributes:
        name: of the world.
        space: every crystal of it.
        truth: per property [N], what the judge says; NaN where nobody knows.
        train_index: [n] crystals whose labels may be learnt from; train_labels: per property [n], NaN where unknown.
        targets: wishes by a short name.
        judge: who says the truth, one line for tables.
    """

    name: str
    space: Space
    truth: Mapping[str, Tensor]
    train_index: Tensor
    train_labels: Mapping[str, Tensor]
    targets: Mapping[str, Wish]
    judge: str

    @property
    def properties(self) -> tuple[str, ...]:
        """Names of the judged properties."""
        return tuple(self.truth)

    def known(self, wish: Wish) -> Tensor:
        """[N] bool: the judge knows every property of the wish."""
        return torch.stack([~torch.isnan(self.truth[name]) for name in wish.intervals]).all(0)

    def hits(self, wish: Wish) -> Tensor:
        """[N] bool: crystals that fulfil ``wish``."""
        return wish.hits(self.truth)


def below(name: str, *highs: float) -> dict[str, Wish]:
    """Wishes ``name < high`` by their text."""
    return {f"{name} < {high:g}": Wish({name: Interval(None, high)}) for high in highs}


def first_labels(labels: Tensor, n: int | None, seed: int) -> Tensor:
    """[n] rows of labels, drawn at random without replacement; all in order for None. A larger n contains a smaller."""
    if n is None:
        return torch.arange(len(labels))
    if not 1 <= n <= len(labels):
        raise ValueError(f"labels={n}: there are {len(labels)}, give a number between 1 and that")
    return torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))[:n]
