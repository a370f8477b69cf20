"""What people do without a generator: the proposals that every report shows beside raremat's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from data.prototype_table import PrototypeTable
from generators.screening.charge_balance import charge_balanced

SOURCES = {
    "raremat": "raremat",
    "surrogate_screening": "random, screened by the surrogate",
    "ion_exchange": "ion exchange of known compounds",
    "ion_exchange_group": "ion exchange within groups",
    "random_charge_balanced": "random, charge-balanced",
    "random": "random",
}
"""Where proposals come from, best first as a rule, with labels for tables."""


def random_decorations(
    table: PrototypeTable, rows: Tensor, elements: Sequence[int], n: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """``n`` decorations: prototype uniform among ``rows`` of the table, elements uniform, different on
    different species slots.

    Returns:
        Rows [n] and atomic numbers [n, K], 0 where padded.

    Raises:
        ValueError: fewer elements than a prototype has slots.
    """
    is_leader = table.is_leader
    most = int(is_leader[rows].sum(-1).max())
    if len(elements) < most:
        raise ValueError(f"elements: {len(elements)} given, a prototype has {most} different sites")
    row = rows[torch.randint(len(rows), (n,), generator=generator)]
    k = table.mask.shape[1]
    shuffled = torch.rand(n, len(elements), generator=generator).topk(min(k, len(elements)), dim=1).indices
    pool = torch.as_tensor(list(elements))[shuffled]
    slot = torch.cumsum(is_leader.long(), 1) - 1
    slot_of_orbit = slot.gather(1, table.leader)[row]
    drawn = pool.gather(1, slot_of_orbit.clamp(0, pool.shape[1] - 1))
    return row, torch.where(table.mask[row], drawn, torch.zeros_like(drawn))


def balanced_flags(table: PrototypeTable, row: Tensor, elements: Tensor) -> list[bool]:
    """SMACT charge balance of each decoration."""
    multiplicities = table.multiplicity[row].tolist()
    numbers, masks = elements.tolist(), table.mask[row].tolist()
    return [
        charge_balanced(
            [z for z, on in zip(z_row, mask, strict=True) if on],
            [m for m, on in zip(m_row, mask, strict=True) if on],
        )
        for z_row, m_row, mask in zip(numbers, multiplicities, masks, strict=True)
    ]


def random_balanced_decorations(
    table: PrototypeTable, rows: Tensor, elements: Sequence[int], n: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """`random_decorations` among those that SMACT calls charge-balanced.

    Raises:
        ValueError: almost nothing is balanced among these elements.
    """
    kept_rows: list[Tensor] = []
    kept_elements: list[Tensor] = []
    total = tried = 0
    while total < n:
        row, drawn = random_decorations(table, rows, elements, max(n, 200), generator)
        keep = torch.from_numpy(np.array(balanced_flags(table, row, drawn)))
        kept_rows.append(row[keep])
        kept_elements.append(drawn[keep])
        total += int(keep.sum())
        tried += len(row)
        if tried >= 50_000 and total < n * tried / 1_000_000:
            raise ValueError("elements: hardly any decoration of these elements is charge-balanced, allow more")
    return torch.cat(kept_rows)[:n], torch.cat(kept_elements)[:n]
