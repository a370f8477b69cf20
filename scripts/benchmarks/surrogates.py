"""The orbit surrogate on two enumerable worlds: elpasolites and cubic perovskites with three anions."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from pymatgen.core import Element, Lattice, Structure
from torch import Tensor

from benchmarks.common import fit
from data.dataset import CrystalDataset
from data.decoration import to_orbit_batch
from data.prototype_table import PrototypeTable
from data.prototypes import Prototype, prototype_library
from generators.datamodule import DecorationDataModule
from generators.oracles.surrogate_module import SurrogateModule, SurrogateOptimizer
from generators.oracles.surrogate_network import SurrogateConfig

EPOCHS = 60


def _perovskite() -> Prototype:
    """ABX3 in a cubic cell with three different anions: A at the corner, B in the centre, anions on the faces.

    Slots: A, B, and the anions at the centres of the xy, xz and yz faces.
    """
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    structure = Structure(Lattice.cubic(4.0), ["Sr", "Ti", "O", "N", "F"], sites)
    return Prototype.from_structure("perovskite_three_anions", structure, "Castelli et al. (2012)", symprec=1e-3)


def _dataset(prototype: Prototype, numbers: Tensor, name: str, labels: Tensor) -> CrystalDataset:
    """``numbers`` [N, slots] in the order of the prototype's slots."""
    table = PrototypeTable.build([prototype])
    elements = numbers[:, list(prototype.species)]
    row = torch.zeros(len(numbers), dtype=torch.long)
    ids = tuple(str(i) for i in range(len(numbers)))
    return CrystalDataset(to_orbit_batch(table, row, elements), {name: labels}, (prototype.name,) * len(numbers), ids)


def _numbers(table: pd.DataFrame, columns: list[str]) -> Tensor:
    return torch.tensor([[int(Element(x).Z) for x in row] for row in table[columns].itertuples(index=False)])


def _fit(dataset: CrystalDataset, prototype: Prototype, name: str) -> dict[str, float]:
    torch.manual_seed(0)
    table = PrototypeTable.build([prototype])
    data = DecorationDataModule(dataset, table, [name], 256, (0.8, 0.1, 0.1), 0)
    labels = data.parts["train"].labels
    center, scale = SurrogateModule.standardisation(labels, [name])
    elements = sorted(set(dataset.batch.atomic_number.flatten().tolist()) - {0})
    config = SurrogateConfig(width=96, depth=3, members=4, dropout=0.05)
    module = SurrogateModule(table, [name], center, scale, elements, config, SurrogateOptimizer())
    seconds = fit(module, data, EPOCHS)
    tested = pl.Trainer(logger=False, accelerator="cpu").test(module, data, verbose=False)[0]
    truth = data.parts["test"].labels[:, 0]
    return {
        "rows": len(dataset),
        "train": len(labels),
        "test": len(truth),
        "mae": float(tested[f"test/mae/{name}"]),
        "coverage_90": float(tested[f"test/coverage_90/{name}"]),
        "mae_of_the_mean": float((truth - labels[:, 0].mean()).abs().mean()),
        "seconds": round(seconds, 1),
    }


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Needs ``--data FOLDER`` with elpasolite/formation_energy.parquet and perov_5/perovskites.parquet."""
    if arguments.data is None:
        raise SystemExit("benchmark: surrogates needs --data FOLDER")
    folder: Path = arguments.data
    figures: dict[str, Any] = {}
    name = "formation_energy_per_atom"
    table = pd.read_parquet(folder / "elpasolite" / "formation_energy.parquet")
    elpasolite = prototype_library().get("elpasolite")
    energies = torch.tensor(table[name].to_numpy(dtype="float64"))
    assert elpasolite.letters == ("a", "b", "c", "e"), "the slots of the library are those of the columns ABC2D6"
    numbers = _numbers(table, ["A", "B", "C", "D"])
    figures["elpasolite"] = _fit(_dataset(elpasolite, numbers, name, energies), elpasolite, name)
    table = pd.read_parquet(folder / "perov_5" / "perovskites.parquet")
    table = table[table["heat_all"].notna()]
    perovskite = _perovskite()
    heats = torch.tensor(table["heat_all"].to_numpy(dtype="float64"))
    numbers = _numbers(table, ["A", "B", "X_xy", "X_xz", "X_yz"])
    figures["perov_5"] = _fit(_dataset(perovskite, numbers, "heat_all", heats), perovskite, "heat_all")
    rows = "\n".join(
        f"| {key} | {x['train']:,} / {x['test']:,} | {x['mae']:.4f} | {x['mae_of_the_mean']:.3f} | {x['coverage_90']:.1%} "
        f"| {x['seconds']:.0f} |"
        for key, x in figures.items()
    )
    text = f"""## The surrogate on enumerable worlds

`python scripts/benchmark.py surrogates --data FOLDER`: the shipped surrogate's settings ({EPOCHS} epochs, four members), elements of the
prototype's sites in, 80/10/10 split by crystal. Elpasolites: Faber et al., Phys. Rev. Lett. 117, 135502 (2016), who reach 0.1 eV/atom with
10,000 crystals by kernel ridge regression; perovskites: Castelli et al., Energy Environ. Sci. 5, 9034 (2012), every ABX3 with a label.

| | train / test | MAE, eV/atom | of the mean | 90 % intervals cover | s |
|---|---|---|---|---|---|
{rows}"""
    return {"markdown": text, "seed": 0, **figures}
