"""Crystals in all the symmetry that they have: relaxation within a space group often ends in a higher one."""

from __future__ import annotations

from data.cells import decode
from data.crystal import Crystal
from data.orbit_batch import OrbitBatch
from data.symmetry import SymmetryError, encode

RELAXED_SYMPREC = 0.1
"""Å. Forces below 0.1 eV/Å leave atoms some hundredths of an Å from where they belong."""


def in_full_symmetry(batch: OrbitBatch, symprec: float = RELAXED_SYMPREC) -> list[Crystal]:
    """The same crystals, each in the highest symmetry that it has within ``symprec`` (Å).

    Those that have no more than they are written with, or that cannot be read with more, stay as they are.
    """
    described = []
    for crystal, structure in zip(batch.to_crystals(), decode(batch).structures(), strict=True):
        try:
            found = encode(structure, symprec)
        except SymmetryError:
            found = crystal
        more = (found.space_group, sum(found.multiplicities)) != (crystal.space_group, sum(crystal.multiplicities))
        described.append(found if more else crystal)
    return described
