"""CGCNN's crystal graphs: each atom's 12 nearest neighbours within 8 Å, distances spread over Gaussians."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generators.oracles.crystal_graph import Merging, find_neighbours
from generators.oracles.potential import cell_problem, neighbour_problem

N_NEIGHBOURS, CUTOFF, STEP = 12, 8.0, 0.2
SAME_DISTANCE = 1e-4
"""Å; neighbours closer together than this count as equally far."""


@dataclass(frozen=True, eq=False)
class CgcnnGraph:
    """B crystals with N atoms and E directed edges in all.

    Attributes:
        atomic_number: [N].
        crystal: [N], from 0 to B - 1.
        center, neighbour: [E] atoms, counted through all crystals.
        bond: [E, 41] distances on Gaussians.
        weight: [E] how many of the center's 12 neighbours an edge stands for.
        n_atoms: [B].
    """

    atomic_number: Tensor
    crystal: Tensor
    center: Tensor
    neighbour: Tensor
    bond: Tensor
    weight: Tensor
    n_atoms: Tensor


def cgcnn_graph(coords: Any, lattice: Any, numbers: Any, known: Set[int]) -> tuple[CgcnnGraph | None, str]:
    """The graph of one cell, or the reason why it has none.

    CGCNN's own code leaves to chance which of several equally distant neighbours come twelfth. Here they share
    the places that are left, so that equal crystals get equal values however they are written.

    Args:
        coords: [n, 3] fractional.
        lattice: [3, 3] rows, Å.
        numbers: [n] atomic numbers.
        known: atomic numbers that have features.
    """
    if not known >= set(numbers.tolist()):
        return None, "unknown element"
    if reason := cell_problem(coords, lattice):
        return None, reason
    n = len(numbers)
    pairs = find_neighbours(coords, lattice, np.arange(n), Merging.NOTHING, CUTOFF)
    if reason := neighbour_problem(pairs.center, pairs.distance, n):
        return None, reason
    order = np.lexsort([pairs.distance, pairs.center])
    center, neighbour, distance = pairs.center[order], pairs.neighbour[order], pairs.distance[order]
    step = (np.diff(distance, prepend=0.0) > SAME_DISTANCE) | (np.diff(center, prepend=0) != 0)
    _, shell, size = np.unique(np.cumsum(step), return_inverse=True, return_counts=True)
    before = (np.cumsum(size) - size)[shell] - np.searchsorted(center, center)  # nearer neighbours of the center
    weight = np.clip((N_NEIGHBOURS - before) / size[shell], 0.0, 1.0)
    near = weight > 0
    center, neighbour, distance, weight = center[near], neighbour[near], distance[near], weight[near]
    # As in CGCNN, missing neighbours lie beyond the cutoff; there they are the first atom, here all in equal parts.
    missing = N_NEIGHBOURS - np.bincount(center, weight, minlength=n)
    lacking = np.flatnonzero(missing > 1e-9)
    center = np.concatenate([center, np.repeat(lacking, n)])
    neighbour = np.concatenate([neighbour, np.tile(np.arange(n), len(lacking))])
    distance = np.concatenate([distance, np.full(n * len(lacking), CUTOFF + 1.0)])
    weight = np.concatenate([weight, np.repeat(missing[lacking] / n, n)])
    bond = np.exp(-(((distance[:, None] - np.arange(0.0, CUTOFF + STEP, STEP)) / STEP) ** 2))
    graph = CgcnnGraph(
        atomic_number=torch.from_numpy(np.ascontiguousarray(numbers)),
        crystal=torch.zeros(n, dtype=torch.long),
        center=torch.from_numpy(center),
        neighbour=torch.from_numpy(neighbour),
        bond=torch.from_numpy(bond).float(),
        weight=torch.from_numpy(weight).float(),
        n_atoms=torch.tensor([n]),
    )
    return graph, ""


def join_graphs(graphs: list[CgcnnGraph]) -> CgcnnGraph:
    """Graphs of one crystal each as one graph of many."""
    sizes = torch.cat([graph.n_atoms for graph in graphs])
    starts = (torch.cumsum(sizes, 0) - sizes).tolist()
    return CgcnnGraph(
        atomic_number=torch.cat([graph.atomic_number for graph in graphs]),
        crystal=torch.repeat_interleave(torch.arange(len(graphs)), sizes),
        center=torch.cat([graph.center + start for graph, start in zip(graphs, starts, strict=True)]),
        neighbour=torch.cat([graph.neighbour + start for graph, start in zip(graphs, starts, strict=True)]),
        bond=torch.cat([graph.bond for graph in graphs]),
        weight=torch.cat([graph.weight for graph in graphs]),
        n_atoms=sizes,
    )
