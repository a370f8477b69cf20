"""What the denoiser of whole crystals says of a wish: logits, guided, of crystals of like size together."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from data.orbit_batch import OrbitBatch
from data.strain_scale import StrainScale
from generators.conditioning import Conditions, PropertyScale, condition_features
from generators.crystals.noise import observe
from generators.denoiser.crystal_denoiser import CrystalCondition, CrystalDenoiser, NoisyCrystals
from generators.diffusion.masked import guided_logits
from generators.element_features import N_STATES
from generators.sampling.crystal_geometry import CrystalSamplerSettings, narrowed
from generators.sampling.crystal_task import CrystalTask

NEVER = -1e9
"""Logit of what a mask rules out."""


class CrystalLogits:
    """Reads a denoiser; `generators.sampling.crystals.CrystalSampler` draws from what it says.

    Args:
        denoiser: in evaluation mode.
        scales: one per property, in the network's order.
        strain_scale: of the lattice.
        settings: how to draw.
    """

    def __init__(
        self,
        denoiser: CrystalDenoiser,
        scales: tuple[PropertyScale, ...],
        strain_scale: StrainScale,
        settings: CrystalSamplerSettings,
    ) -> None:
        self.denoiser, self.scales, self.strain_scale, self.settings = denoiser, scales, strain_scale, settings
        self.device = next(denoiser.parameters()).device

    def _condition(
        self, wish: Conditions, n: int, task: CrystalTask | None, atoms: Tensor, numbers: Tensor
    ) -> CrystalCondition:
        features = condition_features(wish, self.scales).expand(n, -1, -1)
        given = wish.given.expand(n, -1)
        share = torch.zeros(n, N_STATES)
        if task is not None and task.composition:
            total = sum(task.composition.values())
            for z, count in task.composition.items():
                share[:, z] = count / total
        if task is not None and not task.composition and task.n_atoms[0] == task.n_atoms[1]:
            atoms = torch.full((n,), task.n_atoms[0])
        source = torch.full((n,), self.settings.source, dtype=torch.long)
        return CrystalCondition(features, given, share, atoms, numbers, source)

    def _guided(
        self, condition: CrystalCondition, logits: Callable[[Tensor, Tensor], Tensor], guidance: float
    ) -> Tensor:
        """Logits [n, S] of ``logits(embedded condition, rows)``, guided, on the CPU."""
        rows = torch.arange(len(condition.given))
        condition = condition.to(self.device)
        with_wish = logits(self.denoiser.embed_condition(condition), rows)
        if guidance == 1.0 or not bool(condition.given.any()):
            return with_wish.cpu()
        without = logits(self.denoiser.embed_condition(condition.without_properties()), rows)
        return guided_logits(with_wish, without, guidance).cpu()

    def _read_positions(self, tokens: Tensor, state: NoisyCrystals) -> Tensor:
        return self.denoiser.position_logits(tokens, state.batch.space_group)

    def _tokens(
        self,
        frame: OrbitBatch,
        condition: CrystalCondition,
        position_hidden: Tensor,
        element_hidden: Tensor,
        at: Tensor,
        head: Callable[[Tensor, NoisyCrystals], Tensor],
        guidance: float,
        geometry: tuple[Tensor, Tensor, Tensor] | None = None,
        copies: Tensor | None = None,
    ) -> Tensor:
        """[n, S] guided logits of orbit ``at`` [n] by ``head(tokens, state)``; crystals of like size together."""
        order = torch.argsort(frame.n_orbits, stable=True)
        pieces = []
        for rows in order.split(self.settings.batch_size):
            width = int(frame.n_orbits[rows].max())
            part = narrowed(frame.select(rows), width).to(self.device)
            seen = None
            if geometry is not None:
                u, s, time = geometry
                seen = (u[rows, :width].to(self.device), s[rows].to(self.device), time[rows].to(self.device))
            state = observe(
                part, self.strain_scale, self.denoiser.config.n_radial,
                position_hidden[rows, :width].to(self.device), element_hidden[rows, :width].to(self.device), seen,
                copies=None if copies is None else copies[rows, :width].to(self.device),
            )  # fmt: skip
            reader = self._reader(state, at[rows].to(self.device), head)
            pieces.append(self._guided(condition.select(rows), reader, guidance))
        result = torch.cat(pieces)
        return result[torch.argsort(order)]

    def _reader(
        self, state: NoisyCrystals, at: Tensor, head: Callable[[Tensor, NoisyCrystals], Tensor]
    ) -> Callable[[Tensor, Tensor], Tensor]:
        def read(wish: Tensor, _: Tensor) -> Tensor:
            return head(self.denoiser(state, wish), state)[torch.arange(len(at), device=at.device), at]

        return read
