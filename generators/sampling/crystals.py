"""Sampling of whole crystals: Wyckoff positions, then elements, then geometry; what is given is clamped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from data.orbit_batch import OrbitBatch
from data.strain_scale import StrainScale
from data.wyckoff import wyckoff_table
from generators.conditioning import Conditions, PropertyScale, condition_features
from generators.crystals.noise import observe
from generators.denoiser.crystal_denoiser import MOST_ELEMENTS, CrystalCondition, CrystalDenoiser, NoisyCrystals
from generators.diffusion.masked import guided_logits, reveal_order, sample_states
from generators.element_features import N_STATES
from generators.sampling.crystal_geometry import CrystalSamplerSettings, GeometrySampler, narrowed
from generators.sampling.crystal_task import CrystalTask
from generators.sampling.element_masks import completable, composition_choices, element_choices
from generators.sampling.position_masks import Progress, letter_choices
from generators.sampling.reachable import MAX_ATOMS
from generators.sampling.templates import Templates
from generators.screening.ion_exchange import group_neighbours

_NEVER = -1e9
_ROUNDS, _SIZE_ROUNDS = 60, 8


class CrystalSampler:
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
        self.denoiser, self.scales, self.strain_scale = denoiser, scales, strain_scale
        self.known_elements = known_elements
        self.settings = settings or CrystalSamplerSettings()
        self.templates = templates
        self.geometry = GeometrySampler(geometry or denoiser, strain_scale, self.settings, templates)
        self.device = next(denoiser.parameters()).device

    @torch.no_grad()
    def draw(self, task: CrystalTask, wish: Conditions, n: int, generator: torch.Generator) -> OrbitBatch:
        """``n`` crystals (fewer only if the task leaves the sampler no way on, which is rare).

        Args:
            task: what is given.
            wish: one row.
            generator: CPU generator.
        """
        done: list[tuple[OrbitBatch, OrbitBatch | None]] = []
        for _ in range(_ROUNDS if task.charge_balanced else 1):
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
        frame, numbers = self._sized_prototypes(task, wish, n, generator)
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

    # -- space group and Wyckoff positions (and, under a composition, elements) -----------------------------

    def draw_numbers(self, task: CrystalTask, wish: Conditions, n: int, generator: torch.Generator) -> Tensor:
        """[n] different elements of each crystal, as the model gives them under the wish, never guided: guidance
        would end at elemental solids, which are the most stable and nothing new."""
        fewest, most = task.n_elements
        if task.required:
            fewest = most = len(task.required)
        orbits = int(task.sizes.any(2).any(0).nonzero().max())
        most = min(most, int(task.element_mask(self.known_elements).sum()), orbits)
        if fewest == most:
            return torch.full((n,), fewest)
        condition = self._condition(wish, n, task, torch.zeros(n, dtype=torch.long), torch.zeros(n, dtype=torch.long))
        logits = self._guided(condition, lambda c, _: self.denoiser.number_logits(c), 1.0)
        numbers = torch.arange(logits.shape[1])
        possible = (numbers >= min(fewest, MOST_ELEMENTS)) & (numbers <= most)
        return sample_states(logits.masked_fill(~possible, _NEVER), generator).clamp(min=fewest)

    def _sized_prototypes(
        self, task: CrystalTask, wish: Conditions, n: int, generator: torch.Generator
    ) -> tuple[OrbitBatch, Tensor]:
        """`draw_prototypes` as the model would have them among the sizes asked for.

        Masks alone would make small crystals of what the model meant to be large (more elements, lighter), so that
        crystals of a wrong size are drawn anew, as long as most are right.
        """
        fewest, most = task.n_atoms
        done: list[tuple[OrbitBatch, Tensor]] = []
        if fewest < most < MAX_ATOMS:
            wide = replace(task, n_atoms=(1, MAX_ATOMS))
            for _ in range(_SIZE_ROUNDS):
                frame, numbers = self.draw_prototypes(
                    wide, wish, self.draw_numbers(wide, wish, n, generator), generator
                )
                right = ((frame.n_atoms >= fewest) & (frame.n_atoms <= most)).nonzero().squeeze(-1)
                done.append((frame.select(right), numbers[right]))
                n -= len(right)
                if not n or 2 * len(right) < len(frame):
                    break
        if n:
            done.append(self.draw_prototypes(task, wish, self.draw_numbers(task, wish, n, generator), generator))
        return OrbitBatch.concatenate([frame for frame, _ in done]), torch.cat([numbers for _, numbers in done])

    def draw_prototypes(
        self, task: CrystalTask, wish: Conditions, numbers: Tensor, generator: torch.Generator
    ) -> tuple[OrbitBatch, Tensor]:
        """Space groups and positions; elements too if the composition is given. Coordinates and lattice are 0.

        Args:
            numbers: [n] different elements that each crystal shall have.

        Returns:
            The crystals, in any order, and how many elements each shall have.
        """
        done: list[OrbitBatch] = []
        of_done: list[Tensor] = []
        for _ in range(_ROUNDS):
            found, finished = self._try_prototypes(task, wish, numbers, generator)
            if len(found):
                done.append(found)
                of_done.append(numbers[finished])
            numbers = numbers[~finished]
            if not len(numbers):
                break
        if not done:
            raise ValueError("task: the model found no crystal that fulfils it, loosen its constraints")
        return OrbitBatch.concatenate(done), torch.cat(of_done)

    def _try_prototypes(
        self, task: CrystalTask, wish: Conditions, numbers: Tensor, generator: torch.Generator
    ) -> tuple[OrbitBatch, Tensor]:
        """Those that came out, and [n] bool which they are."""
        n, sizes = len(numbers), task.sizes
        atoms = self._draw_atoms(task, sizes, n, generator)
        condition = self._condition(wish, n, task, atoms, numbers)
        settings = self.settings.for_prototypes
        temperature = settings.temperature
        of_groups, cold = settings.guidance * settings.group_guidance, temperature * settings.group_temperature
        enough = torch.arange(sizes.shape[1]) >= numbers[:, None]  # [n, 33] an orbit for every element
        if task.composition:
            possible = sizes.any(1)[:, atoms].T
        else:
            possible = (sizes.any(2).long() @ enough.long().T).T > 0  # [n, 231]
        logits = self._guided(condition, lambda c, _: self.denoiser.space_group_logits(c), of_groups)
        group = sample_states(logits.masked_fill(~possible, _NEVER), generator, cold)
        counts = (sizes[group, :, atoms] if task.composition else sizes[group].any(2)) & enough
        logits = self._guided(
            condition, lambda c, rows: self.denoiser.count_logits(c, group[rows].to(self.device)), of_groups
        )[:, :33]  # fmt: skip
        count = sample_states(logits.masked_fill(~counts, _NEVER), generator, cold)
        width = int(count.max())
        mask = torch.arange(width) < count[:, None]
        frame = OrbitBatch(
            space_group=group,
            position=torch.zeros(n, width, dtype=torch.long),
            atomic_number=torch.zeros(n, width, dtype=torch.long),
            coordinates=torch.zeros(n, width, 3),
            strain=torch.zeros(n, 6),
            mask=mask,
        )
        progress = Progress.start(frame, task, atoms)
        start = wyckoff_table().position_start[group]
        for column in range(width):
            rows = (progress.alive & (count > column)).nonzero().squeeze(-1)
            if not len(rows):
                break
            logits = self._growing(frame, condition, rows, column, column, self._read_positions, settings.guidance)
            choices = letter_choices(progress, rows)
            stuck = ~choices.any(1)
            drawn = sample_states(logits.masked_fill(~choices, _NEVER), generator, temperature)
            frame.position[rows, column] = start[rows] + drawn
            progress.alive[rows[stuck]] = False
            if task.composition:
                self._draw_one_element(frame, condition, progress, rows[~stuck], column, generator)
            else:
                progress.take(rows, frame.position[rows, column])
        finished = progress.finished() & progress.alive
        return frame.select(finished.nonzero().squeeze(-1)), finished

    def _draw_one_element(
        self,
        frame: OrbitBatch,
        condition: CrystalCondition,
        progress: Progress,
        rows: Tensor,
        column: int,
        generator: torch.Generator,
    ) -> None:
        if not len(rows):
            return
        logits = self._growing(
            frame, condition, rows, column + 1, column, self.denoiser.element_logits, self.settings.prototype_guidance
        )  # fmt: skip
        choices = progress.element_choices(rows, frame.position[rows, column])
        drawn = sample_states(logits.masked_fill(~choices, _NEVER), generator, self.settings.prototype_temperature)
        frame.atomic_number[rows, column] = drawn
        progress.take(rows, frame.position[rows, column], drawn)
        progress.alive[rows[~choices.any(1)]] = False

    def _growing(
        self,
        frame: OrbitBatch,
        condition: CrystalCondition,
        rows: Tensor,
        placed: int,
        column: int,
        head: Callable[[Tensor, NoisyCrystals], Tensor],
        guidance: float,
    ) -> Tensor:
        """Logits of orbit ``column`` of the crystals at ``rows``, of which the first ``placed`` orbits have positions.

        The others, of which nothing is known yet, are all alike: one stands for them.
        """
        width = min(placed + 1, frame.mask.shape[1])
        part = narrowed(frame.select(rows), width)
        copies = torch.ones(len(rows), width, dtype=torch.long)
        if width > placed:
            copies[:, placed] = frame.n_orbits[rows] - placed
        position_hidden = part.mask & (torch.arange(width) >= placed)
        element_hidden = part.mask & (part.atomic_number == 0)
        at = torch.full((len(rows),), column)
        return self._tokens(
            part, condition.select(rows), position_hidden, element_hidden, at, head, guidance, copies=copies
        )  # fmt: skip

    def _draw_atoms(self, task: CrystalTask, sizes: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """[n] atoms in the primitive cell: drawn evenly among those possible under a composition, else 0 (not fixed).

        Small multiples of the formula are commoner: weights fall with the number of atoms.
        """
        if not task.composition:
            return torch.zeros(n, dtype=torch.long)
        possible = sizes.any(0).any(0).double()
        weight = possible / torch.arange(len(possible)).clamp(min=1).double() ** 1.0
        return torch.multinomial(weight, n, replacement=True, generator=generator)

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
            drawn = sample_states(logits.masked_fill(~choices, _NEVER), generator, settings.temperature)
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

    # -- evaluations ------------------------------------------------------------------------------------------

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


def exchanged_species(frame: OrbitBatch, number: int, generator: torch.Generator) -> Tensor:
    """[B, 119] bool: ``number`` of each crystal's elements (all if it has fewer), at random."""
    present = torch.zeros(len(frame), N_STATES, dtype=torch.bool).scatter(1, frame.atomic_number, True)
    present[:, 0] = False
    score = torch.rand(present.shape, generator=generator).masked_fill(~present, -1.0)
    rank = score.argsort(1, descending=True).argsort(1)
    return present & (rank < number)
