"""The best by score in which no element is much commoner than among known compounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
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


def radioactive_elements() -> frozenset[int]:
    """Elements without a stable isotope, but for Bi, Th and U, which are handled.

    Few of their compounds are known, so that a hull hardly says what is stable of them, and a model that is taught to
    find what lies below it ends there.
    """
    return frozenset(e.Z for e in Element if e.is_radioactive and e.symbol not in ("Bi", "Th", "U"))


def within_shares(score: Tensor, elements: Sequence[Collection[int]], most: float, n: int) -> list[int]:
    """Rows by falling score, without those that would make an element occur in more than ``most`` times its share
    among known compounds, of ``n`` rows.

    Args:
        score: [N].
        elements: atomic numbers of each row, each once.
        most: times the share.
        n: rows that the shares count in.
    """
    shares, counts = known_shares(), Counter[int]()
    kept = []
    for row in torch.argsort(score, descending=True, stable=True).tolist():
        if all(counts[z] < most * max(shares.get(z, 0.0), RARE) * n for z in elements[row]):
            counts.update(elements[row])
            kept.append(row)
    return kept
