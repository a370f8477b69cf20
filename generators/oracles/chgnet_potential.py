"""CHGNet on batches of cells, differentiable in coordinates and lattices with one backward pass.

Energies equal those of CHGNet's own code (Deng et al., Nat. Mach. Intell. 5, 1031 (2023)); the graphs are joined
and reduced by symmetry (`crystal_graph`) and the network's products are reordered (`chgnet_network`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.cells import CellBatch
from generators.oracles.chgnet_network import CHGNetNetwork
from generators.oracles.chunks import evaluate_chunks
from generators.oracles.crystal_graph import CrystalGraph, Merging, Neighbours, build_graph, find_neighbours
from generators.oracles.potential import (
    PotentialOutput,
    cell_problem,
    neighbour_problem,
    to_numpy,
)

SCALE = "CHGNet 0.3.0"
CHUNK_PAIRS, CHUNK_MERGED_PAIRS = 8_000, 40_000
"""Neighbour pairs evaluated together: enough to amortise each call, few enough for the processor's cache.
Merged pairs are counted before merging, which leaves a tenth of them or less."""
GPU_FACTOR = 50
"""A GPU evaluates so many times more pairs together."""


class CHGNetPotential:
    """CHGNet 0.3.0 with frozen weights."""

    scale = SCALE
    gives_moments = True

    def __init__(self, device: str = "cpu") -> None:
        from chgnet.model import CHGNet

        self.device = torch.device(device)
        self.model: Any = CHGNet.load(use_device=device, verbose=False)
        self.model.eval().requires_grad_(False)
        self.network = CHGNetNetwork(self.model)
        self.n_elements = self.model.composition_model.fc.weight.shape[1]
        self.n_evaluations = 0

    def evaluate(
        self, cells: CellBatch, magnetic_moments: bool = False, generic: CellBatch | None = None
    ) -> PotentialOutput:
        """Energies of all cells; gradients flow to ``frac_coords`` and ``lattice``, once (no second derivatives).

        The network holds one chunk at a time, with gradients too; only neighbour lists grow with the cells.

        Args:
            cells: primitive cells.
            magnetic_moments: also give the moments of the atoms.
            generic: `generic_cells` of the same crystals: equivalent sites, bonds and angles are then evaluated
                once. Energies stay the same; gradients hold along the free parameters of the space group
                (chained through `data.cells.decode`), not for single atoms.
        """
        chunks, reasons = self._prepare(cells, generic)
        energy, moment = evaluate_chunks(cells, chunks, self._chunk_energy)
        self.n_evaluations += sum(not reason for reason in reasons)
        valid = torch.tensor([not reason for reason in reasons], device=energy.device)
        return PotentialOutput(energy, valid, tuple(reasons), moment if magnetic_moments else None)

    def _prepare(self, cells: CellBatch, generic: CellBatch | None) -> tuple[list[_Chunk], list[str]]:
        """Graphs of the cells that can be evaluated, and for all cells a reason if they cannot."""
        coords, lattices = to_numpy(cells.frac_coords), to_numpy(cells.lattice)
        shapes = (coords, lattices) if generic is None else (to_numpy(generic.frac_coords), to_numpy(generic.lattice))
        orbit, number = cells.orbit.cpu().numpy(), cells.atomic_number.cpu().numpy()
        merging = Merging.NOTHING if generic is None else Merging.ORBITS
        ends = np.cumsum(cells.n_atoms.cpu().numpy())
        spans = [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        limit = CHUNK_PAIRS if generic is None else CHUNK_MERGED_PAIRS
        limit *= 1 if self.device.type == "cpu" else GPU_FACTOR
        chunks: list[_Chunk] = []
        reasons: list[str] = []
        waiting: list[tuple[int, Neighbours]] = []
        pairs = 0
        for i, span in enumerate(spans):
            known = number[span].max() <= self.n_elements
            part, reason = (
                _neighbours(coords[span], lattices[i], orbit[span], merging) if known else (None, "unknown element")
            )
            reasons.append(reason)
            if part is not None:
                waiting.append((i, part))
                pairs += len(part.center)
            if waiting and (i == len(spans) - 1 or pairs > limit):
                chunks.append(_chunk(waiting, spans, coords, lattices, orbit, shapes))
                waiting, pairs = [], 0
        return chunks, reasons

    def _chunk_energy(self, chunk: _Chunk, coords: Tensor, lattices: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
        """Energies [b] (eV) and moments of the atoms [n] for atoms and lattices of one chunk."""
        graph, device = chunk.graph, self.device

        def vectors(center: Any, neighbour: Any, image: Any) -> Tensor:
            i, j = torch.from_numpy(center), torch.from_numpy(neighbour)
            step = coords[j] + torch.from_numpy(image).to(coords) - coords[i]
            return (step[:, None] @ lattices[torch.from_numpy(chunk.cell_of_atom[center])])[:, 0]

        distance = vectors(*graph.bond).norm(dim=-1)
        arm = torch.nn.functional.normalize(vectors(*graph.arm), dim=-1)
        pair = torch.from_numpy(graph.angle_arm)
        cosine = (arm[pair[:, 0]] * arm[pair[:, 1]]).sum(-1)
        species = number[torch.from_numpy(graph.node_atom)].to(device)
        site, moment = self.network(graph, species, distance.float().to(device), cosine.float().to(device))
        site = (site + self.model.composition_model.fc.weight[0][species - 1]).to(coords)
        weighted = site * torch.from_numpy(graph.node_weight).to(coords)
        energy = coords.new_zeros(len(lattices)).index_add(0, torch.from_numpy(graph.node_cell), weighted)
        return energy, moment.cpu()[torch.from_numpy(graph.node_of_atom)]


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Cells that are evaluated together: their indices, atoms, and graph."""

    cells: Tensor
    atoms: Tensor
    cell_of_atom: NDArray[np.int64]
    graph: CrystalGraph


def _neighbours(coords: Any, lattice: Any, orbit: Any, merging: Merging) -> tuple[Neighbours | None, str]:
    """Neighbours of one cell, or the reason why it has no energy."""
    if reason := cell_problem(coords, lattice):
        return None, reason
    part = find_neighbours(coords, lattice, orbit, merging)
    if reason := neighbour_problem(part.center, part.distance, len(part.first)):
        return None, reason
    return part, ""


def _chunk(
    waiting: list[tuple[int, Neighbours]], spans: list[slice], coords: Any, lattices: Any, orbit: Any, shapes: Any
) -> _Chunk:
    """The graph of some cells, each merged as far as its symmetry allows."""
    rows = [i for i, _ in waiting]
    atoms = np.concatenate([np.arange(spans[i].start, spans[i].stop) for i in rows])
    parts = [part for _, part in waiting]
    graph = build_graph(parts, shapes[0][atoms], shapes[1][rows])
    while len(graph.uneven):
        for n in graph.uneven.tolist():
            span, less = spans[rows[n]], Merging(parts[n].merging + 1)
            parts[n] = find_neighbours(coords[span], lattices[rows[n]], orbit[span], less)
        graph = build_graph(parts, shapes[0][atoms], shapes[1][rows])
    cell_of_atom = np.repeat(np.arange(len(rows)), [len(p.node_of_atom) for p in parts])
    return _Chunk(torch.tensor(rows), torch.from_numpy(atoms), cell_of_atom, graph)
