"""Crystal structures as torch-geometric graphs, in the frame in which they are given."""

from __future__ import annotations

import numpy as np
import torch
from pymatgen.core import Structure
from torch_geometric.data import Data


def structure_graph(structure: Structure, cutoff: float) -> Data:
    """Atoms as nodes, pairs within ``cutoff`` (Å, periodic images included) as edges.

    Returns:
        ``atomic_number`` [N], ``edge_index`` [2, E] (neighbour, centre), ``edge_vector`` [E, 3] (Å, centre to
        neighbour, Cartesian), ``num_nodes`` N.

    Raises:
        ValueError: an atom without neighbours.
    """
    center, neighbour, image, _ = structure.get_neighbor_list(cutoff)
    if len(np.unique(center)) < len(structure):
        raise ValueError(f"structure {structure.reduced_formula}: an atom has no neighbour within {cutoff} Å")
    frac = structure.frac_coords
    vector = (frac[neighbour] + image - frac[center]) @ structure.lattice.matrix
    return Data(
        atomic_number=torch.tensor([site.specie.Z for site in structure]),
        edge_index=torch.from_numpy(np.stack([neighbour, center])).long(),
        edge_vector=torch.from_numpy(vector).float(),
        num_nodes=len(structure),
    )
