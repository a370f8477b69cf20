"""Crystals with their properties: what every reader returns and every training run starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from data.orbit_batch import OrbitBatch
from data.protostructure import key_of
from data.wyckoff import wyckoff_table


@dataclass(frozen=True, eq=False)
class CrystalDataset:
    """B crystals.

    Attributes:
        batch: the crystals.
        properties: name -> [B] float64 in the unit of `data.properties`; NaN where unknown.
        prototype: B names in the prototype library, ``""`` where not stated.
        ids: B identifiers from the source.

    Raises:
        ValueError: a column is not B long.
    """

    batch: OrbitBatch
    properties: Mapping[str, Tensor]
    prototype: tuple[str, ...]
    ids: tuple[str, ...]

    def __post_init__(self) -> None:
        n = len(self.batch)
        lengths = {"prototype": len(self.prototype), "ids": len(self.ids)}
        lengths.update({name: len(values) for name, values in self.properties.items()})
        for name, length in lengths.items():
            if length != n:
                raise ValueError(f"{name}: has {length} entries for {n} crystals")

    def __len__(self) -> int:
        return len(self.batch)

    @cached_property
    def _keys(self) -> tuple[str, ...]:
        letter = wyckoff_table().letter
        groups, counts = self.batch.space_group.tolist(), self.batch.n_orbits.tolist()
        positions, numbers = self.batch.position.tolist(), self.batch.atomic_number.tolist()
        return tuple(
            key_of(group, tuple(letter[p] for p in row[:n]), z[:n])
            for group, n, row, z in zip(groups, counts, positions, numbers, strict=True)
        )

    def keys(self) -> list[str]:
        """Crystal key (`data.protostructure.crystal_key`) of each row; computed once."""
        return list(self._keys)

    def select(self, rows: Tensor) -> CrystalDataset:
        """The crystals at ``rows`` (indices or a mask), in that order."""
        index = rows.nonzero().squeeze(-1) if rows.dtype == torch.bool else rows
        listed = index.tolist()
        result = CrystalDataset(
            batch=self.batch.select(index),
            properties={name: values[index] for name, values in self.properties.items()},
            prototype=tuple(self.prototype[i] for i in listed),
            ids=tuple(self.ids[i] for i in listed),
        )
        if "_keys" in self.__dict__:
            result.__dict__["_keys"] = tuple(self._keys[i] for i in listed)
        return result

    @staticmethod
    def concatenate(parts: Sequence[CrystalDataset]) -> CrystalDataset:
        """One data set from several; a property that a part lacks is NaN there.

        Raises:
            ValueError: no parts.
        """
        if not parts:
            raise ValueError("parts=[]: nothing to concatenate")
        names = dict.fromkeys(name for part in parts for name in part.properties)
        unknown = [torch.full((len(part),), torch.nan, dtype=torch.float64) for part in parts]
        return CrystalDataset(
            batch=OrbitBatch.concatenate([part.batch for part in parts]),
            properties={
                name: torch.cat([p.properties.get(name, nan) for p, nan in zip(parts, unknown, strict=True)])
                for name in names
            },
            prototype=tuple(name for part in parts for name in part.prototype),
            ids=tuple(name for part in parts for name in part.ids),
        )
