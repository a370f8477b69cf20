"""Fixed element features: what chemistry knows before any training."""

from __future__ import annotations

import warnings
from functools import lru_cache

import torch
from pymatgen.core import Element
from torch import Tensor

N_STATES = 119
"""Atomic numbers 1..118, and 0 for 'none'."""


@lru_cache(maxsize=1)
def _table() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen warns of every heavy element without a value
        return _read_table()


def _read_table() -> Tensor:
    rows = torch.full((N_STATES, 4), float("nan"))
    one_hot = torch.zeros(N_STATES, 9 + 18 + 4)
    for z in range(1, N_STATES):
        element = Element.from_Z(z)
        one_hot[z, element.row - 1 if element.row <= 9 else 8] = 1
        one_hot[z, 9 + element.group - 1] = 1
        one_hot[z, 27 + "spdf".index(element.block)] = 1
        radius = element.atomic_radius
        rows[z] = torch.tensor(
            [
                float(element.X) if element.X is not None else float("nan"),
                float(radius) if radius is not None else float("nan"),
                float(element.mendeleev_no) if element.mendeleev_no is not None else float("nan"),
                float(element.ionization_energies[0]) if element.ionization_energies else float("nan"),
            ]
        )
    known = ~torch.isnan(rows)
    count = known.sum(0)
    mean = torch.where(known, rows, torch.zeros(())).sum(0) / count
    std = (torch.where(known, rows - mean, torch.zeros(())).square().sum(0) / count).sqrt()
    standard = torch.where(known, (rows - mean) / std, torch.zeros(()))
    return torch.cat([standard, one_hot], 1)


def element_features() -> Tensor:
    """[119, 35] by atomic number, row 0 zero: standardised Pauling electronegativity, atomic radius,
    Mendeleev number and first ionisation energy (0 where unknown), then one-hot
    period, group and block. Values from pymatgen's periodic table."""
    return _table().clone()
