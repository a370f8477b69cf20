"""What samples are worth in a world where every hit is known."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from generators.wish import Wish
from generators.worlds.world import World


@dataclass(frozen=True)
class Score:
    """Figures of n samples.

    Attributes:
        samples: n; judged: those whose truth is known (all, in a world that is known everywhere).
        precision: share of the judged samples, repeated ones too, that hit.
        unique_precision: the same among different crystals.
        coverage: share of all existing hits that are among the samples.
        spelling_coverage: the same where every element order counts as an object of its own (never larger).
        unique: share of different crystals among the samples.
        novel_hits: share of the different hits that were not in the training labels.
        elements: number of elements that occur in hits.
    """

    samples: int
    judged: int
    precision: float
    unique_precision: float
    coverage: float
    spelling_coverage: float
    unique: float
    novel_hits: float
    elements: int

    def as_row(self) -> dict[str, float]:
        """Plain, rounded."""
        return {k: round(v, 5) if isinstance(v, float) else v for k, v in asdict(self).items()}


def score_samples(world: World, wish: Wish, elements: Tensor, learnt: Tensor | None = None) -> Score:
    """Score elements [n, K]; what is outside the space is a miss.

    Args:
        learnt: indices of the crystals that were learnt from; the world's training labels by default.
    """
    index = world.space.index(elements)
    inside = index >= 0
    hits, known = world.hits(wish), world.known(wish)
    judged = ~inside | known[index.clamp(min=0)]
    hit = inside & hits[index.clamp(min=0)]
    found = torch.unique(index[hit])
    different = torch.unique(index[judged & inside])
    spelled = torch.unique(elements[hit], dim=0)
    existing = max(int(hits.sum()), 1)
    learnt = world.train_index if learnt is None else learnt
    return Score(
        samples=len(elements),
        judged=int(judged.sum()),
        precision=float(hit.sum()) / max(int(judged.sum()), 1),
        unique_precision=len(found) / max(len(different), 1),
        coverage=len(found) / existing,
        spelling_coverage=len(spelled) / max(int(world.space.spellings[hits].sum()), 1),
        unique=len(torch.unique(index)) / max(len(elements), 1),
        novel_hits=float((~torch.isin(found, learnt)).double().mean()) if len(found) else 0.0,
        elements=len(torch.unique(elements[hit])),
    )
