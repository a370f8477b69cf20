"""Which exchanges of elements leave a decorated prototype the same crystal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from data.lattice import strain_to_lattice
from data.symmetry import equivalent_coordinates
from data.wyckoff import wyckoff_table

SAME_BASIN = 0.75
"""Å; free coordinates closer than this relax to the same crystal."""


@dataclass(frozen=True)
class Reference:
    """A prototype's geometry: space group, [k] position indices, [k, 3] coordinates, [3] axes in Å."""

    space_group: int
    positions: Sequence[int]
    coordinates: NDArray[np.float64]
    axes: NDArray[np.float64]

    def sites(self, orbit: int) -> NDArray[np.float64]:
        """Sites of one orbit, [n, 3] in the conventional basis."""
        operations = wyckoff_table().images(self.positions[orbit]).numpy()
        return np.asarray(operations[:, :, :3] @ self.coordinates[orbit] + operations[:, :, 3])


def equivalent_orders(
    space_group: int,
    letters: Sequence[str],
    coordinates: Sequence[tuple[float, float, float]],
    strain: Sequence[float],
) -> tuple[tuple[int, ...], ...]:
    """Permutations p of k orbits such that elements e and ``[e[i] for i in p]`` are one crystal, identity first.

    Every normalizer coset that permutes the occupied letters, with every origin along polar axes, gives one. It
    counts if all free coordinates end within `SAME_BASIN` of the reference's own. Closeness is no equivalence
    relation, so the longest list, nearest permutations first, that forms a group is taken.
    """
    table = wyckoff_table()
    lattice = strain_to_lattice(torch.tensor(space_group), torch.tensor(strain, dtype=torch.float64))
    reference = Reference(
        space_group=space_group,
        positions=[table.index(space_group, x) for x in letters],
        coordinates=np.asarray(coordinates, dtype=np.float64),
        axes=lattice.norm(dim=-1).numpy(),
    )
    nearest: dict[tuple[int, ...], float] = {}
    for order, gap in _permutations(reference):
        nearest[order] = min(gap, nearest.get(order, np.inf))
    listed = sorted(nearest, key=lambda order: (round(nearest[order], 6), order))
    while not _is_group(listed):
        last = nearest[listed[-1]]
        listed = [order for order in listed if nearest[order] < last - 1e-6]
    return tuple(listed)


def _is_group(orders: Sequence[tuple[int, ...]]) -> bool:
    known = set(orders)
    return all(tuple(a[i] for i in b) in known for a in orders for b in orders)


def _permutations(reference: Reference) -> Iterator[tuple[tuple[int, ...], float]]:
    """(permutation, largest distance in Å by which an orbit misses its target) of each coset and origin."""
    table = wyckoff_table()
    start = int(table.position_start[reference.space_group])
    for affine, image in table.cosets(reference.space_group):
        moved = [start + int(image[p - start]) for p in reference.positions]
        if sorted(moved) != sorted(reference.positions):
            continue
        matrix, shift = affine[:, :3].numpy(), affine[:, 3].numpy()
        images = [reference.sites(i) @ matrix.T + shift for i in range(len(moved))]
        for origin in polar_origins(reference, images[0][0]):
            order, gap = _match(reference, moved, [sites + origin for sites in images])
            if gap <= SAME_BASIN:
                yield order, gap


def polar_origins(reference: Reference, first: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Shifts along the polar axes that could bring ``first``, a moved site, onto a site of the reference."""
    polar = wyckoff_table().polar[reference.space_group].numpy()
    if not polar.any():
        return [np.zeros(3)]
    targets = np.concatenate([reference.sites(j) for j in range(len(reference.positions))])
    shifts = np.mod(np.round((targets - first) * polar, 6), 1.0)
    return list(np.unique(shifts, axis=0))


def _match(reference: Reference, moved: list[int], images: list[NDArray[np.float64]]) -> tuple[tuple[int, ...], float]:
    """Orbit of the reference onto which each moved orbit falls best, and the largest miss in Å."""
    table = wyckoff_table()
    target = [-1] * len(moved)
    worst = 0.0
    for position in set(moved):
        sources = [i for i, p in enumerate(moved) if p == position]
        targets = [i for i, p in enumerate(reference.positions) if p == position]
        cost = np.zeros((len(sources), len(targets)))
        for a, i in enumerate(sources):
            options = equivalent_coordinates(reference.space_group, table.letter[position], images[i])
            for b, j in enumerate(targets):
                gap = options - reference.coordinates[j]
                cost[a, b] = np.linalg.norm((gap - np.round(gap)) * reference.axes, axis=1).min()
        rows, columns = linear_sum_assignment(cost)
        worst = max(worst, float(cost[rows, columns].max()))
        for a, b in zip(rows, columns, strict=True):
            target[sources[a]] = targets[b]
    return tuple(target), worst
