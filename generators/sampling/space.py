"""Sampling on one prototype whose orbits may carry given elements; equal contexts are evaluated once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from data.prototype_table import PrototypeTable
from generators.conditioning import Conditions, PropertyScale, condition_features
from generators.denoiser.orbit_denoiser import HIDDEN, OrbitDenoiser
from generators.diffusion.masked import guided_logits, reveal_order, sample_states
from generators.element_features import N_STATES

CHUNK = 512


def restrict(logits: Tensor, elements: Tensor, allowed: Tensor, distinct: bool) -> Tensor:
    """Logits [B, K, 119] without elements that may not stand there.

    Args:
        logits: raw.
        elements: [B, K] visible elements, `HIDDEN` elsewhere.
        allowed: [K, 119] bool.
        distinct: whether an element that is visible may not occur again.
    """
    forbidden = ~allowed[None]
    if distinct:
        used = torch.zeros(len(elements), N_STATES, dtype=torch.bool).scatter(1, elements, True)
        forbidden = forbidden | used[:, None]
    return logits.masked_fill(forbidden, -torch.inf)


@dataclass(frozen=True, eq=False)
class SpaceSampler:
    """The conditional model of one prototype under one wish.

    Attributes:
        denoiser: the network, in evaluation mode.
        scales: one per property, in the network's order.
        table: the prototype, alone.
        allowed: [K, 119] bool; distinct: see `restrict`.
        condition: one row.
        guidance: strength of classifier-free guidance for the whole wish, or one strength per property.
        temperature: of every draw.
        tilt: added to the guided log-odds [B, K, 119], from the visible elements [B, K] and the log-probabilities; see
            `generators.sampling.gradient_guidance`.
    """

    denoiser: OrbitDenoiser
    scales: tuple[PropertyScale, ...]
    table: PrototypeTable
    allowed: Tensor
    distinct: bool
    condition: Conditions
    guidance: float | tuple[float, ...] = 1.0
    temperature: float = 1.0
    tilt: Callable[[Tensor, Tensor], Tensor] | None = None

    @property
    def n_orbits(self) -> int:
        """K."""
        return self.allowed.shape[0]

    @torch.no_grad()
    def log_probabilities(self, elements: Tensor) -> Tensor:
        """[B, K, 119] log-probability of every element at every hidden orbit, given what is visible; -inf where it may
        not stand. Temperature, guidance and tilt are those of the sampler."""
        log_p = F.log_softmax(self.guided(elements).double() / self.temperature, -1)
        return log_p if self.tilt is None else F.log_softmax(log_p + self.tilt(elements, log_p), -1)

    @torch.no_grad()
    def guided(self, elements: Tensor) -> Tensor:
        """[B, K, 119] guided log-odds; their exponentials do not sum to one where guidance is not 1."""
        base = N_STATES ** torch.arange(self.n_orbits, dtype=torch.long)
        _, place = torch.unique((elements * base).sum(1), return_inverse=True)
        first = torch.full((int(place.max()) + 1,), len(elements), dtype=torch.long)
        first.scatter_reduce_(0, place, torch.arange(len(elements)), "amin")
        contexts = elements[first]
        return torch.cat([self._evaluate(part) for part in contexts.split(CHUNK)])[place]

    def _evaluate(self, elements: Tensor) -> Tensor:
        strengths = self._strengths()
        given = self.condition.given[0]
        if strengths is None:
            return F.log_softmax(self._conditional(elements, given), -1)
        nothing = self._conditional(elements, torch.zeros_like(given))
        total = log_u = F.log_softmax(nothing, -1)
        for shown, strength in strengths:
            # log p_u + sum over properties of s_i (log p_i - log p_u): guided_logits, one property at a time
            step = guided_logits(self._conditional(elements, shown), nothing, strength) - log_u
            total = total + step.nan_to_num(nan=0.0)  # -inf minus -inf, where an element may not stand
        return total

    def _strengths(self) -> list[tuple[Tensor, float]] | None:
        """Which properties are shown together, with which strength; None for the plain conditional model."""
        given = self.condition.given[0]
        if not bool(given.any()) or self.guidance == 1.0:
            return None
        if isinstance(self.guidance, tuple):
            alone = torch.eye(len(given), dtype=torch.bool)
            return [(alone[p], s) for p, s in enumerate(self.guidance) if bool(given[p])]
        return [(given, float(self.guidance))]

    def _conditional(self, elements: Tensor, given: Tensor) -> Tensor:
        shown = Conditions(self.condition.low, self.condition.high, given[None])
        features = condition_features(shown, self.scales)
        embedded = self.denoiser.embed_conditions(features, shown.given).expand(len(elements), -1)
        row = torch.zeros(len(elements), dtype=torch.long)
        return restrict(self.denoiser(self.table, row, elements, embedded), elements, self.allowed, self.distinct)

    @torch.no_grad()
    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """[n, K] atomic numbers, orbits revealed one at a time in random order."""
        elements = torch.full((n, self.n_orbits), HIDDEN, dtype=torch.long)
        order = reveal_order(torch.ones_like(elements, dtype=torch.bool), generator)
        for step in range(self.n_orbits):
            elements = self.reveal(elements, (order == step).long().argmax(1), generator)
        return elements

    def reveal(self, elements: Tensor, orbit: Tensor, generator: torch.Generator) -> Tensor:
        """``elements`` with one more orbit [n] drawn."""
        rows = torch.arange(len(elements))
        drawn = sample_states(self.log_probabilities(elements)[rows, orbit], generator)
        revealed = elements.clone()
        revealed[rows, orbit] = drawn
        return revealed
