"""Ion exchange of any crystals, not only of library prototypes: elements replaced by similar ones, cells rescaled."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from data.orbit_batch import OrbitBatch
from generators.screening.atomic_volumes import additive_volume
from generators.screening.ion_exchange import N_ELEMENTS, Similarity, group_neighbours, substitution_weights

_MAX_ROUNDS = 50


def with_elements(batch: OrbitBatch, atomic_number: Tensor) -> OrbitBatch:
    """Other elements [B, K] on the same orbits, the cell scaled by the ratio of the additive volumes."""
    after = batch.replace(atomic_number=atomic_number)
    strain = batch.strain.clone()
    strain[:, 0] += torch.log(additive_volume(after) / additive_volume(batch)).to(strain)
    return after.replace(strain=strain)


def exchange_crystals(
    parents: OrbitBatch,
    generator: torch.Generator,
    elements: Sequence[int] = tuple(range(1, 104)),
    one: float = 0.5,
    temperature: float = 1.0,
    similarity: Similarity = "probability",
) -> tuple[OrbitBatch, Tensor]:
    """One child for each parent that has any: one or several of its elements replaced by similar ones.

    Args:
        parents: [B] crystals.
        elements: those that may come in.
        one: share of children with a single element replaced; in the others each goes with probability one half.
        temperature: of the similarity; above 1 less similar elements come in more often.

    Returns:
        Children, cells rescaled by `atomic_volumes`, and the row of each one's parent.
    """
    table = substitution_weights() if similarity == "probability" else group_neighbours()
    allowed = torch.zeros(N_ELEMENTS, dtype=torch.bool)
    allowed[list(elements)] = True
    weight = (table ** (1 / temperature)) * allowed
    n = len(parents)
    present = torch.zeros(n, N_ELEMENTS, dtype=torch.bool).scatter(1, parents.atomic_number, True)
    present[:, 0] = False
    single = torch.rand(n, 1, generator=generator) < one
    score = torch.rand(n, N_ELEMENTS, generator=generator) * present
    first = torch.zeros_like(present).scatter(1, score.argmax(1, keepdim=True), True)
    several = (torch.rand(n, N_ELEMENTS, generator=generator) < 0.5) & present
    change = torch.where(single, first, several | first)

    mapping = torch.arange(N_ELEMENTS).repeat(n, 1)
    done = torch.zeros(n, dtype=torch.bool)
    possible = weight.sum(1) > 0
    for _ in range(_MAX_ROUNDS):
        rows = (~done).nonzero().squeeze(-1)
        if not len(rows):
            break
        drawn = torch.multinomial(weight + ~possible[:, None], len(rows), replacement=True, generator=generator).T
        trial = torch.where(change[rows], drawn, torch.arange(N_ELEMENTS))
        images = torch.zeros(len(rows), N_ELEMENTS).scatter_add(1, trial, present[rows].float())
        fine = (images.amax(1) == 1) & (possible[None] | ~change[rows]).all(1)
        mapping[rows[fine]] = trial[fine]
        done[rows[fine]] = True
    rows = done.nonzero().squeeze(-1)
    chosen = parents.select(rows)
    return with_elements(chosen, mapping[rows].gather(1, chosen.atomic_number) * chosen.mask), rows
