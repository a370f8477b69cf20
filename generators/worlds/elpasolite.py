"""World ``elpasolite``: ABC2D6 of 39 main-group elements, judged by an ensemble fitted on all given DFT labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pymatgen.core import Element
from torch import Tensor

from data.prototype_table import PrototypeTable
from data.prototypes import prototype_library
from generators.worlds.judge import judge_everything
from generators.worlds.space import Space
from generators.worlds.world import World, below

NAME = "formation_energy_per_atom"
SLOTS = ("A", "B", "C", "D")
TARGETS = (-2.0, -2.5, -2.8, -3.0)
"""-3.0 was meant as the rarest target; this judge finds one crystal there, and 92 below -2.8."""


def read_elpasolites(folder: Path) -> tuple[Tensor, Tensor]:
    """Elements [n, 4] (A, B, C, D) and formation energies [n], eV/atom, of Faber et al., Phys. Rev. Lett. 117, 135502.

    Raises:
        ValueError: no such file, or a missing column.
    """
    path = folder / "elpasolite" / "formation_energy.parquet"
    if not path.is_file():
        raise ValueError(f"data={folder}: has no elpasolite/formation_energy.parquet")
    table = pd.read_parquet(path)
    missing = [name for name in (*SLOTS, NAME) if name not in table]
    if missing:
        raise ValueError(f"{path}: column {missing[0]!r} is missing")
    numbers = table[list(SLOTS)].map(lambda symbol: int(Element(symbol).Z)).to_numpy(dtype=np.int64)
    return torch.tensor(numbers), torch.tensor(table[NAME].to_numpy(dtype=np.float64))


def elpasolite_space(numbers: Tensor) -> Space:
    """All four-element elpasolites of the elements in ``numbers``: 987,012 crystals for 39 elements, each with two
    spellings (A and B exchanged is one crystal), 1,974,024 compositions in all."""
    table = PrototypeTable.build([prototype_library().get("elpasolite")])
    prototype = table.prototypes[0]
    if prototype.letters != ("a", "b", "c", "e"):
        raise ValueError(f"prototype elpasolite: has letters {prototype.letters}, A, B, C, D need a, b, c, e")
    elements = torch.unique(numbers)
    quadruples = torch.cartesian_prod(*[elements] * 4)
    ordered = quadruples.sort(1).values
    return Space.build(table, quadruples[(ordered[:, 1:] != ordered[:, :-1]).all(1)])


def elpasolite(folder: Path, cache: Path) -> World:
    """The world, its judge fitted once and kept in ``cache``."""
    numbers, energies = read_elpasolites(folder)
    space = elpasolite_space(numbers)
    index = space.index(numbers)
    truth = judge_everything(space, index, energies, NAME, cache)
    return World(
        name="elpasolite",
        space=space,
        truth={NAME: truth},
        train_index=index,
        train_labels={NAME: energies},
        targets=below(NAME, *TARGETS),
        judge=f"four orbit graph networks fitted on {len(index):,} DFT labels",
    )
