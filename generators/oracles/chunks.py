"""Energies and their gradients chunk by chunk, so that memory does not grow with the number of cells."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.cells import CellBatch


class Chunk(Protocol):
    """Cells that are evaluated together: indices of cells [b] and atoms [n], and the cell (0 to b - 1) of each."""

    @property
    def cells(self) -> Tensor:
        """[b] long, in the `CellBatch`."""
        ...

    @property
    def atoms(self) -> Tensor:
        """[n] long, in the `CellBatch`."""
        ...

    @property
    def cell_of_atom(self) -> NDArray[np.int64]:
        """[n], from 0 to b - 1."""
        ...


class ChunkEnergy(Protocol):
    """Energies of one chunk."""

    def __call__(self, chunk: Any, coords: Tensor, lattices: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
        """(energies [b] in eV, moments [n] in µB) for atoms [n, 3] and lattices [b, 3, 3] of one chunk."""
        ...


def evaluate_chunks(cells: CellBatch, chunks: list[Any], chunk_energy: ChunkEnergy) -> tuple[Tensor, Tensor]:
    """(energies [B], moments [N]) of all chunks; 0 for cells that are in none.

    Each chunk's derivative is taken at once, so that one chunk's graph is held at a time; the result can be
    differentiated once (no second derivatives).
    """
    energy, moment = _Energy.apply(cells.frac_coords, cells.lattice, cells.atomic_number, chunks, chunk_energy)
    return energy, moment


class _Energy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, coords: Tensor, lattices: Tensor, number: Tensor, chunks: list[Any], chunk_energy: ChunkEnergy
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
                value, site_moment = chunk_energy(chunk, part, part_box, z[chunk.atoms])
                if wanted:
                    force[chunk.atoms], stress[chunk.cells] = torch.autograd.grad(value.sum(), [part, part_box])
            energy[chunk.cells] = value.detach()
            moment[chunk.atoms] = site_moment.detach().to(moment)
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
