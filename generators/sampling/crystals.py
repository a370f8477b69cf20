"""Sampling of whole crystals: Wyckoff positions, then elements, then geometry; what is given is clamped."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from data.orbit_batch import OrbitBatch
from data.strain_scale import StrainScale
from generators.conditioning import Conditions, PropertyScale
from generators.denoiser.crystal_denoiser import CrystalDenoiser
from generators.diffusion.masked import reveal_order, sample_states
from generators.element_features import N_STATES
from generators.sampling.crystal_geometry import CrystalSamplerSettings, GeometrySampler
from generators.sampling.crystal_logits import NEVER
from generators.sampling.crystal_prototypes import ROUNDS, PrototypeSampler
from generators.sampling.crystal_task import CrystalTask
from generators.sampling.element_masks import completable, composition_choices, element_choices
from generators.sampling.reachable import MAX_ATOMS
from generators.sampling.templates import Templates
from generators.screening.ion_exchange import group_neighbours


class CrystalSampler(PrototypeSampler):
    """Draws crystals from a denoiser under a wish and a task.

    Args:
        denoiser: in evaluation mode.
        scales: one per property, in the network's order.
        strain_scale: of the lattice.
        known_elements: that the model was trained on.
        settings: how to draw.
        templates: crystals whose geometry new ones of the same protostructure start from; under a composition also
            whose prototypes are tried.
        geometry: denoiser of coordinates and lattice, if it is another one.
    """

    def __init__(
        self,
        denoiser: CrystalDenoiser,
        scales: tuple[PropertyScale, ...],
        strain_scale: StrainScale,
        known_elements: tuple[int, ...],
        settings: CrystalSamplerSettings | None = None,
        templates: Templates | None = None,
        geometry: CrystalDenoiser | None = None,
    ) -> None:
        super().__init__(denoiser, scales, strain_scale, known_elements, settings or CrystalSamplerSettings())
        self.templates = templates
        self.geometry = GeometrySampler(geometry or denoiser, strain_scale, self.settings, templates)

    @torch.no_grad()
    def draw(self, task: CrystalTask, wish: Conditions, n: int, generator: torch.Generator) -> OrbitBatch:
        """``n`` crystals (fewer only if the task leaves the sampler no way on, which is rare).

        Args:
            task: what is given.
            wish: one row.
            generator: CPU generator.
        """
        done: list[tuple[OrbitBatch, OrbitBatch | None]] = []
        for _ in range(ROUNDS if task.charge_balanced else 1):
            frame, seeds = self._without_geometry(task, wish, n, generator)
            if task.charge_balanced:
                rows = task.fulfilled(frame).nonzero().squeeze(-1)
                frame, seeds = frame.select(rows), None if seeds is None else seeds.select(rows)
            done.append((frame, seeds))
            n -= len(frame)
            if n <= 0:
                break
        frame = OrbitBatch.concatenate([frame for frame, _ in done])
        if not len(frame):
            raise ValueError("task.charge_balanced: nothing of this kind that the model draws is")
        if done[0][1] is None or task.noise == 1:
            return self.draw_geometry(frame, wish, generator)
        # The cell keeps its ratio to what its elements would take: an open framework stays open.
        seeds = OrbitBatch.concatenate([seeds for _, seeds in done if seeds is not None])
        return self.draw_geometry(frame, wish, generator, task.noise, self.geometry.standard(seeds))

    @torch.no_grad()
    def sketch(
        self, task: CrystalTask, wish: Conditions, n: int, generator: torch.Generator
    ) -> tuple[OrbitBatch, Tensor]:
        """``n`` crystals whose sites and cell are those of a template, as they are, drawn where there is none; and how
        far their elements are from those of the template [n] (`generators.sampling.templates.Start`).

        A quarter of the time of `draw`, and enough for a surrogate to tell what is stable.
        """
        frame, _ = self._without_geometry(task, wish, n, generator)
        if self.templates is None:
            return self.draw_geometry(frame, wish, generator), torch.full((len(frame),), torch.inf)
        start = self.templates.start(frame)
        sketched = start.sketched(self.geometry.strain_scale)
        rows, rest = start.found.nonzero().squeeze(-1), (~start.found).nonzero().squeeze(-1)
        parts = [sketched.select(rows)]
        if len(rest):
            unknown = torch.zeros(len(rest), dtype=torch.long)
            condition = self._condition(wish, len(rest), None, unknown, unknown)
            parts.append(self.geometry.follow(frame.select(rest), condition, generator))
        return OrbitBatch.concatenate(parts), start.distance[torch.cat([rows, rest])]

    def _without_geometry(
        self, task: CrystalTask, wish: Conditions, n: int, generator: torch.Generator
    ) -> tuple[OrbitBatch, OrbitBatch | None]:
        """Crystals whose coordinates and lattice are still to come, and the seeds that they were made of."""
        if task.seeds is not None:
            usable = self.usable_seeds(task)
            seeds = task.seeds.select(usable[torch.randint(len(usable), (n,), generator=generator)])
            return self.draw_elements(seeds, task, wish, generator), seeds
        if task.composition:
            return self._of_composition(task, wish, n, generator), None
        frame, numbers = self.sized_prototypes(task, wish, n, generator)
        frame = self.draw_elements(frame, task, wish, generator, self.settings.for_prototypes, numbers)
        if self.settings != self.settings.for_prototypes:  # which orbits share an element stays
            again = replace(task, seeds=frame, noise=1.0, keep_elements=0.0, exchange=0, charge_balanced=False)
            frame = self.draw_elements(frame, again, wish, generator)
        return frame, None

    def _of_composition(self, task: CrystalTask, wish: Conditions, n: int, generator: torch.Generator) -> OrbitBatch:
        """Prototypes of similar compounds as far as there are any, the others drawn by the model."""
        most = round(n * self.settings.template_share)
        frame = None
        if self.templates is not None and most:
            frame = self.templates.prototypes(task, most, generator, self.settings.prototype_temperature)
        missing = n if frame is None else n - len(frame)
        if frame is not None and not missing:
            return frame
        others, _ = self.draw_prototypes(task, wish, self.draw_numbers(task, wish, missing, generator), generator)
        return others if frame is None else OrbitBatch.concatenate([frame, others])

    # -- elements -------------------------------------------------------------------------------------------

    def usable_seeds(self, task: CrystalTask) -> Tensor:
        """Rows of the seeds that can fulfil the task.

        Raises:
            ValueError: no seed can.
        """
        assert task.seeds is not None
        seeds, allowed = task.seeds, task.element_mask(self.known_elements)
        n = seeds.n_atoms
        fine = task.group_mask()[seeds.space_group] & (n <= MAX_ATOMS) & task.atom_counts()[n.clamp(max=MAX_ATOMS)]
        fine &= seeds.n_orbits <= task.max_orbits
        sites = torch.zeros_like(seeds.multiplicity).scatter_add(1, task.leaders(seeds), seeds.multiplicity)
        fine &= completable(torch.zeros_like(sites), sites, allowed, task, task.tied)
        if not bool(fine.any()):
            raise ValueError(
                f"task.seeds: none of {len(seeds)} fulfils the space groups, n_atoms and elements asked for"
            )
        return fine.nonzero().squeeze(-1)

    def draw_elements(
        self,
        frame: OrbitBatch,
        task: CrystalTask,
        wish: Conditions,
        generator: torch.Generator,
        settings: CrystalSamplerSettings | None = None,
        numbers: Tensor | None = None,
    ) -> OrbitBatch:
        """Elements of every orbit, one orbit at a time in random order, within the task's constraints.

        With seeds, their geometry is in view (at the task's noise, scaled to one volume per atom), and a share of the
        elements may be kept. ``numbers`` [B] are the different elements that each crystal shall have, if that is known.
        """
        settings = settings or self.settings
        allowed = task.element_mask(self.known_elements)
        n = len(frame)
        all_differ = task.seeds is not None and task.tied
        if all_differ:
            numbers = frame.n_elements
        unknown = torch.zeros(n, dtype=torch.long)
        condition = self._condition(wish, n, task, unknown, unknown if numbers is None else numbers)
        seeded = task.seeds is not None and task.noise < 1
        elements = torch.zeros_like(frame.atomic_number)
        changed = torch.zeros(n, N_STATES, dtype=torch.bool)  # elements that may not come back
        if task.seeds is not None and (task.keep_elements > 0 or task.exchange > 0):
            if task.exchange > 0:
                changed = exchanged_species(frame, task.exchange, generator)
                keep = ~changed
            else:
                keep = torch.rand(n, N_STATES, generator=generator) < task.keep_elements
            elements = torch.where(keep.gather(1, frame.atomic_number) & frame.mask, frame.atomic_number, 0)
            elements = torch.where(allowed[elements], elements, 0)
        leader = task.leaders(frame)
        leads = frame.mask & (leader == torch.arange(leader.shape[1]))
        sites = torch.zeros_like(leader).scatter_add(1, leader, frame.multiplicity)
        elements = elements * completable(elements * leads, sites, allowed, task, all_differ)[:, None]
        free = leads & (elements == 0)
        order = reveal_order(free, generator)
        shown = frame.replace(atomic_number=elements)
        standard = self.geometry.standard(frame) if seeded else None
        noise_u = torch.rand(frame.coordinates.shape, generator=generator) - 0.5
        coordinates = frame.coordinates.float() + task.noise * noise_u * frame.coordinate_mask if seeded else None
        for step in range(int(free.sum(-1).max())):
            current = order == step
            rows = current.any(-1).nonzero().squeeze(-1)
            at = current[rows].long().argmax(-1)
            hidden = shown.mask[rows] & (elements[rows] == 0)
            geometry = None
            if seeded:
                assert coordinates is not None and standard is not None
                geometry = (coordinates[rows], standard[rows], torch.full((len(rows),), task.noise))
            logits = self._tokens(
                shown.select(rows), condition.select(rows), torch.zeros_like(hidden), hidden, at,
                self.denoiser.element_logits, settings.guidance, geometry,
            )  # fmt: skip
            left = (order[rows] > step).sum(-1)
            placed = elements[rows] * leads[rows]
            shall = None if numbers is None or all_differ else numbers[rows]
            choices = element_choices(placed, left, allowed, task, all_differ, shall)
            if task.composition:
                choices &= composition_choices(placed, sites[rows], at, task, all_differ)
            other = choices & ~changed[rows]
            choices = torch.where(other.any(1, keepdim=True), other, choices)
            if task.exchange > 0 and task.within_groups:
                near = choices & (group_neighbours() > 0)[frame.atomic_number[rows, at]]
                choices = torch.where(near.any(1, keepdim=True), near, choices)
            drawn = sample_states(logits.masked_fill(~choices, NEVER), generator, settings.temperature)
            elements[rows, at] = drawn
            elements[rows] = elements[rows].gather(1, leader[rows]) * frame.mask[rows]
            shown = shown.replace(atomic_number=elements)
        return frame.replace(atomic_number=elements)

    # -- geometry ---------------------------------------------------------------------------------------------

    def draw_geometry(
        self,
        frame: OrbitBatch,
        wish: Conditions,
        generator: torch.Generator,
        start: float = 1.0,
        standard: Tensor | None = None,
    ) -> OrbitBatch:
        """Coordinates and lattice: from a seed's geometry where ``standard`` is given, else as `GeometrySampler.draw`.

        Args:
            frame: space groups, positions, elements; with ``start`` below 1 also the seeds' coordinates.
            wish: one row.
            generator: CPU generator.
            start: time at which to start.
            standard: [B, 6] standardised strain of the seeds.
        """
        unknown = torch.zeros(len(frame), dtype=torch.long)
        condition = self._condition(wish, len(frame), None, unknown, unknown)
        if standard is None:
            return self.geometry.draw(frame, condition, generator)
        return self.geometry.follow(frame, condition, generator, start, standard)


def exchanged_species(frame: OrbitBatch, number: int, generator: torch.Generator) -> Tensor:
    """[B, 119] bool: ``number`` of each crystal's elements (all if it has fewer), at random."""
    present = torch.zeros(len(frame), N_STATES, dtype=torch.bool).scatter(1, frame.atomic_number, True)
    present[:, 0] = False
    score = torch.rand(present.shape, generator=generator).masked_fill(~present, -1.0)
    rank = score.argsort(1, descending=True).argsort(1)
    return present & (rank < number)
