"""Coordinates and lattice of crystals whose elements are known: from noise, or from the geometry of a template."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from data.orbit_batch import OrbitBatch
from data.strain_scale import StrainScale
from generators.crystals.noise import observe
from generators.denoiser.crystal_denoiser import N_SOURCES, CrystalCondition, CrystalDenoiser
from generators.diffusion.interpolants import boost, schedule
from generators.sampling.templates import Templates

LEAST_STEPS = 4
"""Network evaluations of a short way, if so many are asked for at all."""


@dataclass(frozen=True)
class CrystalSamplerSettings:
    """How crystals are drawn.

    Attributes:
        guidance: strength of classifier-free guidance; 1 is the plain conditional model.
        temperature: of elements.
        prototype_guidance, prototype_temperature: of space groups, positions, and which orbits share an element; the
            number of elements is drawn before them and never guided.
        group_guidance, group_temperature: of space groups and numbers of orbits, in multiples of the prototypes'.
        steps: network evaluations for the geometry from noise; fewer from a start nearby (fourth root of its time).
        boost: `generators.diffusion.interpolants.boost` of the coordinates.
        power: of the time schedule.
        source: number of the part of the training data to resemble (`generators.crystals.build`), 0 for any.
        batch_size: crystals in one evaluation.
        template_noise: time at which the geometry starts from a template.
        template_share: of the crystals under a composition, those on prototypes of similar compounds, if there are as
            many.
    """

    guidance: float = 1.0
    temperature: float = 1.0
    prototype_guidance: float = 1.0
    prototype_temperature: float = 1.0
    group_guidance: float = 1.0
    group_temperature: float = 1.0
    steps: int = 16
    boost: float = 12.0
    power: float = 1.0
    source: int = 0
    batch_size: int = 128
    template_noise: float = 0.1
    template_share: float = 0.75

    def __post_init__(self) -> None:
        for name in ("guidance", "prototype_guidance", "group_guidance"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: must not be negative")
        for name in ("temperature", "prototype_temperature", "group_temperature"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be positive")
        if self.steps < 1:
            raise ValueError(f"steps={self.steps}: must be at least 1")
        if not 0 < self.template_noise <= 1:
            raise ValueError(f"template_noise={self.template_noise}: must lie in (0, 1]")
        if not 0 <= self.template_share <= 1:
            raise ValueError(f"template_share={self.template_share}: must lie between 0 and 1")
        if not 0 <= self.source <= N_SOURCES:
            raise ValueError(f"source={self.source}: use 1 to {N_SOURCES}, or 0 for any")

    @property
    def for_prototypes(self) -> CrystalSamplerSettings:
        """The same with the guidance and temperature of prototypes."""
        return replace(self, guidance=self.prototype_guidance, temperature=self.prototype_temperature)


class GeometrySampler:
    """Draws the geometry; each crystal from noise, from a seed's geometry, or from that of a template.

    Args:
        denoiser: in evaluation mode.
        strain_scale: of the lattice.
        settings: how to draw.
        templates: crystals of the same protostructure to start from; None to start from noise.
    """

    def __init__(
        self,
        denoiser: CrystalDenoiser,
        strain_scale: StrainScale,
        settings: CrystalSamplerSettings,
        templates: Templates | None = None,
    ) -> None:
        self.denoiser, self.strain_scale, self.settings, self.templates = denoiser, strain_scale, settings, templates
        self.device = next(denoiser.parameters()).device

    def draw(self, frame: OrbitBatch, condition: CrystalCondition, generator: torch.Generator) -> OrbitBatch:
        """From the templates where there are any, else from noise; crystals may come back in another spelling."""
        if self.templates is None:
            return self.follow(frame, condition, generator)
        start = self.templates.start(frame)
        frame, elements, found = start.crystals, start.elements, start.found
        rows, rest = found.nonzero().squeeze(-1), (~found).nonzero().squeeze(-1)
        parts = []
        if len(rows):
            part = frame.select(rows)
            standard = self.standard(part.replace(atomic_number=elements[rows]))
            noise = self.settings.template_noise
            parts.append(self.follow(part, condition.select(rows), generator, noise, standard))
        if len(rest):
            parts.append(self.follow(frame.select(rest), condition.select(rest), generator))
        return OrbitBatch.concatenate(parts).select(torch.argsort(torch.cat([rows, rest])))

    def standard(self, batch: OrbitBatch) -> Tensor:
        """[B, 6] standardised strain: cells keep their ratio to what their elements would take, whatever comes in."""
        return self.strain_scale.to_standard(batch, batch.strain).float()

    def follow(
        self,
        frame: OrbitBatch,
        condition: CrystalCondition,
        generator: torch.Generator,
        start: float = 1.0,
        standard: Tensor | None = None,
    ) -> OrbitBatch:
        """Coordinates and lattice: the way to the data followed from noise, or from a noised seed.

        Args:
            frame: space groups, positions, elements; with ``start`` below 1 also the seeds' coordinates.
            condition: what is asked of them.
            generator: CPU generator.
            start: time at which to start.
            standard: [B, 6] standardised strain of the seeds.
        """
        n = len(frame)
        noise = torch.rand(frame.coordinates.shape, generator=generator) * frame.coordinate_mask
        strain_noise = torch.randn(n, 6, generator=generator) * frame.strain_mask
        if standard is not None:
            step = (noise - 0.5) * frame.coordinate_mask
            coordinates = torch.remainder(frame.coordinates.float() + start * step, 1.0)
            strain = (1 - start) * standard + start * strain_noise
        else:
            coordinates, strain = noise, strain_noise
        steps = max(round(self.settings.steps * start**0.25), min(self.settings.steps, LEAST_STEPS))
        times = schedule(steps, start, self.settings.power)
        order = torch.argsort(frame.n_orbits, stable=True)
        result_u, result_s = torch.zeros_like(coordinates), torch.zeros_like(strain)
        for rows in order.split(self.settings.batch_size):
            width = max(int(frame.n_orbits[rows].max()), 1)
            part = narrowed(frame.select(rows), width).to(self.device)
            c = self.denoiser.embed_condition(condition.select(rows).to(self.device))
            u, s = coordinates[rows, :width].to(self.device), strain[rows].to(self.device)
            shown = torch.zeros_like(part.mask)
            for now, then in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
                clock = torch.full((len(rows),), now, device=self.device)
                state = observe(
                    part, self.strain_scale, self.denoiser.config.n_radial, shown, shown, (u, s, clock)
                )  # fmt: skip
                step, strain_step = self.denoiser.geometry(self.denoiser(state, c), state)
                share = (now - then) / now
                u = torch.remainder(u + min(share * boost(now, self.settings.boost), 1.0) * step, 1.0)
                s = s + share * strain_step
            result_u[rows, :width] = u.cpu()
            result_s[rows] = s.cpu()
        free = frame.coordinate_mask
        done = frame.replace(coordinates=torch.where(free, result_u, 0.0).double())
        return done.replace(strain=self.strain_scale.from_standard(done, result_s.double()))


def narrowed(batch: OrbitBatch, width: int) -> OrbitBatch:
    """The first ``width`` columns."""
    return replace(
        batch,
        position=batch.position[:, :width],
        atomic_number=batch.atomic_number[:, :width],
        coordinates=batch.coordinates[:, :width],
        mask=batch.mask[:, :width],
    )
