"""CHGNet on batches of cells, differentiable in coordinates and lattices with one backward pass.

CHGNet's own prediction asks for forces and stress in two separate backward passes, each of which keeps the
graph for a second derivative, and assembles its batches structure by structure. Here the neighbour lists of
all cells are joined first and one call of the network gives an energy that autograd carries back to
whatever the coordinates came from. Energies equal CHGNet's (Deng et al., Nat. Mach. Intell. 5, 1031 (2023)).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.cells import CellBatch

SCALE = "CHGNet 0.3.0"
MIN_DISTANCE = 0.5
"""Å; a cell with a shorter distance counts as collapsed."""
MIN_VOLUME_PER_ATOM, MAX_VOLUME_PER_ATOM = 3.0, 300.0
"""Å^3; denser cells count as collapsed (and would cost thousands of neighbours), thinner ones as exploded."""
CHUNK_ATOMS = 160


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


@dataclass(frozen=True, eq=False)
class _Graph:
    """Neighbour lists of one cell, as CHGNet's converter makes them."""

    n_atoms: int
    atom_graph: np.ndarray  # [directed, 2]
    image: np.ndarray  # [directed, 3]
    directed2undirected: np.ndarray  # [directed]
    undirected2directed: np.ndarray  # [undirected]
    bond_graph: np.ndarray  # [angles, 5]


class CHGNetPotential:
    """CHGNet 0.3.0 with frozen weights."""

    scale = SCALE

    def __init__(self, device: str = "cpu") -> None:
        from chgnet.model import CHGNet

        self.device = torch.device(device)
        self.model: Any = CHGNet.load(use_device=device, verbose=False)
        self.model.eval().requires_grad_(False)
        self.model.graph_converter.set_isolated_atom_response("ignore")
        self.n_evaluations = 0

    def evaluate(self, cells: CellBatch, magnetic_moments: bool = False) -> PotentialOutput:
        """Energies of all cells; gradients flow to ``frac_coords`` and ``lattice``.

        Memory does not grow with the number of cells if no gradient is asked for.
        """
        coords = cells.frac_coords.detach().cpu().double()
        lattices = cells.lattice.detach().cpu().double().numpy()
        wrapped = torch.remainder(coords, 1.0)
        shift = (coords - wrapped).round().numpy()
        coordinates = wrapped.numpy()
        counts = cells.n_atoms.tolist()
        ends = np.cumsum(counts)
        graphs: list[_Graph | None] = []
        reasons: list[str] = []
        for lattice, start, end in zip(lattices, ends - counts, ends, strict=True):
            graph, reason = self._graph(coordinates[start:end], shift[start:end], lattice)
            graphs.append(graph)
            reasons.append(reason)
        energy = cells.lattice.new_zeros(len(counts))
        moment = cells.lattice.new_zeros(len(coords)) if magnetic_moments else None
        good = [i for i, graph in enumerate(graphs) if graph is not None]
        for chunk in _chunks(good, counts):
            atoms = torch.cat([torch.arange(ends[i] - counts[i], ends[i]) for i in chunk])
            joined = self._join(cells, chunk, atoms, [graphs[i] for i in chunk])
            prediction = self.model._compute(joined, compute_magmom=magnetic_moments)
            composition = self._composition_energy(cells.atomic_number[atoms], joined.atom_owners, len(chunk))
            n = torch.tensor([counts[i] for i in chunk], device=self.device)
            value = prediction["e"] * (n if self.model.is_intensive else 1) + composition
            value = value.to(energy.device).to(energy.dtype)
            energy = energy.index_copy(0, torch.tensor(chunk, device=energy.device), value)
            if moment is not None:
                moment[atoms] = torch.cat(prediction["m"]).detach().to(moment.device).to(moment.dtype)
        self.n_evaluations += len(good)
        valid = torch.tensor([not reason for reason in reasons], device=energy.device)
        return PotentialOutput(energy, valid, tuple(reasons), moment)

    def _graph(self, coords: np.ndarray, shift: np.ndarray, lattice: np.ndarray) -> tuple[_Graph | None, str]:
        from pymatgen.optimization.neighbors import find_points_in_spheres

        converter = self.model.graph_converter
        if not np.isfinite(lattice).all() or not np.isfinite(coords).all():
            return None, "not a number"
        volume = abs(np.linalg.det(lattice)) / len(coords)
        if volume < MIN_VOLUME_PER_ATOM:
            return None, "collapsed"
        if volume > MAX_VOLUME_PER_ATOM:
            return None, "exploded"
        cartesian = np.ascontiguousarray(coords @ lattice)
        center, neighbour, image, distance = find_points_in_spheres(
            cartesian,
            cartesian,
            r=float(converter.atom_graph_cutoff),
            pbc=np.ones(3, dtype=np.int64),
            lattice=np.ascontiguousarray(lattice),
            tol=1e-8,
        )
        other = ~((center == neighbour) & (distance <= 1e-8))
        center, neighbour, image, distance = center[other], neighbour[other], image[other], distance[other]
        if len(distance) and distance.min() < MIN_DISTANCE:
            return None, "collapsed"
        if len(np.unique(center)) < len(coords):
            return None, "isolated atom"
        graph = converter.create_graph(len(coords), center, neighbour, image, distance)
        atom_graph, directed2undirected = graph.adjacency_list()
        bond_graph, undirected2directed = graph.line_graph_adjacency_list(cutoff=converter.bond_graph_cutoff)
        # The caller's coordinates are not wrapped: the image vectors take that up.
        pairs = np.asarray(atom_graph, dtype=np.int64).reshape(-1, 2)
        return (
            _Graph(
                len(coords),
                pairs,
                np.asarray(image, dtype=np.float64) - shift[pairs[:, 1]] + shift[pairs[:, 0]],
                np.asarray(directed2undirected, dtype=np.int64),
                np.asarray(undirected2directed, dtype=np.int64),
                np.asarray(bond_graph, dtype=np.int64).reshape(-1, 5),
            ),
            "",
        )

    def _join(self, cells: CellBatch, chunk: list[int], atoms: Tensor, graphs: list[Any]) -> Any:
        """CHGNet's `BatchedGraph` of the chunk, from joined index arrays."""
        from chgnet.model.model import BatchedGraph

        def offsets(sizes: list[int]) -> list[int]:
            return [0, *np.cumsum(sizes)[:-1].tolist()]

        n_atoms = [g.n_atoms for g in graphs]
        atom_offset = offsets(n_atoms)
        directed_offset = offsets([len(g.image) for g in graphs])
        undirected_offset = offsets([len(g.undirected2directed) for g in graphs])
        model, device = self.model, self.device

        def join(parts: list[np.ndarray]) -> Tensor:
            return torch.from_numpy(np.concatenate(parts)).to(device)

        pairs = join([g.atom_graph + o for g, o in zip(graphs, atom_offset, strict=True)])
        owner_of_pair = torch.repeat_interleave(
            torch.arange(len(graphs), device=device),
            torch.tensor([len(g.image) for g in graphs], device=device),
        )
        image = torch.from_numpy(np.concatenate([g.image for g in graphs])).float().to(device)
        directed2undirected = join([g.directed2undirected + o for g, o in zip(graphs, undirected_offset, strict=True)])
        undirected2directed = join([g.undirected2directed + o for g, o in zip(graphs, directed_offset, strict=True)])
        angles = join(
            [
                g.bond_graph + np.array([ao, uo, do, uo, do])
                for g, ao, uo, do in zip(graphs, atom_offset, undirected_offset, directed_offset, strict=True)
            ]
        )
        lattice = cells.lattice[chunk].float().to(device)
        owner = torch.repeat_interleave(torch.arange(len(graphs), device=device), torch.tensor(n_atoms, device=device))
        frac = cells.frac_coords[atoms].float().to(device)
        position = (frac[:, None, :] @ lattice[owner]).squeeze(1)
        shift = (image[:, None, :] @ lattice[owner_of_pair]).squeeze(1)
        zero = torch.zeros(1, 3, device=device)
        radial_atoms, radial_bonds, vectors = model.bond_basis_expansion(
            center=position[pairs[:, 0]],
            neighbor=position[pairs[:, 1]] + shift,
            undirected2directed=undirected2directed,
            image=zero,
            lattice=torch.eye(3, device=device),
        )
        if len(angles):
            angle_bases = model.angle_basis_expansion(vectors[angles[:, 2]], vectors[angles[:, 4]])
        else:
            angle_bases = torch.tensor([])
        return BatchedGraph(
            atomic_numbers=cells.atomic_number[atoms].to(device, torch.int32),
            bond_bases_ag=radial_atoms,
            bond_bases_bg=radial_bonds,
            angle_bases=angle_bases,
            batched_atom_graph=pairs,
            batched_bond_graph=angles[:, [0, 1, 3]],
            atom_owners=owner.int(),
            directed2undirected=directed2undirected,
            atom_positions=[],
            strains=[],
            volumes=[],
        )

    def _composition_energy(self, atomic_number: Tensor, owner: Tensor, n: int) -> Tensor:
        """[n] CHGNet's elemental reference energies summed over each cell, eV."""
        reference = self.model.composition_model.fc.weight[0]
        per_atom = reference[atomic_number.to(self.device) - 1]
        return torch.zeros(n, device=self.device).index_add(0, owner.long(), per_atom)


def _chunks(indices: list[int], counts: list[int]) -> list[list[int]]:
    """Runs of cells with about `CHUNK_ATOMS` atoms each."""
    result: list[list[int]] = []
    size = CHUNK_ATOMS
    for i in indices:
        if size + counts[i] > CHUNK_ATOMS:
            result.append([])
            size = 0
        result[-1].append(i)
        size += counts[i]
    return result
