"""The best by score in which no element is much commoner than among known compounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Sequence
from functools import lru_cache

import torch
from pymatgen.core import Composition, Element
from torch import Tensor

from generators.oracles.hull_tables import reference_compounds

RARE = 0.004
"""Share that an element has at least: without it new compounds of rare elements could not be found at all."""


@lru_cache(maxsize=1)
def known_shares() -> dict[int, float]:
    """In which share of the embedded known compounds each element (atomic number) occurs."""
    formulas = reference_compounds()["formula"].unique()
    counts = Counter(element.Z for formula in formulas for element in Composition(formula).elements)
    return {z: n / len(formulas) for z, n in counts.items()}


@lru_cache(maxsize=1)
def radioactive_elements() -> frozenset[int]:
    """Elements without a stable isotope, but for Bi, Th and U, which are handled.

    Few of their compounds are known, so that a hull hardly says what is stable of them, and a model that is taught to
    find what lies below it ends there.
    """
    return frozenset(e.Z for e in Element if e.is_radioactive and e.symbol not in ("Bi", "Th", "U"))


@lru_cache(maxsize=1)
def noble_gases() -> frozenset[int]:
    """Most of their compounds fall apart, and few are known: a surrogate errs there."""
    return frozenset(e.Z for e in Element if e.is_noble_gas)


def little_known() -> frozenset[int]:
    """Radioactive elements and noble gases: surrogate and hull know little of them, so that no model is taught them."""
    return radioactive_elements() | noble_gases()


def within_shares(
    score: Tensor,
    elements: Sequence[Collection[int]],
    most: float,
    n: int,
    kinds: Sequence[tuple[Sequence[Hashable], int]] = (),
) -> list[int]:
    """At most ``n`` rows by falling score, in which no element occurs in more than ``most`` times its share among known
    compounds (`RARE` at least), and no kind more often than its limit. Fewer, if too few keep to the limits.

    Args:
        score: [N].
        elements: atomic numbers of each row, each once.
        most: times the share.
        n: rows wanted; the elements' shares count in so many.
        kinds: the kind of each row and how many rows of one there may be; several such limits hold at once.
    """
    shares, counts = known_shares(), Counter[int]()
    limit_of = {z: most * max(shares.get(z, 0.0), RARE) * n for row in elements for z in row}
    of_kind = [Counter[Hashable]() for _ in kinds]
    kept: list[int] = []
    for row in torch.argsort(score, descending=True, stable=True).tolist():
        if len(kept) == n:
            break
        fine = all(counts[z] < limit_of[z] for z in elements[row])
        if fine and all(count[kind[row]] < limit for count, (kind, limit) in zip(of_kind, kinds, strict=True)):
            counts.update(elements[row])
            for count, (kind, _) in zip(of_kind, kinds, strict=True):
                count[kind[row]] += 1
            kept.append(row)
    return kept
