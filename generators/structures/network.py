"""An equivariant message-passing network over whole crystals, small enough for a CPU.

Messages are tensor products of neighbours' features with spherical harmonics, weighted by a function of the distance
(Batzner et al., Nat. Commun. 13, 2453 (2022)), made with e3nn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from e3nn import o3
from e3nn.math import soft_one_hot_linspace
from e3nn.nn import FullyConnectedNet, Gate
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.utils import scatter

from data.properties import PropertySpec
from generators.element_features import N_STATES, element_features
from generators.structures.readout import read_out
from generators.structures.tensors import irreducible


@dataclass(frozen=True)
class StructureConfig:
    """Size of one network of the ensemble, and their number.

    Attributes:
        width: channels of scalars; vectors and higher have half of it.
        depth: interactions.
        n_radial: radial basis functions.
        cutoff: Å.
        members: of the ensemble.
        highest: largest rotation order of the features.
    """

    width: int = 32
    depth: int = 3
    n_radial: int = 10
    cutoff: float = 5.0
    members: int = 3
    highest: int = 2

    def __post_init__(self) -> None:
        for name in ("width", "depth", "n_radial", "cutoff", "members"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be positive")


def output_irreps(spec: PropertySpec) -> o3.Irreps:
    """What the network predicts for a property: one scalar, or the irreducible parts of a tensor."""
    return o3.Irreps(irreducible(spec.symmetry)) if spec.readout == "tensor" else o3.Irreps("0e")


class _Interaction(nn.Module):
    """Convolution over the neighbours, linear self-interaction, gated non-linearity."""

    def __init__(self, before: o3.Irreps, hidden: o3.Irreps, edge: o3.Irreps, n_radial: int) -> None:
        super().__init__()
        instructions: list[tuple[int, int, int, str, bool]] = []
        channels: list[tuple[int, o3.Irrep]] = []
        for i, (count, irrep) in enumerate(before):
            for j, (_, harmonic) in enumerate(edge):
                for product in irrep * harmonic:
                    if product in hidden:
                        instructions.append((i, j, len(channels), "uvu", True))
                        channels.append((count, product))
        middle = o3.Irreps(channels)
        self.product = o3.TensorProduct(
            before, edge, middle, instructions, shared_weights=False, internal_weights=False
        )
        self.radial = FullyConnectedNet([n_radial, 32, self.product.weight_numel], torch.nn.functional.silu)
        scalars = o3.Irreps([(n, irrep) for n, irrep in hidden if irrep.l == 0])
        gated = o3.Irreps([(n, irrep) for n, irrep in hidden if irrep.l > 0])
        gates = o3.Irreps([(gated.num_irreps, "0e")]) if gated.num_irreps else o3.Irreps("")
        acts = [torch.nn.functional.silu if irrep.p == 1 else torch.tanh for _, irrep in scalars]
        self.gate = Gate(scalars, acts, gates, [torch.sigmoid] * len(gates), gated)
        self.mix = o3.Linear(middle.simplify(), self.gate.irreps_in)
        self.own = o3.Linear(before, self.gate.irreps_in)
        self.irreps_out = self.gate.irreps_out

    def forward(self, h: Tensor, edge_index: Tensor, harmonics: Tensor, radial: Tensor, neighbours: float) -> Tensor:
        message = self.product(h[edge_index[0]], harmonics, self.radial(radial))
        gathered = scatter(message, edge_index[1], 0, len(h), reduce="sum") / math.sqrt(neighbours)
        updated: Tensor = self.gate(self.own(h) + self.mix(gathered))
        return updated


class StructureNetwork(nn.Module):
    """Mean and log variance of every property, from a batch of `structure_graph`.

    Scalars do not change, and tensors turn, with the crystal; what its symmetry forbids is zero by itself.
    """

    features: Tensor

    def __init__(self, properties: Sequence[PropertySpec], config: StructureConfig, neighbours: float = 40.0) -> None:
        super().__init__()
        self.specs, self.config, self.neighbours = tuple(properties), config, neighbours
        self.register_buffer("features", element_features(), persistent=False)
        width = config.width
        self.element = nn.Embedding(N_STATES, width)
        self.from_features = nn.Linear(self.features.shape[1], width)
        outputs = [output_irreps(spec) for spec in self.specs]
        odd = any(irrep.p != (-1) ** irrep.l for irreps in outputs for _, irrep in irreps)
        highest = max([config.highest, *(irrep.l for irreps in outputs for _, irrep in irreps)])
        hidden = o3.Irreps(
            [
                (width if degree == 0 else max(width // 2, 4), (degree, (-1) ** degree * parity))
                for degree in range(highest + 1)
                for parity in ((1, -1) if odd else (1,))
            ]
        )
        edge = o3.Irreps.spherical_harmonics(highest)
        self.harmonics = o3.SphericalHarmonics(edge, normalize=True, normalization="component")
        layers, irreps = [], o3.Irreps([(width, "0e")])
        for _ in range(config.depth):
            layer = _Interaction(irreps, hidden, edge, config.n_radial)
            layers.append(layer)
            irreps = layer.irreps_out
        self.layers = nn.ModuleList(layers)
        self.heads = nn.ModuleList(o3.Linear(irreps, out) for out in outputs)
        scalars = [
            slice_ for slice_, (_, irrep) in zip(irreps.slices(), irreps, strict=True) if irrep == o3.Irrep("0e")
        ]
        self._scalars = scalars[0]
        self.spread = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2 * len(self.specs)))

    def forward(self, graph: Data) -> tuple[list[Tensor], Tensor]:
        """Per property means [B, components], and log variances [B, P] (per component)."""
        length = graph.edge_vector.norm(dim=-1)
        radial = soft_one_hot_linspace(
            length, 0.0, self.config.cutoff, self.config.n_radial, basis="smooth_finite", cutoff=True
        ) * math.sqrt(self.config.n_radial)
        harmonics = self.harmonics(graph.edge_vector)
        h = (self.element.weight + self.from_features(self.features))[graph.atomic_number]
        for layer in self.layers:
            h = layer(h, graph.edge_index, harmonics, radial, self.neighbours)
        crystal = graph.batch if graph.batch is not None else torch.zeros_like(graph.atomic_number)
        n = int(crystal.max()) + 1
        score, log_variance = self.spread(h[:, self._scalars]).chunk(2, -1)
        means = [
            read_out(head(h), score[:, p], crystal, n, "mean" if spec.readout == "tensor" else spec.readout)
            for p, (head, spec) in enumerate(zip(self.heads, self.specs, strict=True))
        ]
        return means, read_out(log_variance, score[:, 0], crystal, n, "mean").clamp(-8, 4)
