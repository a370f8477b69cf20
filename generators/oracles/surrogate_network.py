"""A graph network over orbits: prototype and elements in, property distributions out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import scatter

from data.prototype_table import PrototypeTable
from data.wyckoff import wyckoff_table
from generators.element_features import N_STATES, element_features


@dataclass(frozen=True, eq=False)
class OrbitGraph:
    """Decorations as one torch-geometric style graph: nodes are orbits, edges join all pairs of one crystal.

    Attributes:
        atomic_number: [V]; site: [V] position index; numbers: [V, 2] log multiplicity, free coordinates.
        weight: [V] share of the crystal's atoms.
        edge_index: [2, E] (neighbour, centre); pair: [E] row of ``table.distance`` flattened.
        crystal: [V]; n_crystals: B.
    """

    atomic_number: Tensor
    site: Tensor
    numbers: Tensor
    weight: Tensor
    edge_index: Tensor
    pair: Tensor
    crystal: Tensor
    n_crystals: int


def orbit_graph(table: PrototypeTable, row: Tensor, elements: Tensor) -> OrbitGraph:
    """The graph of decorations (``row`` [B], ``elements`` [B, K])."""
    mask = table.mask[row]
    crystal, orbit = mask.nonzero(as_tuple=True)
    node = torch.full(mask.shape, -1, dtype=torch.long, device=mask.device)
    node[crystal, orbit] = torch.arange(len(crystal), device=mask.device)
    b, i, j = (mask[:, :, None] & mask[:, None, :]).nonzero(as_tuple=True)
    k = mask.shape[1]
    here = row[crystal]
    multiplicity = table.multiplicity[here, orbit].float()
    site = table.site[here, orbit]
    free = wyckoff_table().degrees_of_freedom.to(site.device)[site].float()
    total = table.multiplicity.sum(-1)[here].float()
    return OrbitGraph(
        atomic_number=elements[crystal, orbit],
        site=site,
        numbers=torch.stack([multiplicity.log(), free], -1),
        weight=multiplicity / total,
        edge_index=torch.stack([node[b, j], node[b, i]]),
        pair=(row[b] * k + i) * k + j,
        crystal=crystal,
        n_crystals=len(row),
    )


@dataclass(frozen=True)
class SurrogateConfig:
    """Size of one member of the ensemble, and their number."""

    width: int = 96
    depth: int = 3
    n_radial: int = 16
    members: int = 4
    dropout: float = 0.05

    def __post_init__(self) -> None:
        for name in ("width", "depth", "n_radial", "members"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")


class _Interaction(MessagePassing):  # type: ignore[misc]
    """``m_ij = filter_ij * silu(A h_i + B h_j)``, summed over the neighbours, then a residual update."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__(aggr="sum")
        self.norm = nn.LayerNorm(width)
        self.centre = nn.Linear(width, width)
        self.neighbour = nn.Linear(width, width, bias=False)
        self.mix = nn.Sequential(
            nn.Linear(2 * width, 2 * width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )

    def forward(self, h: Tensor, edge_index: Tensor, edge_filter: Tensor) -> Tensor:
        normal = self.norm(h)
        gathered = self.propagate(edge_index, a=self.centre(normal), b=self.neighbour(normal), edge_filter=edge_filter)
        updated: Tensor = h + self.mix(torch.cat([normal, gathered], -1))
        return updated

    def message(self, a_i: Tensor, b_j: Tensor, edge_filter: Tensor) -> Tensor:
        return edge_filter * torch.nn.functional.silu(a_i + b_j)


class SurrogateMember(nn.Module):
    """One network of the ensemble: mean and log variance of every property, in standardised model space.

    It sees an orbit only through quantities that are the same for equivalent sites (`PrototypeTable`), so
    equivalent decorations get equal predictions. The read-out is the mean over atoms (all properties here
    are intensive).
    """

    features: Tensor
    centers: Tensor

    def __init__(self, n_properties: int, config: SurrogateConfig) -> None:
        super().__init__()
        width = config.width
        self.register_buffer("features", element_features(), persistent=False)
        self.register_buffer("centers", torch.linspace(0.5, 2.5, config.n_radial), persistent=False)
        self.element = nn.Embedding(N_STATES, width)
        self.from_features = nn.Linear(self.features.shape[1], width)
        self.site = nn.Embedding(len(wyckoff_table().letter), width)
        self.numbers = nn.Linear(2, width)
        nn.init.normal_(self.element.weight, std=0.3)
        nn.init.normal_(self.site.weight, std=0.1)
        self.filters = nn.ModuleList(
            nn.Sequential(nn.Linear(config.n_radial + 1, 64), nn.SiLU(), nn.Linear(64, width))
            for _ in range(config.depth)
        )
        self.layers = nn.ModuleList(_Interaction(width, config.dropout) for _ in range(config.depth))
        self.readout = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2 * n_properties)
        )

    def forward(self, table: PrototypeTable, graph: OrbitGraph) -> tuple[Tensor, Tensor]:
        """Means and log variances, [B, P] each."""
        embedded = self.element.weight + self.from_features(self.features)
        h = embedded.index_select(0, graph.atomic_number) + self.site(graph.site) + self.numbers(graph.numbers)
        distance, coordination, pair = table.distance.flatten(), table.coordination.flatten(), graph.pair
        if len(distance) > len(pair):  # a large table: only those of its pairs that occur
            occurring, pair = pair.unique(return_inverse=True)
            distance, coordination = distance[occurring], coordination[occurring]
        radial = torch.exp(-(((distance[:, None] - self.centers) / 0.13) ** 2))
        pairs = torch.cat([radial, coordination[:, None] / 12], -1)
        for layer, make_filter in zip(self.layers, self.filters, strict=True):
            h = layer(h, graph.edge_index, make_filter(pairs).index_select(0, pair))
        pooled = scatter(h * graph.weight[:, None], graph.crystal, 0, graph.n_crystals, reduce="sum")
        mean, log_variance = self.readout(pooled).chunk(2, -1)
        return mean, log_variance.clamp(-8, 4)
