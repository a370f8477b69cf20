"""An enumerated space of crystals: every one once, found by its elements."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from data.decoration import canonical_elements
from data.prototype_table import PrototypeTable
from generators.element_features import N_STATES


def element_keys(elements: Tensor) -> Tensor:
    """[B] int64, different for different rows of elements [B, K] with K <= 9."""
    base = N_STATES ** torch.arange(elements.shape[1] - 1, -1, -1, dtype=torch.long)
    return (elements.long() * base).sum(-1)


@dataclass(frozen=True, eq=False)
class Space:
    """N crystals on one prototype, in ascending order of their keys.

    Spellings of one crystal (A and B of an elpasolite exchanged) are one entry, the canonical one.

    Attributes:
        table: the prototype, alone in its table.
        elements: [N, K] int16, canonical.
        keys: [N] int64, ascending.
        allowed: [K, 119] bool, elements that occur on each orbit in any spelling.
        distinct: whether no crystal repeats an element.
        spellings: [N] int64, element orders that are the same crystal.
    """

    table: PrototypeTable
    elements: Tensor
    keys: Tensor
    allowed: Tensor
    distinct: bool
    spellings: Tensor

    @classmethod
    def build(cls, table: PrototypeTable, elements: Tensor) -> Space:
        """From elements [M, K] in any spelling, repeated or not.

        Raises:
            ValueError: more than one prototype, more than 9 orbits, or no crystal.
        """
        if len(table) != 1 or elements.shape[1] > 9 or len(elements) == 0:
            raise ValueError(f"space: has {len(table)} prototypes and {tuple(elements.shape)} elements, give one, "
                             "with at most 9 orbits, and at least one crystal")  # fmt: skip
        canonical = canonical_elements(table, torch.zeros(len(elements), dtype=torch.long), elements)
        keys = element_keys(canonical)
        order = torch.argsort(keys, stable=True)
        first = torch.ones(len(order), dtype=torch.bool)
        first[1:] = keys[order][1:] != keys[order][:-1]
        canonical, keys = canonical[order[first]], keys[order[first]]
        orders = torch.tensor(table.prototypes[0].equivalent_orders)
        spelled = torch.stack([element_keys(canonical[:, order]) for order in orders], 1).sort(1).values
        allowed = torch.zeros(elements.shape[1], N_STATES, dtype=torch.bool)
        for spelling in orders:
            for orbit in range(elements.shape[1]):
                allowed[orbit, canonical[:, spelling[orbit]]] = True
        sorted_slots = canonical.sort(1).values
        return cls(
            table=table,
            elements=canonical.to(torch.int16),
            keys=keys,
            allowed=allowed,
            distinct=bool((sorted_slots[:, 1:] != sorted_slots[:, :-1]).all()),
            spellings=1 + (spelled[:, 1:] != spelled[:, :-1]).sum(1),
        )

    def __len__(self) -> int:
        return len(self.keys)

    def at(self, index: Tensor) -> Tensor:
        """[n, K] int64 elements of the crystals at ``index``."""
        return self.elements[index].long()

    def index(self, elements: Tensor) -> Tensor:
        """[n] where each crystal (any spelling) stands, -1 if it is not of this space."""
        row = torch.zeros(len(elements), dtype=torch.long)
        keys = element_keys(canonical_elements(self.table, row, elements.long()))
        place = torch.searchsorted(self.keys, keys).clamp(max=len(self) - 1)
        return torch.where(self.keys[place] == keys, place, torch.full_like(place, -1))

    def uniform(self, n: int, generator: torch.Generator) -> Tensor:
        """[n] indices, uniform over the crystals, with replacement."""
        return torch.randint(len(self), (n,), generator=generator)
