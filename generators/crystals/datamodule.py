"""Batches of whole crystals: known ones, hypothetical ones by ion exchange, and the embedded decorations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from data.dataset import CrystalDataset
from data.orbit_batch import OrbitBatch
from data.respelling import respell
from data.splits import PARTS, split_by
from generators.datamodule import known_labels

Batch = dict[str, Any]


@dataclass(frozen=True, eq=False)
class CrystalSource:
    """One part of the training data.

    Attributes:
        number: of the part, from 1 (`generators.crystals.task_schema.SOURCES`).
        dataset: its crystals; a property that it lacks is unknown.
        groups: one string per crystal; crystals of one group share train, validation or test.
        share: of the training crystals that are seen in one epoch.
    """

    number: int
    dataset: CrystalDataset
    groups: Sequence[str]
    share: float = 1.0


class CrystalRows(Dataset[Batch]):
    """Whole batches by index lists, padded no wider than they need."""

    def __init__(self, batch: OrbitBatch, labels: Tensor, source: Tensor) -> None:
        self.batch, self.labels, self.source = batch, labels, source

    def __len__(self) -> int:
        return len(self.batch)

    def __getitem__(self, rows: list[int]) -> Batch:
        index = torch.as_tensor(rows)
        return {
            "crystals": trimmed(self.batch.select(index)),
            "labels": self.labels[index],
            "source": self.source[index],
        }


def trimmed(batch: OrbitBatch) -> OrbitBatch:
    """The batch without columns in which no crystal has an orbit."""
    width = max(int(batch.n_orbits.max()), 1)
    wide = ("position", "atomic_number", "coordinates", "mask")
    return OrbitBatch(
        **{
            f.name: getattr(batch, f.name)[:, :width] if f.name in wide else getattr(batch, f.name)
            for f in fields(batch)
        }
    )


class SizedBatches(Sampler[list[int]]):
    """Batches of crystals with about as many orbits, in an order that follows from (seed, epoch).

    Args:
        n_orbits: [N].
        rows: crystals of this epoch.
        tokens: orbits in a batch, padding included; at most ``most`` crystals.
        rank, ranks: this process and how many there are; each has as many batches, of like size in each step.
    """

    def __init__(
        self, n_orbits: Tensor, rows: Tensor, tokens: int, most: int, seed: int, shuffle: bool, rank: int, ranks: int
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        order = rows[torch.randperm(len(rows), generator=generator)] if shuffle else rows
        batches: list[Tensor] = []
        for block in order.split(64 * most):  # sorted within blocks: like sizes together, and still random
            block = block[torch.argsort(n_orbits[block], stable=True)]
            start = 0
            while start < len(block):
                size = most
                while size > 1 and size * int(n_orbits[block[min(start + size, len(block)) - 1]]) > tokens:
                    size = max(size // 2, 1)
                batches.append(block[start : start + size])
                start += size
        if shuffle:
            batches = [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
            batches = batches[: max(len(batches) // ranks * ranks, 1)]
            if ranks > 1:  # a step takes as long as its slowest rank: like work for all
                batches.sort(key=lambda batch: len(batch) * int(n_orbits[batch[-1]]))
                steps = [batches[i : i + ranks] for i in range(0, len(batches), ranks)]
                batches = [
                    batch for i in torch.randperm(len(steps), generator=generator).tolist() for batch in steps[i]
                ]
        self.batches = batches[rank::ranks]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(batch.tolist() for batch in self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class CrystalDataModule(pl.LightningDataModule):
    """Train, validation and test parts; the training crystals are spelled anew in every epoch.

    Batches hold ``crystals`` (an `OrbitBatch`), ``labels`` [B, P] and ``source`` [B] (its number).
    Validation and test take the first source alone.
    """

    def __init__(
        self,
        sources: Sequence[CrystalSource],
        properties: Sequence[str],
        batch_size: int = 128,
        fractions: tuple[float, float, float] = (0.9, 0.05, 0.05),
        seed: int = 0,
        max_orbits: int = 32,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"data.batch_size={batch_size}: must be at least 1")
        self.batch_size, self.tokens, self.seed = batch_size, 12 * batch_size, seed
        parts: dict[str, list[CrystalRows]] = {part: [] for part in PARTS}
        shares = []
        for source in sources:
            dataset = source.dataset
            labels = known_labels(dataset, properties)
            small = dataset.batch.n_orbits <= max_orbits
            for part, rows in split_by(source.groups, fractions, seed).items():
                kept = rows[small[rows]]
                batch = dataset.batch.select(kept)
                parts[part].append(CrystalRows(batch, labels[kept], torch.full((len(kept),), source.number)))
                if part == "train":
                    shares += [torch.full((len(kept),), source.share)]
        self.parts = {
            "train": _joined(parts["train"]), "val": parts["val"][0], "test": parts["test"][0],
        }  # fmt: skip
        empty = [part for part, rows in self.parts.items() if len(rows) == 0]
        if empty:
            raise ValueError(f"data: the {empty[0]} part is empty, give more crystals")
        self.share = torch.cat(shares)
        self._ahead = ThreadPoolExecutor(1, "spelling")
        self._spelled: dict[int, Future[tuple[Tensor, CrystalRows]]] = {}
        self.rows = {part: torch.arange(len(rows)) for part, rows in self.parts.items()}

    def _place(self) -> tuple[int, int, int]:
        trainer = self.trainer
        return (0, 0, 1) if trainer is None else (trainer.current_epoch, trainer.global_rank, trainer.world_size)

    def _spell(self, epoch: int) -> tuple[Tensor, CrystalRows]:
        """Crystals of an epoch, and all in new spellings: seconds, which the epoch before it hides."""
        part = self.parts["train"]
        generator = torch.Generator().manual_seed(self.seed * 100_003 + epoch)
        rows = (torch.rand(len(part), generator=generator) < self.share).nonzero().squeeze(-1)
        return rows, CrystalRows(respell(part.batch, generator), part.labels, part.source)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Drawn, spelled and shuffled anew in every epoch (the trainer reloads it)."""
        epoch, rank, ranks = self._place()
        part = self.parts["train"]
        self._spelled = {
            number: self._spelled.get(number) or self._ahead.submit(self._spell, number)
            for number in (epoch, epoch + 1)  # this one is asked for twice when the trainer counts its steps
        }
        rows, spelled = self._spelled[epoch].result()
        seed = self.seed * 100_003 + epoch
        sampler = SizedBatches(part.batch.n_orbits, rows, self.tokens, self.batch_size, seed, True, rank, ranks)
        return DataLoader(spelled, sampler=sampler, batch_size=None)

    def _in_order(self, name: str) -> DataLoader[Batch]:
        part = self.parts[name]
        rows = torch.arange(len(part))
        sampler = SizedBatches(part.batch.n_orbits, rows, self.tokens, self.batch_size, 0, False, 0, 1)
        return DataLoader(part, sampler=sampler, batch_size=None)

    def val_dataloader(self) -> DataLoader[Batch]:
        """In order of size."""
        return self._in_order("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """In order of size."""
        return self._in_order("test")


def _joined(parts: Sequence[CrystalRows]) -> CrystalRows:
    return CrystalRows(
        OrbitBatch.concatenate([part.batch for part in parts]),
        torch.cat([part.labels for part in parts]),
        torch.cat([part.source for part in parts]),
    )
