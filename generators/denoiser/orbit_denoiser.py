"""The denoiser: a small transformer over orbit tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.prototype_table import PrototypeTable
from data.wyckoff import wyckoff_table
from generators.conditioning import N_FEATURES
from generators.element_features import N_STATES, element_features

HIDDEN = 0
"""State of a hidden element; states 1..118 are atomic numbers."""


@dataclass(frozen=True)
class DenoiserConfig:
    """Size of the denoiser."""

    width: int = 128
    depth: int = 4
    heads: int = 4
    n_radial: int = 16
    dropout: float = 0.0


class OrbitDenoiser(nn.Module):
    """Predicts the element of every hidden orbit, and the prototype, from what is visible.

    Tokens are orbits. A token knows its element (or that it is hidden), its Wyckoff position,
    multiplicity and number of free coordinates; attention between tokens is biased by their distance and
    coordination in the prototype's reference cell. Conditions enter every block through adaptive layer
    norms (Peebles and Xie, ICCV 2023).
    """

    features: Tensor
    radial_centers: Tensor

    def __init__(self, n_properties: int, n_prototypes: int, config: DenoiserConfig) -> None:
        super().__init__()
        if config.width % config.heads:
            raise ValueError(f"width={config.width}: must be a multiple of heads={config.heads}")
        self.config = config
        width = config.width
        table = wyckoff_table()
        self.register_buffer("features", element_features(), persistent=False)
        self.register_buffer("radial_centers", torch.linspace(0.5, 2.5, config.n_radial), persistent=False)
        self.element = nn.Embedding(N_STATES, width)
        self.element_from_features = nn.Linear(self.features.shape[1], width, bias=False)
        self.site = nn.Embedding(len(table.letter), width)
        self.space_group = nn.Embedding(len(table.symbols), width)
        self.numbers = nn.Linear(2, width)
        nn.init.normal_(self.site.weight, std=0.1)
        nn.init.normal_(self.space_group.weight, std=0.1)
        self.pair = nn.Sequential(
            nn.Linear(config.n_radial + 1, 32), nn.SiLU(), nn.Linear(32, config.depth * config.heads)
        )
        self.condition = nn.ModuleList(
            nn.Sequential(nn.Linear(N_FEATURES, width), nn.SiLU(), nn.Linear(width, width)) for _ in range(n_properties)
        )
        self.nothing = nn.Parameter(torch.zeros(max(n_properties, 1), width))
        self.mix = nn.Sequential(nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(_Block(width, config.heads, config.dropout) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.final = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, N_STATES)
        self.prototype = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, max(n_prototypes, 1)))
        nn.init.zeros_(self.final.weight)
        nn.init.zeros_(self.final.bias)

    def embed_conditions(self, features: Tensor, given: Tensor) -> Tensor:
        """[B, width] from condition features [B, P, F] and which are given [B, P]."""
        total = self.nothing.new_zeros(features.shape[0], self.config.width)
        for p, layer in enumerate(self.condition):
            total = total + torch.where(given[:, p, None], layer(features[:, p]), self.nothing[p])
        mixed: Tensor = self.mix(total)
        return mixed

    def prototype_logits(self, condition: Tensor) -> Tensor:
        """[B, number of training prototypes] log-odds of the prototype under the condition [B, width]."""
        logits: Tensor = self.prototype(condition)
        return logits

    def forward(self, table: PrototypeTable, row: Tensor, elements: Tensor, condition: Tensor) -> Tensor:
        """Logits of the clean elements.

        Args:
            table: prototypes.
            row: [B] row of each crystal's prototype in ``table``.
            elements: [B, K] atomic numbers, `HIDDEN` where hidden.
            condition: [B, width] from `embed_conditions`.

        Returns:
            [B, K, 119].
        """
        mask = table.mask[row]
        embedded = self.element.weight + self.element_from_features(self.features)
        free = wyckoff_table().degrees_of_freedom.to(row.device)
        numbers = torch.stack([table.multiplicity.float().clamp(min=1).log(), free[table.site].float()], -1)
        place = (
            self.site(table.site) + self.numbers(numbers.to(embedded)) + self.space_group(table.space_group)[:, None]
        )
        x = embedded[elements] + place[row]
        radial = torch.exp(-(((table.distance[..., None] - self.radial_centers) / 0.13) ** 2))
        pair = self.pair(torch.cat([radial, table.coordination[..., None] / 12], -1).to(embedded))
        bias = pair.unflatten(-1, (self.config.depth, self.config.heads)).permute(3, 0, 4, 1, 2)
        bias = bias.masked_fill(~table.mask[None, :, None, None, :], -1e9)
        for block, block_bias in zip(self.blocks, bias, strict=True):
            x = block(x, condition, block_bias[row])
        shift, scale = self.final(condition)[:, None].chunk(2, -1)
        logits: Tensor = self.head(self.norm(x) * (1 + scale) + shift)
        return logits.masked_fill(~mask[..., None], 0.0)


class _Block(nn.Module):
    """Self-attention and feed-forward, each modulated by the condition; starts as the identity."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = nn.Linear(width, 6 * width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor, bias: Tensor) -> Tensor:
        """x [B, K, width], condition [B, width], bias [B, heads, K, K] (large negative where padded)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition)[:, None].chunk(6, -1)
        h = self.norm(x) * (1 + scale1) + shift1
        q, k, v = self.qkv(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        x = x + (1 + gate1) * self.out(attended.transpose(1, 2).flatten(2))
        h = self.norm(x) * (1 + scale2) + shift2
        mixed: Tensor = x + (1 + gate2) * self.feed(h)
        return mixed
