"""Batches of labelled decorations for both models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from data.dataset import CrystalDataset
from data.decoration import dataset_decorations
from data.prototype_table import PrototypeTable
from data.splits import split_by_key

Batch = dict[str, Tensor]


def label_matrix(dataset: CrystalDataset, names: Sequence[str]) -> Tensor:
    """[B, P] labels, NaN where unknown. Raises ValueError for a property that the data set does not have."""
    for name in names:
        if name not in dataset.properties:
            raise ValueError(f"property={name!r}: not in the data, which has {', '.join(dataset.properties)}")
    columns = [dataset.properties[name].double() for name in names]
    return torch.stack(columns, 1) if columns else torch.zeros(len(dataset), 0, dtype=torch.float64)


def known_labels(dataset: CrystalDataset, names: Sequence[str]) -> Tensor:
    """[B, P] labels, NaN where unknown, also for properties that the data set does not have."""
    known = [name for name in names if name in dataset.properties]
    labels = torch.full((len(dataset), len(names)), torch.nan, dtype=torch.float64)
    labels[:, [names.index(name) for name in known]] = label_matrix(dataset, known)
    return labels


class _Rows(Dataset[Batch]):
    """Whole batches by index lists: no work per crystal."""

    def __init__(self, prototype: Tensor, elements: Tensor, labels: Tensor) -> None:
        self.prototype, self.elements, self.labels = prototype, elements, labels

    def __len__(self) -> int:
        return len(self.prototype)

    def __getitem__(self, rows: list[int]) -> Batch:
        index = torch.as_tensor(rows)
        return {
            "prototype": self.prototype[index],
            "elements": self.elements[index],
            "labels": self.labels[index],
        }


class EpochBatches(Sampler[list[int]]):
    """Batches of one epoch: a permutation that follows from (seed, epoch), dealt out over the ranks."""

    def __init__(self, n: int, size: int, seed: int, epoch: int, shuffle: bool, rank: int, ranks: int) -> None:
        self.n, self.size, self.seed, self.epoch = n, size, seed, epoch
        self.shuffle, self.rank, self.ranks = shuffle, rank, ranks

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        order = torch.randperm(self.n, generator=generator) if self.shuffle else torch.arange(self.n)
        batches = order.split(self.size)
        if self.shuffle and len(batches) > 1 and len(batches[-1]) < self.size:
            batches = batches[:-1]
        whole = len(batches) // self.ranks * self.ranks if self.shuffle else len(batches)
        for batch in batches[self.rank : max(whole, 1) : self.ranks]:
            yield batch.tolist()

    def __len__(self) -> int:
        n = self.n // self.size if self.shuffle and self.n >= self.size else -(-self.n // self.size)
        return max(n // self.ranks, 1)


class DecorationDataModule(pl.LightningDataModule):
    """Train, validation and test parts of a data set of decorations, split by crystal key.

    Batches hold ``prototype`` [B] (row of ``table``), ``elements`` [B, K] and ``labels`` [B, P].
    """

    def __init__(
        self,
        dataset: CrystalDataset,
        table: PrototypeTable,
        properties: Sequence[str],
        batch_size: int = 512,
        fractions: tuple[float, float, float] = (0.9, 0.05, 0.05),
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"data.batch_size={batch_size}: must be at least 1")
        self.batch_size, self.seed = batch_size, seed
        row, elements = dataset_decorations(dataset, table)
        labels = label_matrix(dataset, properties)
        self.rows = split_by_key(dataset, fractions, seed)
        empty = [part for part, index in self.rows.items() if len(index) == 0]
        if empty:
            raise ValueError(f"data: {len(dataset)} crystals leave the {empty[0]} part empty, give more rows")
        self.parts = {part: _Rows(row[index], elements[index], labels[index]) for part, index in self.rows.items()}

    def _loader(self, part: str, shuffle: bool) -> DataLoader[Batch]:
        trainer = self.trainer
        rank, ranks = (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)
        epoch = trainer.current_epoch if trainer is not None else 0
        rows = self.parts[part]
        sampler = EpochBatches(
            len(rows), self.batch_size, self.seed, epoch, shuffle, rank if shuffle else 0, ranks if shuffle else 1
        )
        return DataLoader(rows, sampler=sampler, batch_size=None)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled anew in every epoch (the trainer reloads it)."""
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """In order."""
        return self._loader("val", shuffle=False)

    def test_dataloader(self) -> DataLoader[Batch]:
        """In order."""
        return self._loader("test", shuffle=False)
