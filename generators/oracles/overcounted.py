"""How much of an energy may be a correction for anions that cannot be anions.

The Materials Project lowers a compound's energy by a few tenths of an eV per anion (MP2020: Wang et al., Sci. Rep. 11,
15496 (2021)), and CHGNet has learnt these energies. It lowers all atoms of Te in SnTe9, of which tin can reduce two. A
model that is taught what CHGNet calls stable finds such compounds: of 48 chosen draws for which more than 0.2 eV/atom
may be overcounted SevenNet leaves 27 % at most 0.1 eV/atom above the hull, of 39 with 0.1 to 0.2 62 %, of 123 others
88 % (all at most 0.05 by CHGNet).
"""

from __future__ import annotations

import warnings
from functools import lru_cache

import torch
from pymatgen.core import Element
from torch import Tensor

from data.dataset import CrystalDataset
from data.orbit_batch import OrbitBatch
from data.strain_scale import element_fractions
from generators.element_features import N_STATES
from generators.oracles.hull_tables import ENERGY

PER_ANION = {
    "O": (0.687, 2), "S": (0.503, 2), "F": (0.462, 1), "Cl": (0.614, 1), "Br": (0.534, 1), "I": (0.379, 1),
    "N": (0.361, 3), "Se": (0.472, 2), "Te": (0.422, 2),
}  # fmt: skip
"""eV by which an anion lowers the energy (MP2020), and its charge."""
DOUBTFUL = 0.1
"""eV/atom; more than that is doubtful."""


@lru_cache(maxsize=1)
def _tables() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """[119] each: highest oxidation state, electronegativity, correction (eV) and charge of the anion; 0 for none."""
    highest, negativity, correction, charge = (torch.zeros(N_STATES, dtype=torch.float64) for _ in range(4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # noble gases have no electronegativity
        for z in range(1, N_STATES):
            element = Element.from_Z(z)
            highest[z] = max(float(element.max_oxidation_state), 0.0)
            negativity[z] = float(element.X)
    for symbol, (energy, electrons) in PER_ANION.items():
        z = Element(symbol).Z
        correction[z], charge[z] = energy, electrons
    return highest, negativity.nan_to_num(0.0), correction, charge


def overcounted(batch: OrbitBatch) -> Tensor:
    """[B] eV/atom: the correction of those atoms of the most electronegative element that the others, all in their
    highest oxidation states, cannot reduce; 0 for elements, alloys and whatever can be charge-balanced."""
    highest, negativity, correction, charge = _tables()
    share = element_fractions(batch)
    anion = torch.where(share > 0, negativity, -1.0).argmax(1)
    own = share.gather(1, anion[:, None]).squeeze(1)
    given = share @ highest - own * highest[anion]
    excess = (own - given / charge[anion].clamp(min=1)).clamp(min=0)
    return torch.where((share > 0).sum(1) > 1, correction[anion] * excess, 0.0)


def raised(dataset: CrystalDataset) -> CrystalDataset:
    """Judged hypothetical crystals with their energies higher by what may be overcounted: for a model that learns from
    them, so that doubtful ones do not show it what is stable."""
    more = overcounted(dataset.batch)
    properties = {
        name: values + more if name in (ENERGY, "e_above_hull") else values
        for name, values in dataset.properties.items()
    }
    return CrystalDataset(dataset.batch, properties, dataset.prototype, dataset.ids)
