"""The denoiser of whole crystals: a transformer over orbit tokens that sees the current geometry."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.lattice import N_STRAIN
from data.orbit_batch import OrbitBatch
from data.wyckoff import N_SPACE_GROUPS, wyckoff_table
from generators.conditioning import N_FEATURES
from generators.denoiser.dropout import UnitDropout
from generators.denoiser.pair_geometry import PairFeatures
from generators.diffusion.interpolants import gaussian_guess
from generators.element_features import N_STATES, element_features

HIDDEN = 0
N_LETTERS = 27
MAX_ORBITS = 64
N_SOURCES = 5
MOST_ELEMENTS = 8
"""Numbers of elements are told apart up to here; more count as so many."""
_TIES, _LARGEST_TIE = 32, 15.0
_TIME_FREQUENCIES = 16
NEAREST_TIME = 0.1
"""Below this time displacements shrink in proportion to it."""


@dataclass(frozen=True)
class CrystalDenoiserConfig:
    """Size of the denoiser."""

    width: int = 192
    depth: int = 7
    heads: int = 6
    n_radial: int = 12
    dropout: float = 0.1


@dataclass(frozen=True, eq=False)
class CrystalCondition:
    """What is asked of B crystals.

    Attributes:
        features: [B, P, 7] and given: [B, P] of the property intervals (`generators.conditioning`).
        composition: [B, 119] share of each element; all 0 where none is given.
        n_atoms: [B] atoms in the primitive cell; 0 where not given.
        n_elements: [B] different elements; 0 where not given.
        source: [B] which part of the training data the crystal shall resemble, 1 to `N_SOURCES`; 0 for any.
    """

    features: Tensor
    given: Tensor
    composition: Tensor
    n_atoms: Tensor
    n_elements: Tensor
    source: Tensor

    def select(self, rows: Tensor) -> CrystalCondition:
        """The rows at ``rows``."""
        return CrystalCondition(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def to(self, device: torch.device) -> CrystalCondition:
        """The same on another device."""
        return CrystalCondition(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def without_properties(self) -> CrystalCondition:
        """The same with no interval given."""
        return replace(self, features=torch.zeros_like(self.features), given=torch.zeros_like(self.given))


@dataclass(frozen=True, eq=False)
class NoisyCrystals:
    """State of B crystals on the way from noise to data.

    Attributes:
        batch: space group, positions, elements, mask, the current coordinates and strain; what is hidden does not
            count.
        position_hidden, element_hidden: [B, K] bool.
        standard_strain: [B, 6] current lattice, standardised.
        time: [B] of the geometry.
        has_geometry: [B] bool; without it no coordinate or length is seen.
        pairs: features of the geometry.
        copies: [B, K] orbits that each token stands for. Without geometry, orbits of which nothing is shown are all
            alike, and one token can stand for all of them.
    """

    batch: OrbitBatch
    position_hidden: Tensor
    element_hidden: Tensor
    standard_strain: Tensor
    time: Tensor
    has_geometry: Tensor
    pairs: PairFeatures
    copies: Tensor

    def select(self, rows: Tensor) -> NoisyCrystals:
        """The rows at ``rows``."""
        pairs = PairFeatures(self.pairs.density[rows], self.pairs.pull[rows], self.pairs.strain[rows])
        return NoisyCrystals(
            self.batch.select(rows), self.position_hidden[rows], self.element_hidden[rows], self.standard_strain[rows],
            self.time[rows], self.has_geometry[rows], pairs, self.copies[rows],
        )  # fmt: skip


class CrystalDenoiser(nn.Module):
    """Predicts hidden Wyckoff positions and elements, and the way from the current coordinates and lattice to the data.

    Tokens are orbits. Conditions, space group and time enter every block through adaptive layer norms with one
    shared modulation (Chen et al., PixArt, 2023); attention is biased by the radial densities between orbits.
    Displacements are weighted sums of the directions to neighbours (`generators.denoiser.pair_geometry`), and of a free
    part.
    """

    elements: Tensor
    position_numbers: Tensor
    draws_in_bfloat16 = False
    """Whether a processor multiplies in bfloat16 in the blocks: good enough to draw with."""

    def __init__(self, n_properties: int, config: CrystalDenoiserConfig) -> None:
        super().__init__()
        if config.width % config.heads:
            raise ValueError(f"width={config.width}: must be a multiple of heads={config.heads}")
        self.config = config
        width, table = config.width, wyckoff_table()
        self.register_buffer("elements", element_features(), persistent=False)
        self.register_buffer("position_numbers", _position_numbers(), persistent=False)
        self.element = nn.Embedding(N_STATES, width)
        self.element_from_features = nn.Linear(self.elements.shape[1], width, bias=False)
        self.position = nn.Embedding(len(table.letter) + 1, 48)  # the last one: hidden
        self.position_out = nn.Linear(48 + self.position_numbers.shape[1], width)
        nn.init.normal_(self.position.weight, std=0.3)
        self.space_group = nn.Embedding(N_SPACE_GROUPS + 1, width)
        nn.init.normal_(self.space_group.weight, std=0.1)
        self.coordinates = nn.Linear(3 * 4, width)

        self.properties = nn.ModuleList(
            nn.Sequential(nn.Linear(N_FEATURES, width), nn.SiLU(), nn.Linear(width, width)) for _ in range(n_properties)
        )
        self.nothing = nn.Parameter(torch.zeros(max(n_properties, 1), width))
        self.source = nn.Embedding(N_SOURCES + 1, width)
        self.n_elements = nn.Embedding(MOST_ELEMENTS + 1, width)
        self.wish = nn.Linear(width + 3, width)
        self.state = nn.Sequential(
            nn.Linear(2 * _TIME_FREQUENCIES + N_STRAIN + 5, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.mix = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.modulation = nn.Linear(width, 6 * width)
        self.offsets = nn.Parameter(torch.zeros(config.depth, 6 * width))
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.pair = nn.Sequential(
            nn.Linear(config.n_radial + 1, 64), nn.SiLU(), nn.Linear(64, config.depth * config.heads)
        )
        self.blocks = nn.ModuleList(_Block(width, config.heads, config.dropout) for _ in range(config.depth))
        self.messages = nn.ModuleList(_Messages(width, config.n_radial) for _ in range(config.depth // 2))
        self.norm = nn.LayerNorm(width)
        self.number_head = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, MOST_ELEMENTS + 1))
        self.group_head = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, N_SPACE_GROUPS + 1))
        self.count_head = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, MAX_ORBITS + 1))
        self.position_head = nn.Linear(width, width)
        self.position_bias = nn.Embedding(len(table.letter), 1)
        nn.init.zeros_(self.position_bias.weight)
        self.element_head = nn.Linear(width, N_STATES)
        self.tie_from, self.tie_to = nn.Linear(width, _TIES), nn.Linear(width, _TIES)
        self.tie_usual = nn.Parameter(torch.tensor(-1.0))
        self.center, self.neighbour = nn.Linear(width, 64), nn.Linear(width, 64)
        self.pair_weights = nn.Sequential(
            nn.Linear(64 + config.n_radial, 64), nn.SiLU(), nn.Linear(64, 2 * config.n_radial)
        )
        self.free_step = nn.Linear(width, 3)
        self.strain_head = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, N_STRAIN))
        for layer in (self.free_step, self.pair_weights[-1], self.strain_head[-1]):
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    # -- conditions -------------------------------------------------------------------------------------

    def embed_condition(self, condition: CrystalCondition) -> Tensor:
        """[B, width]."""
        total = self.source(condition.source) + self.n_elements(condition.n_elements.clamp(max=MOST_ELEMENTS))
        for p, layer in enumerate(self.properties):
            total = total + torch.where(condition.given[:, p, None], layer(condition.features[:, p]), self.nothing[p])
        share = condition.composition.to(total)
        has = (share.sum(-1, keepdim=True) > 0).to(total)
        counted = (condition.n_atoms > 0).to(total)[:, None]
        size = condition.n_atoms.clamp(min=1).to(total).log()[:, None]
        numbers = torch.cat([share @ self._element_table(), has, counted, size * counted], -1)
        return total + self.wish(numbers)

    def number_logits(self, wish: Tensor) -> Tensor:
        """[B, 9] number of elements, from `embed_condition` of one that does not give it; entry 0 is never drawn."""
        logits: Tensor = self.number_head(F.silu(wish))
        return logits.index_fill(-1, torch.zeros(1, dtype=torch.long, device=logits.device), -1e9)

    def space_group_logits(self, wish: Tensor) -> Tensor:
        """[B, 231] from `embed_condition`; entry 0 is never drawn."""
        logits: Tensor = self.group_head(F.silu(wish))
        return logits.index_fill(-1, torch.zeros(1, dtype=torch.long, device=logits.device), -1e9)

    def count_logits(self, wish: Tensor, space_group: Tensor) -> Tensor:
        """[B, 65] number of orbits; entry 0 is never drawn."""
        logits: Tensor = self.count_head(torch.cat([F.silu(wish), self.space_group(space_group)], -1))
        return logits.index_fill(-1, torch.zeros(1, dtype=torch.long, device=logits.device), -1e9)

    # -- tokens -----------------------------------------------------------------------------------------

    def forward(self, state: NoisyCrystals, wish: Tensor) -> Tensor:
        """[B, K, width] what each orbit knows; the heads below read it."""
        batch = state.batch
        places = self._position_table()
        hidden_place = torch.full_like(batch.position, len(places) - 1)
        x = places[torch.where(state.position_hidden, hidden_place, batch.position)]
        x = x + self._element_table()[batch.atomic_number.masked_fill(state.element_hidden, HIDDEN)]
        seen = state.has_geometry.to(x)
        angle = 2 * math.pi * batch.coordinates.to(x)
        waves = torch.stack([angle.sin(), angle.cos(), (2 * angle).sin(), (2 * angle).cos()], -1)
        waves = waves * batch.coordinate_mask[..., None] * (seen * (1 - state.time))[:, None, None, None]
        x = x + self.coordinates(waves.flatten(2))
        context = self.mix(wish + self.space_group(batch.space_group) + self._embed_state(state))
        modulation = self.modulation(context)
        density = torch.log1p(state.pairs.density.to(x))
        silent = not self.training and not bool(state.has_geometry.any())  # DDP wants gradients of every weight
        if silent:
            density = density[:1, :1, :1]  # zero everywhere: once is enough
        flag = seen[: len(density), None, None, None].expand(*density.shape[:3], 1)
        bias = self.pair(torch.cat([density, flag], -1)).unflatten(-1, (self.config.depth, self.config.heads))
        present = (state.copies * batch.mask).to(x).log().clamp(min=-1e9)  # so many keys in one
        bias = bias.permute(3, 0, 4, 1, 2) + present[None, :, None, None, :]
        fast = self.draws_in_bfloat16 and x.device.type == "cpu"
        with torch.autocast(x.device.type, torch.bfloat16) if fast else nullcontext():
            for i, (block, offset, block_bias) in enumerate(zip(self.blocks, self.offsets, bias, strict=True)):
                if i % 2 == 0 and i // 2 < len(self.messages):
                    x = self.messages[i // 2](x, None if silent else density)
                x = block(x, modulation + offset, block_bias)
        result: Tensor = self.norm(x.float() if fast else x)
        return result

    def position_logits(self, tokens: Tensor, space_group: Tensor) -> Tensor:
        """[B, K, 27] over the letters of the space group, a first; -1e9 for letters that it lacks."""
        table = wyckoff_table()
        offset = torch.arange(N_LETTERS, device=tokens.device)
        index = table.position_start.to(tokens.device)[space_group][:, None] + offset
        exists = offset < table.n_positions.to(tokens.device)[space_group][:, None]
        index = torch.where(exists, index, 0)
        keys = self._position_table()[index]  # [B, 27, width]
        logits = self.position_head(tokens) @ keys.mT / math.sqrt(self.config.width)
        logits = logits + self.position_bias(index).squeeze(-1)[:, None]
        return logits.masked_fill(~exists[:, None], -1e9)

    def element_logits(self, tokens: Tensor, state: NoisyCrystals) -> Tensor:
        """[B, K, 119]; an element that another orbit shows gains by how much the two orbits look like sharing one.

        Copying what is there is a thing of its own, as in pointer networks (Vinyals et al., 2015): without this term
        too few orbits share their element.
        """
        logits: Tensor = self.element_head(tokens)
        alike = self.tie_from(tokens) @ self.tie_to(tokens).mT / math.sqrt(_TIES) + self.tie_usual
        shown = state.batch.mask & ~state.element_hidden
        numbers = state.batch.atomic_number[:, None].expand(alike.shape)
        weight = alike.float().clamp(max=_LARGEST_TIE).exp() * shown[:, None]
        copied = torch.zeros(logits.shape, device=logits.device).scatter_add(2, numbers, weight)
        return logits + copied.log1p().to(logits)

    def geometry(self, tokens: Tensor, state: NoisyCrystals) -> tuple[Tensor, Tensor]:
        """Displacements from here to the data: free coordinates [B, K, 3] (fractional), standardised strain [B, 6]."""
        batch, pairs = state.batch, state.pairs
        both = self.center(tokens)[:, :, None] * self.neighbour(tokens)[:, None]
        density = torch.log1p(pairs.density.to(tokens))
        weight = self.pair_weights(torch.cat([both, density], -1))
        for_step, for_strain = weight.chunk(2, -1)
        step = torch.einsum("bijf,bijfu->biu", for_step, pairs.pull.to(tokens)) + 0.1 * self.free_step(tokens)
        near = (state.time / (state.time + NEAREST_TIME)).to(tokens)  # nothing is far from the data at time 0
        step = step * batch.coordinate_mask * near[:, None, None]
        atoms = batch.multiplicity.to(tokens)
        share = atoms / atoms.sum(-1, keepdim=True).clamp(min=1)
        pulled = torch.einsum("bi,bijf,bijfs->bs", share, for_strain, pairs.strain.to(tokens))
        mean = (tokens * share[..., None]).sum(1)
        strain = self.strain_head(torch.cat([mean, self._embed_state(state)], -1)) + pulled
        guess, spread = gaussian_guess(state.standard_strain.to(tokens), state.time.to(tokens)[:, None])
        return step, (guess + spread * strain - state.standard_strain) * batch.strain_mask

    # -- tables -----------------------------------------------------------------------------------------

    def _embed_state(self, state: NoisyCrystals) -> Tensor:
        seen = state.has_geometry.to(state.standard_strain)
        frequency = torch.arange(_TIME_FREQUENCIES, device=seen.device) * math.pi / 2
        angle = (state.time[:, None] * frequency).to(seen)
        present = state.copies * state.batch.mask
        numbers = torch.stack(
            [
                seen,
                (state.position_hidden * present).sum(-1).to(seen) / 10,
                (state.element_hidden * present).sum(-1).to(seen) / 10,
                present.sum(-1).to(seen).log(),
                (state.batch.multiplicity * ~state.position_hidden).sum(-1).clamp(min=1).to(seen).log() / 3,
            ],
            -1,
        )
        waves = torch.cat([angle.sin(), angle.cos(), state.standard_strain], -1) * seen[:, None]
        result: Tensor = self.state(torch.cat([waves, numbers], -1))
        return result

    def _element_table(self) -> Tensor:
        return self.element.weight + self.element_from_features(self.elements)

    def _position_table(self) -> Tensor:
        """[1732, width]; the last row stands for hidden."""
        table: Tensor = self.position_out(torch.cat([self.position.weight, self.position_numbers], -1))
        return table


def _position_numbers() -> Tensor:
    """[1732, n] fixed features of the Wyckoff positions: multiplicity, freedom, site symmetry; then hidden."""
    table = wyckoff_table()
    symbols = sorted({s.replace(".", "") for s in table.site_symmetry})
    rank = {s: i for i, s in enumerate(symbols)}
    site = F.one_hot(torch.tensor([rank[s.replace(".", "")] for s in table.site_symmetry]), len(symbols)).float()
    multiplicity = table.primitive_multiplicity.float().log()[:, None]
    features = torch.cat([multiplicity, table.degrees_of_freedom.float()[:, None], table.free.float(), site], 1)
    return torch.cat([features, torch.zeros(1, features.shape[1])])


class _Messages(nn.Module):
    """Every orbit hears its neighbours, one channel per distance (continuous filters, Schütt et al., SchNet, 2018)."""

    def __init__(self, width: int, n_radial: int, inner: int = 48) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.value = nn.Linear(width, inner)
        self.heard = inner * n_radial
        self.out = nn.Sequential(nn.Linear(inner * n_radial, width), nn.SiLU(), nn.Linear(width, width))
        nn.init.zeros_(self.out[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.out[-1].bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, density: Tensor | None) -> Tensor:
        """x [B, K, width], density [B, K, K, F] or None for zeros."""
        if density is None:
            silence: Tensor = x + self.out(x.new_zeros(1, 1, self.heard))
            return silence
        heard = torch.einsum("bijf,bjw->bifw", density, self.value(self.norm(x)))
        result: Tensor = x + self.out(heard.flatten(2))
        return result


class _Block(nn.Module):
    """Self-attention and feed-forward, each modulated; starts near the identity of the residual stream."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), UnitDropout(dropout), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, modulation: Tensor, bias: Tensor) -> Tensor:
        """x [B, K, width], modulation [B, 6 width], bias [B, heads, K, K] (large negative where padded)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation[:, None].chunk(6, -1)
        h = self.norm(x) * (1 + scale1) + shift1
        q, k, v = self.qkv(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        x = x + (1 + gate1) * self.out(attended.transpose(1, 2).flatten(2))
        h = self.norm(x) * (1 + scale2) + shift2
        result: Tensor = x + (1 + gate2) * self.feed(h)
        return result
