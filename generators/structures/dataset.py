"""Structures with labels, scalars and tensors, as graphs in the frame of the source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytorch_lightning as pl
import torch
from pymatgen.core import Structure
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from data.cells import decode
from data.decorations import load_decorations
from data.properties import PropertySpec, known_property
from data.prototypes import prototype_library
from data.sources.encoding import check_structure, parse_row
from data.sources.read import Source, raw_rows
from data.sources.rows import Rejected
from data.splits import split_by
from generators.datamodule import EpochBatches
from generators.structures.frames import in_lattice_frame
from generators.structures.graph import structure_graph
from generators.structures.tensors import FORMULAS, tensor_target


@dataclass(frozen=True, eq=False)
class StructureRows:
    """Graphs with labels.

    Attributes:
        graphs: N graphs; property p is ``target_p`` [1, components], NaN where unknown, in model space.
        formulas: N reduced formulas, by which parts are split.
        specs: the properties.
        rejected: rows that were left out.
    """

    graphs: list[Data]
    formulas: list[str]
    specs: tuple[PropertySpec, ...]
    rejected: list[Rejected]


def target(spec: PropertySpec, value: object) -> Tensor:
    """[1, components] in model space: a scalar (transformed), or the irreducible parts of a tensor; NaN if unknown.

    Raises:
        ValueError: a tensor of another length than the property's.
    """
    if spec.readout != "tensor":
        number = torch.tensor([[float("nan") if value is None else float(value)]], dtype=torch.float64)  # type: ignore[arg-type]
        return spec.to_model(torch.where(spec.plausible(number), number, torch.nan)).float()
    numbers = torch.tensor(np.asarray(value, dtype=np.float64).reshape(1, -1))
    return tensor_target(numbers, spec).float()


def read_structure_rows(
    path: Path | None, properties: Sequence[str], cutoff: float, limit: int | None = None, frame: str = "structure"
) -> StructureRows:
    """Graphs of a source (all formats of `data.sources`), or of the embedded decorations if ``path`` is None.

    Tensor properties are list columns of a Parquet table: 9 numbers (3 x 3), 18 (3 x 6) or 36 (6 x 6, Voigt), in the
    Cartesian frame of the structure, or in the crystal's IEEE axes (``frame="ieee"``). A tensor that contradicts the
    crystal's symmetry is in another frame than it should be: its row is rejected.

    Raises:
        ValueError: an unknown column, or no row that can be used.
    """
    if path is None:
        return _embedded(properties, cutoff, limit)
    tensors = _tensor_columns(path, properties)
    specs = tuple(_tensor_spec(name, tensors[name]) if name in tensors else known_property(name) for name in properties)
    graphs, formulas, rejected = [], [], []
    seen: set[str] = set()
    for i, row in enumerate(raw_rows(path, Source(), prototype_library())):
        if limit is not None and i >= limit:
            break
        try:
            structure, labels = parse_row(row)
            check_structure(structure)
            labels = {**labels, **row.properties}
            seen |= labels.keys()
            graph = structure_graph(structure, cutoff)
            for p, spec in enumerate(specs):
                value = tensors[spec.name][i] if spec.name in tensors else labels.get(spec.name)
                if spec.readout == "tensor" and value is not None:
                    numbers = torch.tensor(np.asarray(value, dtype=np.float64).ravel())
                    value = in_lattice_frame(numbers, structure, frame, spec.name).numpy()
                graph[f"target_{p}"] = target(spec, value)
        except (ValueError, TypeError) as error:
            rejected.append(Rejected(row.id, " ".join(str(error).split())))
            continue
        graphs.append(graph)
        formulas.append(structure.reduced_formula)
    missing = [name for name in properties if name not in tensors and name not in seen]
    if missing:
        raise ValueError(
            f"property={missing[0]!r}: not in the data, which has {', '.join(sorted(seen)) or 'no numbers'}"
        )
    if not graphs:
        raise ValueError(f"path={str(path)!r}: none of {len(rejected)} rows can be used")
    return StructureRows(graphs, formulas, specs, rejected)


def _embedded(properties: Sequence[str], cutoff: float, limit: int | None) -> StructureRows:
    dataset = load_decorations()
    dataset = dataset.select(torch.arange(len(dataset))[:limit])
    for name in properties:
        if name not in dataset.properties:
            raise ValueError(f"property={name!r}: not in the data, which has {', '.join(dataset.properties)}")
    specs = tuple(known_property(name) for name in properties)
    graphs, formulas = [], []
    structure: Structure
    for i, structure in enumerate(decode(dataset.batch).structures()):
        try:
            graph = structure_graph(structure, cutoff)
        except ValueError:
            continue
        for p, spec in enumerate(specs):
            graph[f"target_{p}"] = target(spec, float(dataset.properties[spec.name][i]))
        graphs.append(graph)
        formulas.append(structure.reduced_formula)
    return StructureRows(graphs, formulas, specs, [])


def _tensor_columns(path: Path, properties: Sequence[str]) -> dict[str, list[object]]:
    """Those properties that are list columns of a Parquet table."""
    if path.suffix != ".parquet" or not path.is_file():
        return {}
    names = [name for name in properties if name in pq.read_schema(path).names]
    table = pd.read_parquet(path, columns=names)
    return {name: table[name].tolist() for name in names if table[name].map(np.ndim).max() == 1}


def _tensor_spec(name: str, values: Sequence[object]) -> PropertySpec:
    known = known_property(name)
    if known.readout == "tensor":
        return known
    lengths = {len(value) for value in values if value is not None}  # type: ignore[arg-type]
    if len(lengths) != 1 or not lengths <= FORMULAS.keys():
        raise ValueError(f"property={name!r}: has lists of {sorted(lengths)} numbers, give 9, 18 or 36 everywhere")
    return PropertySpec(name, readout="tensor", symmetry=FORMULAS[lengths.pop()])


class StructureDataModule(pl.LightningDataModule):
    """Train, validation and test parts that share no formula."""

    def __init__(
        self,
        rows: StructureRows,
        batch_size: int = 32,
        fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.source, self.batch_size, self.seed = rows, batch_size, seed
        self.rows = split_by(rows.formulas, fractions, seed)
        empty = [part for part, index in self.rows.items() if len(index) == 0]
        if empty:
            raise ValueError(f"data: {len(rows.graphs)} structures leave the {empty[0]} part empty, give more rows")
        self.parts = {part: [rows.graphs[i] for i in index.tolist()] for part, index in self.rows.items()}

    def _loader(self, part: str, shuffle: bool) -> DataLoader:
        trainer = self.trainer
        rank, ranks = (trainer.global_rank, trainer.world_size) if trainer is not None and shuffle else (0, 1)
        epoch = trainer.current_epoch if trainer is not None else 0
        batches = EpochBatches(len(self.parts[part]), self.batch_size, self.seed, epoch, shuffle, rank, ranks)
        return DataLoader(self.parts[part], batch_sampler=batches)

    def train_dataloader(self) -> DataLoader:
        """Shuffled anew in every epoch (the trainer reloads it)."""
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """In order."""
        return self._loader("val", shuffle=False)

    def test_dataloader(self) -> DataLoader:
        """In order."""
        return self._loader("test", shuffle=False)
