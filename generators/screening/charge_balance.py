"""Charge balance by SMACT's rules: a flag for the reader, never a wall (many metals and intermetallics fail it)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from math import gcd

from data.cells import element

SETTINGS = "as smact 4, smact_validity(use_pauling_test=True, include_alloys=False), ICSD24 states, consensus 3"


@cache
def _oxidation_states() -> dict[str, tuple[int, ...]]:
    from smact.utils.oxidation import ICSD24OxStatesFilter

    table = ICSD24OxStatesFilter().filter(consensus=3, include_zero=False, commonality="low")
    return {
        str(symbol): tuple(int(x) for x in str(states).split())
        for symbol, states in zip(table["element"], table["oxidation_state"], strict=True)
    }


@cache
def _electronegativity(symbol: str) -> float | None:
    from smact import Element

    value = Element(symbol).pauling_eneg
    return None if value is None else float(value)


@lru_cache(maxsize=200_000)
def _balanced(symbols: tuple[str, ...], counts: tuple[int, ...]) -> bool:
    """The answer of SMACT's enumeration of all combinations, found without it.

    Its electronegativity test means that some value parts the elements: all below are cations, all above anions. For
    each such cut the reachable total charges are a small set.
    """
    if len(symbols) == 1:
        return True
    states = [_oxidation_states().get(symbol) for symbol in symbols]
    values = [_electronegativity(symbol) for symbol in symbols]
    if any(s is None for s in states) or any(v is None for v in values):
        return False
    for cut in sorted({v for v in values if v is not None})[1:]:
        totals = {0}
        for allowed, value, count in zip(states, values, counts, strict=True):
            cation = value is not None and value < cut
            totals = {t + count * q for t in totals for q in allowed or () if (q > 0) == cation}
        if 0 in totals:
            return True
    return False


def balanced_or_alloy(atomic_numbers: Sequence[int], multiplicities: Sequence[int]) -> bool:
    """`charge_balanced`, or nothing but metals: published figures of valid compositions count alloys (SMACT's
    ``include_alloys=True``, as in CDVAE, Xie et al., ICLR 2022)."""
    from smact import metals

    return all(element(z).symbol in metals for z in atomic_numbers) or charge_balanced(atomic_numbers, multiplicities)


def charge_balanced(atomic_numbers: Sequence[int], multiplicities: Sequence[int]) -> bool:
    """Whether some combination of common oxidation states (ICSD) is neutral and ordered by electronegativity
    (Davies et al., Chem 1, 617 (2016)); settings in `SETTINGS`."""
    counts: dict[int, int] = {}
    for z, m in zip(atomic_numbers, multiplicities, strict=True):
        counts[z] = counts.get(z, 0) + m
    divisor = gcd(*counts.values())
    ordered = sorted(counts)
    return _balanced(tuple(element(z).symbol for z in ordered), tuple(counts[z] // divisor for z in ordered))
