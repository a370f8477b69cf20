"""A batch of crystals as padded tensors over orbits: what the models see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from data.crystal import Crystal
from data.lattice import N_STRAIN, strain_mask
from data.wyckoff import wyckoff_table


@dataclass(frozen=True, eq=False)
class OrbitBatch:
    """B crystals of at most K orbits.

    Attributes:
        space_group: [B] long, 1 to 230.
        position: [B, K] long, Wyckoff position index (`data.wyckoff`); 0 where padded.
        atomic_number: [B, K] long; 0 where padded.
        coordinates: [B, K, 3] fractional free coordinates; 0 where not free.
        strain: [B, 6] lattice chart (`data.lattice`).
        mask: [B, K] bool, true for real orbits.
    """

    space_group: Tensor
    position: Tensor
    atomic_number: Tensor
    coordinates: Tensor
    strain: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return int(self.space_group.shape[0])

    @property
    def n_orbits(self) -> Tensor:
        """[B] orbits per crystal."""
        return self.mask.sum(-1)

    @property
    def coordinate_mask(self) -> Tensor:
        """[B, K, 3] bool: coordinates that the Wyckoff position leaves free."""
        free = wyckoff_table().free.to(self.position.device)[self.position]
        return free & self.mask[..., None]

    @property
    def strain_mask(self) -> Tensor:
        """[B, 6] bool: chart components that the crystal family leaves free."""
        return strain_mask(self.space_group)

    @property
    def multiplicity(self) -> Tensor:
        """[B, K] sites of each orbit in the primitive cell; 0 where padded."""
        table = wyckoff_table().primitive_multiplicity.to(self.position.device)
        return table[self.position] * self.mask

    @property
    def n_atoms(self) -> Tensor:
        """[B] atoms in the primitive cell."""
        return self.multiplicity.sum(-1)

    @property
    def n_elements(self) -> Tensor:
        """[B] different elements."""
        present = torch.zeros(len(self), 119, dtype=torch.bool, device=self.mask.device)
        return present.scatter(1, self.atomic_number, True)[:, 1:].sum(1)

    def replace(self, **changes: Tensor) -> OrbitBatch:
        """A copy with some tensors replaced."""
        return replace(self, **changes)

    def select(self, rows: Tensor) -> OrbitBatch:
        """The crystals at ``rows`` (indices or a mask), in that order."""
        return OrbitBatch(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def to(self, device: torch.device | str) -> OrbitBatch:
        """The batch on another device."""
        return OrbitBatch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def pin_memory(self) -> OrbitBatch:
        """The batch in pinned memory (for a DataLoader)."""
        return OrbitBatch(**{f.name: getattr(self, f.name).pin_memory() for f in fields(self)})

    @classmethod
    def from_crystals(cls, crystals: Sequence[Crystal], dtype: torch.dtype = torch.float64) -> OrbitBatch:
        """Pads to the largest number of orbits. Raises ValueError for an empty list."""
        if not crystals:
            raise ValueError("crystals=[]: a batch needs at least one crystal")
        return cls.from_sites(
            torch.tensor([c.space_group for c in crystals]),
            torch.tensor([len(c.letters) for c in crystals]),
            torch.tensor([p for c in crystals for p in c.positions]),
            torch.tensor([z for c in crystals for z in c.atomic_numbers]),
            torch.tensor([u for c in crystals for u in c.coordinates], dtype=dtype),
            torch.tensor([c.strain for c in crystals], dtype=dtype).reshape(len(crystals), N_STRAIN),
        )

    @classmethod
    def from_sites(
        cls,
        space_group: Tensor,
        n_orbits: Tensor,
        position: Tensor,
        atomic_number: Tensor,
        coordinates: Tensor,
        strain: Tensor,
    ) -> OrbitBatch:
        """Padded from flat rows: B space groups, numbers of orbits and strains; positions [N], atomic numbers [N] and
        coordinates [N, 3] of all orbits in order."""
        mask = torch.arange(int(n_orbits.max())) < n_orbits[:, None]

        def padded(rows: Tensor) -> Tensor:
            result = rows.new_zeros(*mask.shape, *rows.shape[1:])
            result[mask] = rows
            return result

        return cls(space_group, padded(position), padded(atomic_number), padded(coordinates), strain, mask)

    def to_crystals(self) -> list[Crystal]:
        """One `Crystal` per row."""
        table = wyckoff_table()
        positions, numbers = self.position.tolist(), self.atomic_number.tolist()
        coordinates, strains = self.coordinates.tolist(), self.strain.tolist()
        groups, counts = self.space_group.tolist(), self.n_orbits.tolist()
        return [
            Crystal(
                space_group=groups[i],
                letters=tuple(table.letter[p] for p in positions[i][:n]),
                atomic_numbers=tuple(numbers[i][:n]),
                coordinates=tuple((u[0], u[1], u[2]) for u in coordinates[i][:n]),
                strain=tuple(strains[i]),
            )
            for i, n in enumerate(counts)
        ]

    @staticmethod
    def concatenate(batches: Sequence[OrbitBatch]) -> OrbitBatch:
        """One batch from several, padded to the widest."""
        width = max(batch.mask.shape[1] for batch in batches)
        ends = [0, *accumulate(len(batch) for batch in batches)]
        parts: dict[str, Tensor] = {}
        for field in fields(OrbitBatch):
            values = [getattr(batch, field.name) for batch in batches]
            if field.name in ("space_group", "strain"):
                parts[field.name] = torch.cat(values)
                continue
            dtype = reduce(torch.promote_types, (value.dtype for value in values))
            parts[field.name] = values[0].new_zeros(ends[-1], width, *values[0].shape[2:], dtype=dtype)
            for value, (start, end) in zip(values, pairwise(ends), strict=True):
                parts[field.name][start:end, : value.shape[1]] = value
        return OrbitBatch(**parts)
