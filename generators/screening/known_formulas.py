"""Reduced formulas of compounds that exist, with a structure at hand or without."""

from __future__ import annotations

from functools import lru_cache

from data.exchanges import load_predicted
from generators.oracles.hull_tables import reference_compounds


@lru_cache(maxsize=1)
def known_formulas() -> frozenset[str]:
    """As pymatgen writes them, of the embedded known compounds."""
    predicted = {crystal.reduced_formula for crystal in load_predicted().batch.to_crystals()}
    return frozenset(predicted.union(reference_compounds()["formula"]))
