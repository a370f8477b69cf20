"""Charge balance by SMACT: a flag for the reader, never a wall (many metals and intermetallics fail it)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import gcd

SETTINGS = "smact 4, smact_validity(use_pauling_test=True, include_alloys=False), ICSD24 states, consensus 3"


@lru_cache(maxsize=200_000)
def _balanced(symbols: tuple[str, ...], counts: tuple[int, ...]) -> bool:
    from pymatgen.core import Composition
    from smact.screening import smact_validity

    composition = Composition(dict(zip(symbols, counts, strict=True)))
    return bool(smact_validity(composition, use_pauling_test=True, include_alloys=False))


def charge_balanced(atomic_numbers: Sequence[int], multiplicities: Sequence[int]) -> bool:
    """Whether some combination of common oxidation states (ICSD) is neutral and ordered by electronegativity
    (Davies et al., Chem 1, 617 (2016)); settings in `SETTINGS`."""
    from data.cells import element

    counts: dict[int, int] = {}
    for z, m in zip(atomic_numbers, multiplicities, strict=True):
        counts[z] = counts.get(z, 0) + m
    divisor = gcd(*counts.values())
    ordered = sorted(counts)
    return _balanced(tuple(element(z).symbol for z in ordered), tuple(counts[z] // divisor for z in ordered))
