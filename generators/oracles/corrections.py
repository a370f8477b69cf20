"""The Materials Project's corrections of PBE energies, for crystals that were never computed.

Wang et al., Sci. Rep. 11, 15496 (2021) (MP2020): per atom of an anion, and per atom of a transition metal that is
computed with a Hubbard U in oxides and fluorides. CHGNet was trained on corrected energies, SevenNet-0 on raw
ones, so that a formation energy of one becomes comparable with the other's by this term (a few tenths of an eV per
anion). Elements are not corrected.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from pymatgen.core import Structure
from torch import Tensor

from data.cells import decode
from data.orbit_batch import OrbitBatch


@cache
def _scheme() -> Any:
    from pymatgen.entries.compatibility import MaterialsProject2020Compatibility

    return MaterialsProject2020Compatibility(check_potcar=False)


def mp2020_correction(batch: OrbitBatch) -> Tensor:
    """[B] eV/atom to be added to a raw PBE (+U where the Materials Project uses it) energy; 0 for alloys."""
    return torch.tensor([_correction(structure) for structure in decode(batch).structures()], dtype=torch.float64)


def _correction(structure: Structure) -> float:
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    elements = sorted(structure.composition.elements, key=lambda e: e.X)
    if len(elements) == 1:
        return 0.0
    hubbard = {e.symbol: u for e in elements if (u := _scheme().u_settings.get(elements[-1].symbol, {}).get(e.symbol))}
    parameters = {"run_type": "GGA+U" if hubbard else "GGA", "hubbards": hubbard}
    entry = ComputedStructureEntry(structure, 0.0, parameters=parameters)
    return sum(float(adjustment.value) for adjustment in _scheme().get_adjustments(entry)) / len(structure)
