"""Draw elements for given prototypes: one species slot per step, in random order."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from data.prototype_table import PrototypeTable
from generators.conditioning import Conditions, PropertyScale, condition_features
from generators.denoiser.orbit_denoiser import HIDDEN, OrbitDenoiser
from generators.diffusion.masked import guided_logits, reveal_order, sample_states


@dataclass(frozen=True, eq=False)
class CompositionSampler:
    """Samples compositions from a denoiser under a condition.

    Attributes:
        denoiser: the network, in evaluation mode.
        scales: one per property, in the network's order.
        allowed: [119] bool, elements that may occur (state 0 is never allowed).
        guidance: strength of classifier-free guidance; 1 is the plain conditional model, 0 none at all.
        temperature: of every draw.
    """

    denoiser: OrbitDenoiser
    scales: tuple[PropertyScale, ...]
    allowed: Tensor
    guidance: float = 1.0
    temperature: float = 1.0

    def draw_prototypes(self, condition: Conditions, candidates: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """[n] rows among ``candidates`` (training rows of prototypes), from ``p(prototype | condition)``.

        ``condition`` has one row.
        """
        logits = self._guided(condition, lambda c: self.denoiser.prototype_logits(c))[0, candidates]
        return candidates[sample_states(logits.expand(n, -1), generator, self.temperature)]

    @torch.no_grad()
    def draw_elements(
        self,
        table: PrototypeTable,
        row: Tensor,
        condition: Conditions,
        generator: torch.Generator,
        clamp: Tensor | None = None,
    ) -> Tensor:
        """[B, K] atomic numbers, 0 where padded.

        Args:
            table: prototypes; ``row`` [B] says which one each crystal has.
            condition: one row for all crystals, or B rows.
            generator: CPU generator.
            clamp: [B, K] elements that are given (0 where free).

        Raises:
            ValueError: fewer allowed elements than species slots (slots carry different elements).
        """
        leader, mask = table.leader[row], table.mask[row]
        is_leader = table.is_leader[row]
        n_slots = int(is_leader.sum(-1).max())
        n_allowed = int(self.allowed.sum())
        if n_allowed < n_slots:
            raise ValueError(
                f"allowed_elements: {n_allowed} elements for {n_slots} different sites, allow more elements"
            )
        elements = torch.zeros_like(leader) if clamp is None else clamp.clone()
        free = is_leader & (elements == HIDDEN)
        order = reveal_order(free, generator)
        for step in range(int(free.sum(-1).max())):
            current = order == step
            active = current.any(-1).nonzero().squeeze(-1)
            conditions = condition if len(condition.given) == 1 else condition.select(active)
            at = current[active].long().argmax(-1)
            here, given = row[active], elements[active]
            logits = self._guided(
                conditions,
                lambda c, here=here, given=given, at=at: self.denoiser(table, here, given, c)[
                    torch.arange(len(at), device=at.device), at
                ],
            )
            used = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, given, True)
            logits = logits.masked_fill(used | ~self.allowed, -torch.inf)
            drawn = sample_states(logits, generator, self.temperature)
            same_slot = (leader[active] == at[:, None]) & mask[active]
            elements[active] = torch.where(same_slot, drawn[:, None], given)
        return elements

    @torch.no_grad()
    def _guided(self, condition: Conditions, logits: object) -> Tensor:
        """Guided logits of ``logits(embedded condition)``."""
        evaluate = logits
        features = condition_features(condition, self.scales)
        device = self.denoiser.nothing.device
        embed = self.denoiser.embed_conditions
        with_wish: Tensor = evaluate(embed(features.to(device), condition.given.to(device)))  # type: ignore[operator]
        if self.guidance == 1.0 or not bool(condition.given.any()):
            return with_wish
        nothing = torch.zeros_like(condition.given)
        without: Tensor = evaluate(embed(torch.zeros_like(features).to(device), nothing.to(device)))  # type: ignore[operator]
        return guided_logits(with_wish, without, self.guidance)
