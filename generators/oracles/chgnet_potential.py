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
from generators.oracles.crystal_graph import CrystalGraph, Merging, Neighbours, build_graph, find_neighbours

SCALE = "CHGNet 0.3.0"
MIN_DISTANCE = 0.5
"""Å; a cell with a shorter distance counts as collapsed."""
MIN_VOLUME_PER_ATOM, MAX_VOLUME_PER_ATOM = 3.0, 300.0
"""Å^3; denser cells count as collapsed (and would cost thousands of neighbours), thinner ones as exploded."""
CHUNK_PAIRS, CHUNK_MERGED_PAIRS = 8_000, 40_000
"""Neighbour pairs evaluated together: enough to amortise each call, few enough for the processor's cache.
Merged pairs are counted before merging, which leaves a tenth of them or less."""


@dataclass(frozen=True, eq=False)
class PotentialOutput:
    """Energies of B cells with N atoms in all.

    Attributes:
        energy: [B] eV per cell (0 where not valid).
        valid: [B] bool; false for collapsed cells and cells with an isolated atom.
        reason: B strings, empty where valid.
        magnetic_moment: [N] absolute moments, µB, or None.
    """

    energy: Tensor
    valid: Tensor
    reason: tuple[str, ...]
    magnetic_moment: Tensor | None


def best_device(wanted: str = "auto") -> str:
    """``auto`` is CUDA, else MPS, else the CPU; anything else is taken as it is."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


class CHGNetPotential:
    """CHGNet 0.3.0 with frozen weights."""

    scale = SCALE

    def __init__(self, device: str = "cpu") -> None:
        from chgnet.model import CHGNet

        self.device = torch.device(device)
        self.model: Any = CHGNet.load(use_device=device, verbose=False)
        self.model.eval().requires_grad_(False)
        self.network = CHGNetNetwork(self.model)
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
        energy, moment = _Energy.apply(cells.frac_coords, cells.lattice, cells.atomic_number, chunks, self)
        self.n_evaluations += sum(not reason for reason in reasons)
        valid = torch.tensor([not reason for reason in reasons], device=energy.device)
        return PotentialOutput(energy, valid, tuple(reasons), moment if magnetic_moments else None)

    def _prepare(self, cells: CellBatch, generic: CellBatch | None) -> tuple[list[_Chunk], list[str]]:
        """Graphs of the cells that can be evaluated, and for all cells a reason if they cannot."""
        coords, lattices = _numpy(cells.frac_coords), _numpy(cells.lattice)
        shapes = (coords, lattices) if generic is None else (_numpy(generic.frac_coords), _numpy(generic.lattice))
        orbit = cells.orbit.cpu().numpy()
        merging = Merging.NOTHING if generic is None else Merging.ORBITS
        ends = np.cumsum(cells.n_atoms.cpu().numpy())
        spans = [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        limit = CHUNK_PAIRS if generic is None else CHUNK_MERGED_PAIRS
        chunks: list[_Chunk] = []
        reasons: list[str] = []
        waiting: list[tuple[int, Neighbours]] = []
        pairs = 0
        for i, span in enumerate(spans):
            part, reason = _neighbours(coords[span], lattices[i], orbit[span], merging)
            reasons.append(reason)
            if part is not None:
                waiting.append((i, part))
                pairs += len(part.center)
            if waiting and (i == len(spans) - 1 or pairs > limit):
                chunks.append(_chunk(waiting, spans, coords, lattices, orbit, shapes))
                waiting, pairs = [], 0
        return chunks, reasons

    def _chunk_energy(self, chunk: _Chunk, coords: Tensor, lattices: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
        """Energies [b] (eV) and moments of the nodes for atoms and lattices of one chunk."""
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
        return energy, moment


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Cells that are evaluated together: their indices, atoms, and graph."""

    cells: Tensor
    atoms: Tensor
    cell_of_atom: NDArray[np.int64]
    graph: CrystalGraph


class _Energy(torch.autograd.Function):
    """Energies chunk by chunk, each with its derivative at once, so that only one chunk's graph is ever held."""

    @staticmethod
    def forward(
        ctx: Any, coords: Tensor, lattices: Tensor, number: Tensor, chunks: list[_Chunk], potential: CHGNetPotential
    ) -> tuple[Tensor, Tensor]:
        wanted = any(ctx.needs_input_grad[:2])
        device = torch.device("cpu")
        x, box, z = coords.detach().to(device), lattices.detach().to(device), number.to(device)
        energy, moment = box.new_zeros(len(box)), x.new_zeros(len(x))
        force, stress = torch.zeros_like(x), torch.zeros_like(box)
        cell_of_atom = torch.zeros(len(x), dtype=torch.long)
        for chunk in chunks:
            with torch.set_grad_enabled(wanted):
                part, part_box = x[chunk.atoms].requires_grad_(wanted), box[chunk.cells].requires_grad_(wanted)
                value, site_moment = potential._chunk_energy(chunk, part, part_box, z[chunk.atoms])
                if wanted:
                    force[chunk.atoms], stress[chunk.cells] = torch.autograd.grad(value.sum(), [part, part_box])
            energy[chunk.cells] = value.detach()
            moment[chunk.atoms] = site_moment.detach().to(moment)[torch.from_numpy(chunk.graph.node_of_atom)]
            cell_of_atom[chunk.atoms] = chunk.cells[torch.from_numpy(chunk.cell_of_atom)]
        ctx.save_for_backward(force.to(coords), stress.to(lattices), cell_of_atom.to(coords.device))
        moment = moment.to(coords)
        ctx.mark_non_differentiable(moment)
        return energy.to(lattices), moment

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, energy: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        force, stress, cell_of_atom = ctx.saved_tensors
        return force * energy[cell_of_atom, None].to(force), stress * energy[:, None, None], None, None, None


def _numpy(values: Tensor) -> NDArray[np.float64]:
    return values.detach().cpu().double().numpy()


def _neighbours(coords: Any, lattice: Any, orbit: Any, merging: Merging) -> tuple[Neighbours | None, str]:
    """Neighbours of one cell, or the reason why it has no energy."""
    if not np.isfinite(lattice).all() or not np.isfinite(coords).all():
        return None, "not a number"
    volume = abs(np.linalg.det(lattice)) / len(coords)
    if volume < MIN_VOLUME_PER_ATOM:
        return None, "collapsed"
    if volume > MAX_VOLUME_PER_ATOM:
        return None, "exploded"
    part = find_neighbours(coords, lattice, orbit, merging)
    if len(part.distance) and part.distance.min() < MIN_DISTANCE:
        return None, "collapsed"
    if len(np.unique(part.center)) < len(part.first):
        return None, "isolated atom"
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
