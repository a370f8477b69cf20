"""SevenNet on batches of cells, differentiable in coordinates and lattices with one backward pass.

Park, Kim, Hwang and Han, J. Chem. Theory Comput. 20, 4857 (2024): an equivariant network, trained on the same
relaxation paths as CHGNet but by other people, with another architecture, and on energies *without* the
Materials Project's corrections. That makes it a second opinion. The weights are those in the sevenn package.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.cells import CellBatch
from generators.oracles.chunks import evaluate_chunks
from generators.oracles.crystal_graph import Merging, Neighbours, find_neighbours
from generators.oracles.potential import (
    PotentialOutput,
    cell_problem,
    neighbour_problem,
    to_numpy,
)

SCALE = "SevenNet-0 11Jul2024 (PBE, uncorrected)"
CHUNK_EDGES = 2_000
"""Directed edges evaluated together: enough to amortise each call, a few hundred MB with gradients."""
NOT_NEEDED = ("reduce_total_enegy", "force_output")
"""Layers of SevenNet that sum over a cell and differentiate (its own spelling); done here instead."""


def import_sevenn() -> Any:
    """The sevenn package. Raises ImportError in one line that says what to install."""
    try:
        import sevenn
    except ImportError:
        raise ImportError("SevenNet is not installed: pip install 'raremat[second]'") from None
    return sevenn


class SevenNetPotential:
    """SevenNet-0 (11 July 2024) with frozen weights.

    Raises:
        ImportError: sevenn is not installed.
        ValueError: the installed sevenn carries other weights.
    """

    scale = SCALE
    gives_moments = False

    def __init__(self, device: str = "cpu") -> None:
        import_sevenn()
        from sevenn._const import SEVENNET_0_11Jul2024
        from sevenn.checkpoint import SevenNetCheckpoint

        # A file of the package itself, as trusted as its code: its loader unpickles.
        if not Path(SEVENNET_0_11Jul2024).exists():
            raise ValueError("SevenNet-0 11Jul2024: not in the installed sevenn, install sevenn>=0.13")
        self.device = torch.device(device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            checkpoint = SevenNetCheckpoint(SEVENNET_0_11Jul2024)
            model: Any = checkpoint.build_model()
        model.set_is_batch_data(True)
        self.cutoff = float(checkpoint.config["cutoff"])
        self.known = frozenset(int(z) for z in model.type_map)
        self.layers = [layer for name, layer in model._modules.items() if name not in NOT_NEEDED]
        for layer in self.layers:
            layer.to(self.device).eval().requires_grad_(False)
        self.species: Tensor = model.z_to_onehot_tensor
        self.n_evaluations = 0

    def evaluate(
        self, cells: CellBatch, magnetic_moments: bool = False, generic: CellBatch | None = None
    ) -> PotentialOutput:
        """See `generators.oracles.potential.Potential`; it knows no moments and makes no use of ``generic``."""
        del magnetic_moments, generic
        chunks, reasons = self._prepare(cells)
        energy, _ = evaluate_chunks(cells, chunks, self._chunk_energy)
        self.n_evaluations += sum(not reason for reason in reasons)
        valid = torch.tensor([not reason for reason in reasons], dtype=torch.bool, device=energy.device)
        return PotentialOutput(energy, valid, tuple(reasons), None)

    def _prepare(self, cells: CellBatch) -> tuple[list[_Chunk], list[str]]:
        """Neighbours of the cells that can be evaluated, and for all cells a reason if they cannot."""
        coords, lattices = to_numpy(cells.frac_coords), to_numpy(cells.lattice)
        numbers = cells.atomic_number.tolist()
        ends = np.cumsum(cells.n_atoms.cpu().numpy())
        spans = [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        chunks: list[_Chunk] = []
        reasons: list[str] = []
        waiting: list[tuple[int, Neighbours]] = []
        edges = 0
        for i, span in enumerate(spans):
            part, reason = self._neighbours(coords[span], lattices[i], numbers[span])
            reasons.append(reason)
            if part is not None:
                if waiting and edges + len(part.center) > CHUNK_EDGES:
                    chunks.append(_chunk(waiting, spans))
                    waiting, edges = [], 0
                waiting.append((i, part))
                edges += len(part.center)
        if waiting:
            chunks.append(_chunk(waiting, spans))
        return chunks, reasons

    def _neighbours(self, coords: Any, lattice: Any, numbers: list[int]) -> tuple[Neighbours | None, str]:
        """Neighbours of one cell, or the reason why it has no energy."""
        if not self.known.issuperset(numbers):
            return None, "unknown element"
        if reason := cell_problem(coords, lattice):
            return None, reason
        every = np.arange(len(coords))
        part = find_neighbours(coords, lattice, every, Merging.NOTHING, self.cutoff)
        if reason := neighbour_problem(part.center, part.distance, len(every)):
            return None, reason
        return part, ""

    def _chunk_energy(self, chunk: _Chunk, coords: Tensor, lattices: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
        """Energies [b] (eV), and zeros for moments."""
        i, j = torch.from_numpy(chunk.center), torch.from_numpy(chunk.neighbour)
        cell_of_atom = torch.from_numpy(chunk.cell_of_atom)
        step = coords[j] + torch.from_numpy(chunk.image).to(coords) - coords[i]
        vectors = (step[:, None] @ lattices[cell_of_atom[i]])[:, 0]
        data: dict[str, Tensor] = {
            "edge_vec": vectors.float().to(self.device),
            "edge_index": torch.stack([i, j]).to(self.device),
            "atomic_numbers": number.to(self.device),
            "x": self.species[number].to(self.device),
            "batch": cell_of_atom.to(self.device),
        }
        for layer in self.layers:
            data = layer(data)
        # Summed in double precision: a chunk's total then does not depend on its other cells.
        site = data["atomic_energy"].squeeze(-1).to(coords)
        energy = coords.new_zeros(len(lattices)).index_add(0, cell_of_atom, site)
        return energy, torch.zeros_like(site)


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Cells that are evaluated together: their indices, atoms, and directed edges ([E], [E], [E, 3])."""

    cells: Tensor
    atoms: Tensor
    cell_of_atom: NDArray[np.int64]
    center: NDArray[np.int64]
    neighbour: NDArray[np.int64]
    image: NDArray[np.float64]


def _chunk(waiting: list[tuple[int, Neighbours]], spans: list[slice]) -> _Chunk:
    rows = [i for i, _ in waiting]
    parts = [part for _, part in waiting]
    sizes = [len(part.node_of_atom) for part in parts]
    starts = np.cumsum([0, *sizes])[:-1]
    return _Chunk(
        cells=torch.tensor(rows),
        atoms=torch.from_numpy(np.concatenate([np.arange(spans[i].start, spans[i].stop) for i in rows])),
        cell_of_atom=np.repeat(np.arange(len(rows)), sizes),
        center=np.concatenate([part.center + start for part, start in zip(parts, starts, strict=True)]),
        neighbour=np.concatenate([part.neighbour + start for part, start in zip(parts, starts, strict=True)]),
        image=np.concatenate([part.image for part in parts]),
    )
