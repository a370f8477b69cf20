"""Ion exchange: known compounds with some elements replaced by similar ones, the strongest of the plain methods.

Szymanski and Bartel (Mater. Horiz. 2025, doi:10.1039/D5MH00010F) found it hard to beat by generative models.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import pandas as pd
import torch
from pymatgen.core import Element
from torch import Tensor

from data.protostructure import label_of, letter_images
from data.prototype_table import PrototypeTable

Similarity = Literal["probability", "group"]
N_ELEMENTS = 119
_MAX_ROUNDS = 200


@lru_cache(maxsize=1)
def group_neighbours() -> Tensor:
    """[119, 119] weight 1 for elements next to each other in one group, or next to each other in the f block."""
    weight = torch.zeros(N_ELEMENTS, N_ELEMENTS, dtype=torch.float64)
    elements = [Element.from_Z(z) for z in range(1, 104)]
    for a in elements:
        for b in elements:
            if a == b:
                continue
            if a.is_lanthanoid or a.is_actinoid or b.is_lanthanoid or b.is_actinoid:
                near = (a.is_lanthanoid and b.is_lanthanoid) or (a.is_actinoid and b.is_actinoid)
                near = near and abs(a.Z - b.Z) <= 2
            else:
                near = a.group == b.group and abs(a.row - b.row) == 1
            weight[a.Z, b.Z] = float(near)
    return weight


@lru_cache(maxsize=1)
def substitution_weights() -> Tensor:
    """[119, 119] pymatgen's substitution probabilities, P(b for a), for ions of one charge; the largest over charges.

    Mined from the ICSD (Hautier et al., Inorg. Chem. 50, 656 (2011)). Elements without entry take their group
    neighbours.
    """
    from pymatgen.analysis.structure_prediction.substitution_probability import SubstitutionProbability

    model = SubstitutionProbability()
    weight = torch.zeros(N_ELEMENTS, N_ELEMENTS, dtype=torch.float64)
    by_charge: dict[float, list[object]] = {}
    for species in sorted(model.species, key=str):
        by_charge.setdefault(float(species.oxi_state), []).append(species)
    for group in by_charge.values():
        for a in group:
            for b in group:
                za, zb = int(a.Z), int(b.Z)  # type: ignore[attr-defined]
                if za != zb:
                    weight[za, zb] = max(float(weight[za, zb]), float(model.cond_prob(b, a)))
    empty = weight.sum(1) == 0
    weight[empty] = group_neighbours()[empty]
    return weight


def elements_from_key(table: PrototypeTable, row: int, key: str) -> list[int] | None:
    """Elements on the orbits of a prototype of the table for a crystal key (`data.protostructure.crystal_key`).

    None if the key is of another prototype. Where several orbits share a letter their order is not known; any that
    fits the species is taken.
    """
    prototype = table.prototypes[row]
    group, _, sites = key.partition("|")
    if int(group) != prototype.space_group:
        return None
    wanted = sorted((x.partition(":")[0], int(Element(x.partition(":")[2]).Z)) for x in sites.split())
    for spelling in letter_images(prototype.space_group, prototype.letters):
        if sorted(spelling) != [letter for letter, _ in wanted]:
            continue
        rest = list(wanted)
        found: list[int] = []
        slots: dict[int, int] = {}
        for letter, slot in zip(spelling, prototype.species, strict=True):
            options = [i for i, (x, z) in enumerate(rest) if x == letter and slots.get(slot, z) == z]
            if not options:
                break
            slots[slot] = rest[options[0]][1]
            found.append(rest.pop(options[0])[1])
        if len(found) == len(spelling) and len(set(slots.values())) == len(slots):
            return found
    return None


def known_decorations(table: PrototypeTable, rows: Tensor, compounds: pd.DataFrame) -> tuple[Tensor, Tensor, Tensor]:
    """Known compounds that are decorations of the table's prototypes.

    Args:
        compounds: with the columns ``protostructure`` and ``crystal_key``.

    Returns:
        Rows of the table [N], elements [N, K], and rows of ``compounds`` [N].
    """
    width = table.mask.shape[1]
    row_of: dict[str, int] = {}
    for row in rows.tolist():
        prototype = table.prototypes[row]
        row_of.setdefault(label_of(prototype.space_group, prototype.letters, prototype.species), row)
    found_rows, found_elements, index = [], [], []
    for i, (label, key) in enumerate(zip(compounds["protostructure"], compounds["crystal_key"], strict=True)):
        if label in row_of and (elements := elements_from_key(table, row_of[label], key)) is not None:
            found_rows.append(row_of[label])
            found_elements.append(elements + [0] * (width - len(elements)))
            index.append(i)
    return (
        torch.tensor(found_rows, dtype=torch.long),
        torch.tensor(found_elements, dtype=torch.long).reshape(-1, width),
        torch.tensor(index, dtype=torch.long),
    )


def exchanged(
    table: PrototypeTable,
    parents: tuple[Tensor, Tensor],
    elements: Sequence[int],
    n: int,
    generator: torch.Generator,
    similarity: Similarity = "probability",
) -> tuple[Tensor, Tensor]:
    """``n`` decorations: a parent at random, one or more of its elements replaced by similar ones.

    Args:
        parents: rows of the table [P] and elements [P, K] of known compounds.
        elements: those that may occur in what is proposed.

    Returns:
        Rows [n] and elements [n, K].

    Raises:
        ValueError: no parents, or nothing similar among ``elements``.
    """
    if len(parents[0]) == 0:
        raise ValueError("ion exchange: no known compound has one of these prototypes")
    weight = (substitution_weights() if similarity == "probability" else group_neighbours()).clone()
    allowed = torch.zeros(N_ELEMENTS, dtype=torch.bool)
    allowed[list(elements)] = True
    weight[:, ~allowed] = 0
    rows, decorations = [], []
    total = 0
    for _ in range(_MAX_ROUNDS):
        chosen = torch.randint(len(parents[0]), (max(n, 64),), generator=generator)
        row, drawn = parents[0][chosen], _exchange(table, parents[0][chosen], parents[1][chosen], weight, generator)
        good = _different(table, row, drawn) & (allowed[drawn] | ~table.mask[row]).all(1)
        rows.append(row[good])
        decorations.append(drawn[good])
        total += int(good.sum())
        if total >= n:
            return torch.cat(rows)[:n], torch.cat(decorations)[:n]
    raise ValueError("ion exchange: the allowed elements do not resemble those of known compounds, allow more")


def _exchange(table: PrototypeTable, row: Tensor, before: Tensor, weight: Tensor, generator: torch.Generator) -> Tensor:
    """Each species goes with probability one half, at least one, and always where it has to."""
    is_leader = table.is_leader[row]
    change = (torch.rand(before.shape, generator=generator) < 0.5) & is_leader
    one = (torch.rand(before.shape, generator=generator) * is_leader).argmax(1)
    change[torch.arange(len(row)), one] |= ~change.any(1)
    rates = weight[before]
    rates[..., 0] += rates.sum(-1) == 0  # nothing is similar: 0, which is dropped afterwards
    drawn = torch.multinomial(rates.reshape(-1, N_ELEMENTS), 1, generator=generator).reshape(before.shape)
    after = torch.where(change, drawn, before).gather(1, table.leader[row])
    return torch.where(table.mask[row], after, torch.zeros_like(after))


def _different(table: PrototypeTable, row: Tensor, elements: Tensor) -> Tensor:
    """[n] bool: no element on two species, none missing."""
    species = torch.where(table.is_leader[row], elements, -torch.arange(1, elements.shape[1] + 1))
    ordered = species.sort(1).values
    return (ordered[:, 1:] != ordered[:, :-1]).all(1) & ((elements > 0) | ~table.mask[row]).all(1)
