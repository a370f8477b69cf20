"""CHGNet's graphs of many cells at once, with symmetry-equivalent parts merged.

CHGNet sees distances and angles only, so sites of one orbit carry equal features, and so do equivalent bonds
and angles. One representative of each, with the number that it stands for, gives the same energy. Bonds count as
equivalent if they join the same two orbits at the same distance in a *generic* geometry of the same
symmetry (`generic_cells`), where no two distances agree by chance: the gradient along every free parameter
stays exact also where the true geometry is more symmetric than its space group.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray

from data.cells import CellBatch, decode
from data.orbit_batch import OrbitBatch

ATOM_CUTOFF, BOND_CUTOFF = 6.0, 3.0
"""Å, CHGNet's; bonds at or beyond a cutoff have weight exactly 0."""
SAME = 1e-8
"""Å (distances) and 1 (cosines); closer values of the generic geometry are equal by symmetry."""

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Merging(IntEnum):
    """How much of a cell is merged; `build_graph` tells which cells need the next."""

    ORBITS = 0
    """Pairs from one atom per orbit; enough unless some bond looks different from its two ends."""
    BOTH_ENDS = 1
    """Pairs from all atoms, so that the two ends of a bond can be told apart."""
    NOTHING = 2
    """Every atom, bond and angle on its own."""


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Directed neighbour pairs of one cell.

    Attributes:
        first: [n] the atom that stands for each node.
        node_of_atom: [atoms] node of each atom: its orbit, or itself if nothing is merged.
        center, neighbour: [E] atoms.
        image: [E, 3] cell of the neighbour, for the coordinates as given (not wrapped).
        distance: [E] Å.
        merging: what is merged.
    """

    first: Integers
    node_of_atom: Integers
    center: Integers
    neighbour: Integers
    image: Floats
    distance: Floats
    merging: Merging


@dataclass(frozen=True, eq=False)
class CrystalGraph:
    """Joined graph of b cells; atoms are counted through all of them.

    Attributes:
        node_atom, node_cell, node_weight: [nodes] an atom, the cell, the number of atoms it stands for.
        node_of_atom: [atoms].
        bond: ([U], [U], [U, 3]) center, neighbour, image of undirected bonds, those shorter than
            `BOND_CUTOFF` first.
        n_short: number of those.
        edge_center, edge_neighbour: [E] nodes; edge_bond: [E]; edge_weight: [E].
        arm: center, neighbour, image of directed short bonds that angles use.
        angle_center: [A] node; angle_bond, angle_arm: [A, 2] into bonds and arms; angle_weight: [A].
    """

    node_atom: Integers
    node_cell: Integers
    node_weight: Integers
    node_of_atom: Integers
    bond: tuple[Integers, Integers, Floats]
    n_short: int
    edge_center: Integers
    edge_neighbour: Integers
    edge_bond: Integers
    edge_weight: Integers
    arm: tuple[Integers, Integers, Floats]
    angle_center: Integers
    angle_bond: Integers
    angle_arm: Integers
    angle_weight: Integers
    uneven: Integers
    """Cells that need the next `Merging`: bonds of one class have different surroundings."""


def generic_cells(batch: OrbitBatch) -> CellBatch:
    """The crystals with every free parameter moved by a few hundredths, the same in each: no chance agreements."""
    k = batch.mask.shape[1]
    strain = torch.sin(torch.arange(1, 7) * 12.9898).to(batch.strain) * 0.05
    steps = torch.sin(torch.arange(1, 3 * k + 1) * 78.233).to(batch.coordinates).reshape(k, 3) * 0.03
    moved = batch.replace(strain=batch.strain.detach() + strain, coordinates=batch.coordinates.detach() + steps)
    return decode(moved)


def find_neighbours(
    coords: Floats, lattice: Floats, orbit: Integers, merging: Merging, cutoff: float = ATOM_CUTOFF
) -> Neighbours:
    """Pairs within ``cutoff`` (Å) of one cell with atoms of the orbits ``orbit`` [atoms]."""
    from pymatgen.optimization.neighbors import find_points_in_spheres

    wrapped = coords - np.floor(coords)
    shift = coords - wrapped
    every = np.arange(len(coords))
    _, first, node_of_atom = np.unique(
        every if merging == Merging.NOTHING else orbit, return_index=True, return_inverse=True
    )
    centers = first if merging == Merging.ORBITS else every
    cartesian = np.ascontiguousarray(wrapped @ lattice)
    center, neighbour, image, distance = find_points_in_spheres(
        cartesian, np.ascontiguousarray(cartesian[centers]), r=cutoff, pbc=np.ones(3, dtype=np.int64),
        lattice=np.ascontiguousarray(lattice), tol=1e-8,
    )  # fmt: skip
    center = centers[center]
    other = ~((center == neighbour) & (distance <= 1e-8))
    center, neighbour, image, distance = center[other], neighbour[other], image[other], distance[other]
    image = image - shift[neighbour] + shift[center]
    return Neighbours(first, node_of_atom, center, neighbour, image, distance, merging)


def _labels(keys: list[Integers], value: Floats) -> Integers:
    """[n] class of each row: equal keys, and values that chain together in steps below `SAME`."""
    order = np.lexsort([value, *reversed(keys)])
    new = np.zeros(len(order), dtype=bool)
    for key in keys:
        new[1:] |= np.diff(key[order]) != 0
    new[1:] |= np.diff(value[order]) > SAME
    labels = np.empty(len(order), dtype=np.int64)
    labels[order] = np.cumsum(new)
    return labels


def _bond_classes(start: Integers, end: Integers, image: Floats, length: Floats, merge: Flags) -> Integers:
    """[E] undirected bond of each directed pair of nodes."""
    signs = np.sign(image)
    leading = np.where(signs[:, 0] != 0, signs[:, 0], np.where(signs[:, 1] != 0, signs[:, 1], signs[:, 2]))
    backward = (start > end) | ((start == end) & (leading < 0))
    canonical = np.where(merge[:, None], 0, np.where(backward[:, None], -image, image)).round().astype(np.int64)
    return _labels([np.minimum(start, end), np.maximum(start, end), *canonical.T], np.where(merge, length, 0.0))


def _reverse(center: Integers, neighbour: Integers, image: Floats) -> Integers:
    """[n] row of each directed pair of atoms backwards, -1 where it is missing."""
    cells = image.round().astype(np.int64)
    there = np.lexsort([*cells.T, neighbour, center])
    back = np.lexsort([*-cells.T, center, neighbour])
    result = np.empty(len(center), dtype=np.int64)
    result[there] = back
    found = (center[result] == neighbour) & (neighbour[result] == center) & (cells[result] == -cells).all(-1)
    return np.where(found, result, -1)


def _surroundings(i: Integers, far: Integers, cosine: Floats, n: int) -> Floats:
    """[n] a number for each short bond that depends on the classes and angles of those around its center."""
    shape = np.cos(1.7 * far + 0.4) * (1 + cosine * (1 + cosine * (1 + 0.7 * cosine)))
    result: Floats = np.bincount(i, shape, minlength=n).astype(np.float64)
    return result


def _pairs(group: Integers) -> tuple[Integers, Integers]:
    """All ordered pairs (i, j), i != j, of rows with equal ``group`` (sorted)."""
    if not len(group):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    _, start, inverse, size = np.unique(group, return_index=True, return_inverse=True, return_counts=True)
    repeat = size[inverse]
    i = np.repeat(np.arange(len(group)), repeat)
    offset = np.arange(len(i)) - np.repeat(np.cumsum(repeat) - repeat, repeat)
    j = np.repeat(start[inverse], repeat) + offset
    different = i != j
    return i[different], j[different]


def build_graph(parts: list[Neighbours], coords: Floats, lattices: Floats) -> CrystalGraph:
    """Join the neighbour lists of b cells.

    Args:
        parts: one per cell.
        coords: [atoms, 3], lattices: [b, 3, 3] of the generic geometry (the true one will do where
            nothing is merged).
    """
    nodes = np.array([len(p.first) for p in parts])
    atom_start = np.cumsum([0] + [len(p.node_of_atom) for p in parts])[:-1]
    node_start = np.cumsum(nodes) - nodes
    sizes = [len(p.center) for p in parts]
    cell = np.repeat(np.arange(len(parts)), sizes)
    node_atom = np.concatenate([p.first + o for p, o in zip(parts, atom_start, strict=True)])
    node_of_atom = np.concatenate([p.node_of_atom + o for p, o in zip(parts, node_start, strict=True)])
    center = np.concatenate([p.center + o for p, o in zip(parts, atom_start, strict=True)])
    neighbour = np.concatenate([p.neighbour + o for p, o in zip(parts, atom_start, strict=True)])
    image = np.concatenate([p.image for p in parts])
    distance = np.concatenate([p.distance for p in parts])
    merging = np.repeat([p.merging for p in parts], sizes)
    merge = merging != Merging.NOTHING
    vector = ((coords[neighbour] + image - coords[center])[:, None] @ lattices[cell])[:, 0]
    length = np.sqrt((vector * vector).sum(-1))
    start, end = node_of_atom[center], node_of_atom[neighbour]

    # Classes of undirected bonds, and where needed of their two ends, from lengths and surroundings.
    bond = _bond_classes(start, end, image, length, merge)
    arms = np.flatnonzero(distance < BOND_CUTOFF)
    arms = arms[np.argsort(center[arms], kind="stable")]
    i, j = _pairs(center[arms])
    direction = vector[arms] / length[arms][:, None]
    cosine = (direction[i] * direction[j]).sum(-1)
    side = np.zeros(len(bond), dtype=np.int64)
    alike = merge & (start == end)  # both directions of such a bond have the same class
    broken = np.zeros(0, dtype=np.int64)
    both = np.flatnonzero(merging[arms] == Merging.BOTH_ENDS)
    if len(both):
        seen = _surroundings(i, bond[arms[j]], cosine, len(arms))
        rows = arms[both]
        side[rows] = _labels([start[rows], bond[rows]], seen[both]) + 1
        back = _reverse(center[rows], neighbour[rows], image[rows])
        broken = cell[rows[back < 0]]
        other = np.zeros_like(side)
        other[rows] = side[rows[back]]
        alike &= side == other
        bond = _labels([bond, np.minimum(side, other), np.maximum(side, other)], np.zeros(len(bond)))
    single = np.where(merge, 0, np.arange(len(bond)))
    edge = _labels([start, bond, side, single], np.zeros(len(bond)))
    seen = np.zeros(len(bond))
    seen[arms] = _surroundings(i, bond[arms[j]], cosine, len(arms))
    _, any_edge, edge = np.unique(edge, return_index=True, return_inverse=True)
    uneven = np.unique(np.concatenate([broken, cell[np.abs(seen - seen[any_edge[edge]]) > 1e-6]]))

    # One bond, directed bond and angle of each class; directed bonds and angles at the nodes' own atoms only.
    _, bond_edge, bond = np.unique(bond, return_index=True, return_inverse=True)
    short_first = np.argsort(distance[bond_edge] >= BOND_CUTOFF, kind="stable")
    bond_edge, bond = bond_edge[short_first], np.argsort(short_first)[bond]
    n_short = int((distance[bond_edge] < BOND_CUTOFF).sum())
    own = np.flatnonzero(center == node_atom[start])
    _, chosen, edge_weight = np.unique(edge[own], return_index=True, return_counts=True)
    chosen = own[chosen]
    is_chosen = np.zeros(len(bond), dtype=bool)
    is_chosen[chosen] = True

    keep = is_chosen[arms[i]] & (bond[arms[i]] < n_short) & (bond[arms[j]] < n_short)
    i, j, cosine = i[keep], j[keep], cosine[keep]
    merged = merge[arms[i]]
    angle = _labels([i, bond[arms[j]], np.where(merged, 0, j)], np.where(merged, cosine, 0.0))
    _, first, count = np.unique(angle, return_index=True, return_counts=True)
    i, j = i[first], j[first]
    return CrystalGraph(
        node_atom=node_atom,
        node_cell=np.repeat(np.arange(len(parts)), nodes),
        node_weight=np.bincount(node_of_atom),
        node_of_atom=node_of_atom,
        bond=(center[bond_edge], neighbour[bond_edge], image[bond_edge]),
        n_short=n_short,
        edge_center=start[chosen],
        edge_neighbour=end[chosen],
        edge_bond=bond[chosen],
        edge_weight=edge_weight,
        arm=(center[arms], neighbour[arms], image[arms]),
        angle_center=start[arms[i]],
        angle_bond=bond[arms[np.stack([i, j], 1)]],
        angle_arm=np.stack([i, j], 1),
        angle_weight=count * np.where(alike[arms[i]], 2, 1),
        uneven=uneven,
    )
