"""World ``perov_5``: all 18,928 cubic ABX3 of 52 metals and seven sets of anions, true where a DFT label is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pymatgen.core import Element, Lattice, Structure
from torch import Tensor

from data.prototype_table import PrototypeTable
from data.prototypes import Prototype
from generators.wish import Interval, Wish
from generators.worlds.space import Space
from generators.worlds.world import World, below

SLOTS = ("A", "B", "X_xy", "X_xz", "X_yz")
HEAT, GAP = "heat_all", "ind_gap"
LEARNT_SPLIT, GAP_SPLIT, GAP_SEED = "train", "val", 0


def perovskite_prototype() -> Prototype:
    """ABX3 in a cubic cell with three different anions: A at the corner, B in the centre, anions on the faces.

    Slots: A, B, and the anions at the centres of the xy, xz and yz faces.
    """
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    structure = Structure(Lattice.cubic(4.0), ["Sr", "Ti", "O", "N", "F"], sites)
    return Prototype.from_structure("perovskite_three_anions", structure, "Castelli et al. (2012)", symprec=1e-3)


def read_perovskites(folder: Path) -> tuple[Tensor, pd.DataFrame]:
    """Elements [18928, 5] in the order of the prototype's orbits, and the table.

    Raises:
        ValueError: no such file, or a missing column.
    """
    path = folder / "perov_5" / "perovskites.parquet"
    if not path.is_file():
        raise ValueError(f"data={folder}: has no perov_5/perovskites.parquet")
    table = pd.read_parquet(path)
    missing = [name for name in (*SLOTS, HEAT, "split") if name not in table]
    if missing:
        raise ValueError(f"{path}: column {missing[0]!r} is missing")
    numbers = table[list(SLOTS)].map(lambda symbol: int(Element(symbol).Z)).to_numpy(dtype=np.int64)
    return torch.tensor(numbers)[:, list(perovskite_prototype().species)], table


def perov_5(folder: Path, cache: Path) -> World:  # noqa: ARG001  (same signature for all worlds)
    """The world. Labels of the published training split may be learnt from; the others only judge. No band gap of the
    training split is given, so that only heats can be wished for; see `perov_5_gap`."""
    numbers, table = read_perovskites(folder)
    space = Space.build(PrototypeTable.build([perovskite_prototype()]), numbers)
    index = space.index(numbers)
    heat = torch.full((len(space),), torch.nan, dtype=torch.float64)
    heat[index] = torch.tensor(table[HEAT].to_numpy(dtype=np.float64))
    learnt = torch.tensor((table["split"] == LEARNT_SPLIT).to_numpy() & table[HEAT].notna().to_numpy())
    return World(
        name="perov_5",
        space=space,
        truth={HEAT: heat},
        train_index=index[learnt],
        train_labels={HEAT: heat[index[learnt]]},
        targets=below(HEAT, 0.2),
        judge="DFT labels of Castelli et al., where they are given",
    )


def perov_5_gap(folder: Path, cache: Path) -> World:  # noqa: ARG001
    """Two properties at once: a gap above 0.5 eV and a heat below 0.5 eV/atom.

    Gaps are given for the published validation split alone. A random half of it may be learnt from, besides the heats
    of the training split; the other half alone judges, so that every hit counted is one never learnt from.
    """
    numbers, table = read_perovskites(folder)
    if GAP not in table:
        raise ValueError(f"data={folder}: column {GAP!r} is missing from perov_5/perovskites.parquet")
    space = Space.build(PrototypeTable.build([perovskite_prototype()]), numbers)
    index = space.index(numbers)
    heat, gap = (torch.full((len(space),), torch.nan, dtype=torch.float64) for _ in range(2))
    heat[index], gap[index] = (torch.tensor(table[name].to_numpy(dtype=np.float64)) for name in (HEAT, GAP))
    both = index[torch.tensor((table["split"] == GAP_SPLIT).to_numpy())]
    both = both[~torch.isnan(heat[both]) & ~torch.isnan(gap[both])]
    both = both[torch.randperm(len(both), generator=torch.Generator().manual_seed(GAP_SEED))]
    taught, judging = both[: len(both) // 2], both[len(both) // 2 :]
    heats = index[torch.tensor((table["split"] == LEARNT_SPLIT).to_numpy() & table[HEAT].notna().to_numpy())]
    learnt = torch.cat([heats, taught])
    truth = {name: torch.full_like(heat, torch.nan) for name in (HEAT, GAP)}
    truth[HEAT][judging], truth[GAP][judging] = heat[judging], gap[judging]
    labels = {HEAT: heat[learnt], GAP: torch.cat([torch.full_like(heat[heats], torch.nan), gap[taught]])}
    wish = Wish({HEAT: Interval(None, 0.5), GAP: Interval(0.5, None)})
    return World(
        name="perov_5_gap",
        space=space,
        truth=truth,
        train_index=learnt,
        train_labels=labels,
        targets={f"{GAP} > 0.5, {HEAT} < 0.5": wish},
        judge="DFT labels of Castelli et al.: the half of the validation split that is not learnt from",
    )
