"""A model of whole crystals learns to draw without guidance what it draws with guidance, but for what is not wanted.

Guidance distillation (Meng et al., CVPR 2023, for images): the model draws with classifier-free guidance, reads these
crystals half hidden with the wish and without, and learns to say at once what both say together. Beside that it learns
to draw less often what is known, a repetition or, by the embedded surrogate, not near the hull; less than it learns to
draw it, so that it cannot fall apart. Draws then cost half of what guidance costs.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from data.frames import from_frame
from data.orbit_batch import OrbitBatch
from generators.crystals.draw_and_learn import DrawAndLearn, Kinds, LearningSettings
from generators.crystals.likelihood import divergence_from_guided
from generators.crystals.sharpening_draws import NEAR
from generators.sampling.crystal_geometry import CrystalSamplerSettings


@dataclass(frozen=True)
class DistillationSettings(LearningSettings):
    """How much is drawn, with what guidance, and how it is learnt.

    Attributes:
        guidance: strength, of elements and prototypes.
        unwanted: weight of the evidence bound of what is known or a repetition, and of others by how unlikely they are
            near the hull, beside 1 of what is said with guidance.
    """

    guidance: float = 1.5
    unwanted: float = -0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.guidance >= 1:
            raise ValueError(f"guidance={self.guidance}: must be at least 1")
        if not -1 < self.unwanted <= 0:
            raise ValueError(f"unwanted={self.unwanted}: must lie in (-1, 0]")


class Distillation(DrawAndLearn[DistillationSettings]):
    """Rounds of drawing with guidance and learning to do without; see `DrawAndLearn`."""

    def _sampling(self) -> CrystalSamplerSettings:
        strength = self.settings.guidance
        return replace(self.draws.settings, guidance=strength, prototype_guidance=strength)

    def _round(self, number: int, drawn: pd.DataFrame, kinds: Kinds) -> str:
        module, settings = self.module, self.settings
        teacher = copy.deepcopy(module.averaged).eval().requires_grad_(False)
        near = drawn[NEAR].to_numpy(np.float64)
        unwanted = np.where(kinds.known | kinds.again, 1.0, 1 - near)
        weights = torch.from_numpy(settings.unwanted * unwanted).float()
        divergences = []

        def loss(rows: Tensor, crystals: OrbitBatch, generator: torch.Generator) -> Tensor:
            divergence, bound = divergence_from_guided(
                module.denoiser, teacher, settings.guidance, module.strain_scale, crystals, self.wish,
                self.draws.settings.source, self.elements, generator,
            )  # fmt: skip
            divergences.append(float(divergence.detach().mean()))
            return divergence.mean() + (weights[rows] * bound).mean()

        usual = self._learn(number, from_frame(drawn), torch.arange(len(drawn)), loss)
        return (
            f"{kinds.known.mean():.1%} known, {kinds.again.mean():.1%} drawn before, near the hull and not known "
            f"{(near * ~kinds.known).mean():.1%}; divergence from what is said with guidance {divergences[0]:.2f} at "
            f"first, {divergences[-1]:.2f} at last; loss on training data {usual:.2f}"
        )
