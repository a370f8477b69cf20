"""Several prototypes as padded tensors, with what a model may know of their geometry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.cells import decode
from data.orbit_batch import OrbitBatch
from data.prototypes import Prototype
from data.wyckoff import wyckoff_table

NEIGHBOUR_SHELL = 1.15
_TENSORS = ("space_group", "site", "leader", "multiplicity", "mask", "distance", "coordination")


@dataclass(frozen=True, eq=False)
class PrototypeTable:
    """P prototypes of at most K orbits.

    Every tensor is invariant under `Prototype.equivalent_orders`: a model that sees an orbit only through
    them treats equivalent sites (A and B of an elpasolite) alike by construction.

    Attributes:
        prototypes: P prototypes; empty where the kinds of crystals are known by other means than prototypes.
        space_group: [P].
        site: [P, K] position index, the smallest among equivalent orbits; 0 where padded.
        leader: [P, K] column of the first orbit with the same species slot; its own column where padded.
        multiplicity: [P, K] sites in the primitive cell; 0 where padded.
        mask: [P, K] bool.
        distance: [P, K, K] shortest distance between the orbits' sites in a cell of 1 Å^3 per atom
            (dimensionless), averaged over equivalent orders; 0 where padded.
        coordination: [P, K, K] neighbours on orbit j of a site on orbit i within 1.15 times that distance.
    """

    prototypes: tuple[Prototype, ...]
    space_group: Tensor
    site: Tensor
    leader: Tensor
    multiplicity: Tensor
    mask: Tensor
    distance: Tensor
    coordination: Tensor

    def __len__(self) -> int:
        return len(self.space_group)

    @property
    def is_leader(self) -> Tensor:
        """[P, K] bool: orbits that stand for their species slot."""
        own = torch.arange(self.leader.shape[1], device=self.leader.device)
        return (self.leader == own) & self.mask

    @property
    def names(self) -> tuple[str, ...]:
        """Names in row order."""
        return tuple(p.name for p in self.prototypes)

    def to(self, device: torch.device | str) -> PrototypeTable:
        """The table on another device."""
        return PrototypeTable(
            self.prototypes,
            *(getattr(self, name).to(device) for name in _TENSORS),
        )

    @classmethod
    def build(cls, prototypes: Sequence[Prototype]) -> PrototypeTable:
        """The table of ``prototypes``. Raises ValueError for an empty list."""
        if not prototypes:
            raise ValueError("prototypes=[]: give at least one prototype")
        p, k = len(prototypes), max(len(x.letters) for x in prototypes)
        table = wyckoff_table()
        site = torch.zeros(p, k, dtype=torch.long)
        leader = torch.arange(k).repeat(p, 1)
        mask = torch.zeros(p, k, dtype=torch.bool)
        multiplicity = torch.zeros(p, k, dtype=torch.long)
        distance, coordination = torch.zeros(p, k, k), torch.zeros(p, k, k)
        for i, prototype in enumerate(prototypes):
            n = len(prototype.letters)
            positions = [table.index(prototype.space_group, x) for x in prototype.letters]
            orders = np.array(prototype.equivalent_orders)
            site[i, :n] = torch.from_numpy(np.array(positions)[orders].min(0))
            leader[i, :n] = torch.tensor([prototype.species.index(x) for x in prototype.species])
            mask[i, :n] = True
            multiplicity[i, :n] = table.primitive_multiplicity[positions]
            d, c = _orbit_geometry(prototype)
            mean_d = np.mean([d[np.ix_(o, o)] for o in orders], 0)
            mean_c = np.mean([c[np.ix_(o, o)] for o in orders], 0)
            distance[i, :n, :n] = torch.from_numpy(mean_d)
            coordination[i, :n, :n] = torch.from_numpy(mean_c)
        return cls(
            prototypes=tuple(prototypes),
            space_group=torch.tensor([x.space_group for x in prototypes]),
            site=site,
            leader=leader,
            multiplicity=multiplicity,
            mask=mask,
            distance=distance,
            coordination=coordination,
        )


@lru_cache(maxsize=4096)
def _orbit_geometry(prototype: Prototype) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shortest distance and coordination number between orbits, [k, k] each, at 1 Å^3 per atom."""
    cells = decode(OrbitBatch.from_crystals([prototype.with_orbit_elements([1] * len(prototype.letters))]))
    structure = next(cells.structures())
    structure.scale_lattice(float(len(structure)))
    orbit = cells.orbit.numpy()
    k = len(prototype.letters)
    distance = np.full((k, k), np.inf)
    coordination = np.zeros((k, k))
    radius = 2.0
    while not np.all(np.isfinite(distance)):
        center, neighbour, _, length = structure.get_neighbor_list(radius, numerical_tol=1e-3)
        np.minimum.at(distance, (orbit[center], orbit[neighbour]), length)
        radius *= 1.5
    center, neighbour, _, length = structure.get_neighbor_list(
        float(distance.max()) * NEIGHBOUR_SHELL + 1e-6, numerical_tol=1e-3
    )
    near = length <= NEIGHBOUR_SHELL * distance[orbit[center], orbit[neighbour]]
    np.add.at(coordination, (orbit[center[near]], orbit[neighbour[near]]), 1.0)
    return distance, coordination / np.bincount(orbit, minlength=k)[:, None]
