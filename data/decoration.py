"""Decorations of known prototypes: a row of a `PrototypeTable` and the elements on its orbits."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.cells import decode
from data.dataset import CrystalDataset
from data.orbit_batch import OrbitBatch
from data.prototype_table import PrototypeTable
from data.wyckoff import wyckoff_table


def canonical_elements(table: PrototypeTable, row: Tensor, elements: Tensor) -> Tensor:
    """[B, K] elements in the smallest of the equivalent orders of each prototype; 0 where padded."""
    result = torch.zeros_like(elements)
    for index in torch.unique(row).tolist():
        rows = (row == index).nonzero().squeeze(-1)
        prototype = table.prototypes[index]
        n = len(prototype.letters)
        orders = torch.tensor(prototype.equivalent_orders)
        spelled = elements[rows, :n][:, orders]  # [b, orders, n]
        base = 119 ** torch.arange(n - 1, -1, -1, dtype=torch.float64)
        smallest = (spelled.double() * base).sum(-1).argmin(-1)
        result[rows, :n] = spelled[torch.arange(len(rows)), smallest]
    return result


def decoration_codes(table: PrototypeTable, row: Tensor, elements: Tensor) -> NDArray[np.void]:
    """[B] codes that are equal exactly for the same crystal up to relaxation: same prototype, same elements
    on equivalent orbits. They can be compared, sorted and looked up with numpy."""
    canonical = canonical_elements(table, row, elements)
    joined = torch.cat([row[:, None], canonical], 1).to(torch.int16).numpy()
    contiguous = np.ascontiguousarray(joined)
    return contiguous.view(np.dtype((np.void, contiguous.dtype.itemsize * contiguous.shape[1]))).ravel()


def dataset_decorations(dataset: CrystalDataset, table: PrototypeTable) -> tuple[Tensor, Tensor]:
    """Rows in ``table`` [B] and elements [B, K] (0 where padded) of a data set of decorations.

    Raises:
        ValueError: a crystal whose prototype is not in the table.
    """
    row_of = {name: i for i, name in enumerate(table.names)}
    unknown = sorted(set(dataset.prototype) - set(row_of))
    if unknown:
        raise ValueError(f"prototype={unknown[0]!r}: not among the {len(row_of)} prototypes of the model")
    row = torch.tensor([row_of[name] for name in dataset.prototype], dtype=torch.long)
    elements = torch.zeros(len(dataset), table.mask.shape[1], dtype=torch.long)
    k = min(elements.shape[1], dataset.batch.atomic_number.shape[1])
    elements[:, :k] = dataset.batch.atomic_number[:, :k]
    return row, elements


def example_decorations(table: PrototypeTable) -> tuple[Tensor, Tensor]:
    """The reference crystals of the prototypes themselves: rows of ``table`` [N] and elements [N, K]."""
    rows, elements = [], []
    for i, prototype in enumerate(table.prototypes):
        for order in prototype.example_elements:
            numbers = [order[slot] for slot in prototype.species]
            rows.append(i)
            elements.append(numbers + [0] * (table.mask.shape[1] - len(numbers)))
    return torch.tensor(rows, dtype=torch.long), torch.tensor(elements, dtype=torch.long).reshape(len(rows), -1)


def to_orbit_batch(table: PrototypeTable, row: Tensor, elements: Tensor) -> OrbitBatch:
    """Crystals [B] in the reference geometry of their prototypes."""
    wyckoff = wyckoff_table()
    p, k = table.mask.shape
    position = torch.zeros(p, k, dtype=torch.long)
    coordinates = torch.zeros(p, k, 3, dtype=torch.float64)
    strain = torch.zeros(p, 6, dtype=torch.float64)
    for i, prototype in enumerate(table.prototypes):
        n = len(prototype.letters)
        position[i, :n] = torch.tensor([wyckoff.index(prototype.space_group, x) for x in prototype.letters])
        coordinates[i, :n] = torch.tensor(prototype.coordinates, dtype=torch.float64)
        strain[i] = torch.tensor(prototype.strain, dtype=torch.float64)
    width = int(table.mask[row].sum(-1).max())
    return OrbitBatch(
        space_group=table.space_group[row],
        position=position[row][:, :width],
        atomic_number=elements[:, :width],
        coordinates=coordinates[row][:, :width],
        strain=strain[row],
        mask=table.mask[row][:, :width],
    )


def with_volume_per_atom(batch: OrbitBatch, volume: Tensor) -> OrbitBatch:
    """The same crystals, scaled to ``volume`` [B] Å^3 per atom; shape of the cell kept."""
    cells = decode(batch)
    change = torch.log(volume.to(cells.volume) * cells.n_atoms / cells.volume)
    strain = batch.strain.clone()
    strain[:, 0] += change
    return batch.replace(strain=strain)
