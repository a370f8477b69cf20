"""From atoms to crystals: the read-out that the physics of a property asks for.

Extensive properties are sums over atoms, intensive ones means, and localised intensive ones (a gap, an ionisation
energy) belong to few atoms: their read-out is an average whose weights the network learns (Chen, Kunkel, Cheng, Reuter
and Margraf, Chem. Sci. 14, 4913 (2023)). None changes when the cell is doubled, but for the sum, which doubles.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.utils import scatter, softmax

from data.properties import Readout


def read_out(values: Tensor, scores: Tensor, crystal: Tensor, n_crystals: int, kind: Readout) -> Tensor:
    """[B, C] of the crystals.

    Args:
        values: [N, C] per atom.
        scores: [N] logits of the weights of ``localised``.
        crystal: [N] index of the crystal.
    """
    if kind == "sum":
        return scatter(values, crystal, 0, n_crystals, reduce="sum")
    if kind == "localised":
        weight = softmax(scores, crystal, num_nodes=n_crystals)
        return scatter(values * weight[:, None], crystal, 0, n_crystals, reduce="sum")
    ones = torch.ones_like(values[:, :1])
    return scatter(values, crystal, 0, n_crystals, reduce="sum") / scatter(ones, crystal, 0, n_crystals, reduce="sum")
