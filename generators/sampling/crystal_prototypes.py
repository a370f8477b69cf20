"""Space groups and Wyckoff positions of whole crystals (and, under a composition, elements), one orbit at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from data.orbit_batch import OrbitBatch
from data.strain_scale import StrainScale
from data.wyckoff import wyckoff_table
from generators.conditioning import Conditions, PropertyScale
from generators.denoiser.crystal_denoiser import MOST_ELEMENTS, CrystalCondition, CrystalDenoiser, NoisyCrystals
from generators.diffusion.masked import sample_states
from generators.sampling.crystal_geometry import CrystalSamplerSettings, narrowed
from generators.sampling.crystal_logits import NEVER, CrystalLogits
from generators.sampling.crystal_task import CrystalTask
from generators.sampling.position_masks import Progress, letter_choices
from generators.sampling.reachable import MAX_ATOMS

ROUNDS, _SIZE_ROUNDS = 60, 8
_LEAST_RIGHT = 1 / 8
"""Share of draws with a size asked for below which masks see to the size."""


class PrototypeSampler(CrystalLogits):
    """Draws what has no elements and no geometry yet; arguments as those of `CrystalLogits`.

    Args:
        known_elements: that the model was trained on.
    """

    def __init__(
        self,
        denoiser: CrystalDenoiser,
        scales: tuple[PropertyScale, ...],
        strain_scale: StrainScale,
        known_elements: tuple[int, ...],
        settings: CrystalSamplerSettings,
    ) -> None:
        super().__init__(denoiser, scales, strain_scale, settings)
        self.known_elements = known_elements

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
        return sample_states(logits.masked_fill(~possible, NEVER), generator).clamp(min=fewest)

    def sized_prototypes(
        self, task: CrystalTask, wish: Conditions, n: int, generator: torch.Generator
    ) -> tuple[OrbitBatch, Tensor]:
        """`draw_prototypes` as the model would have them among the sizes asked for.

        Masks alone would make small crystals of what the model meant to be large (more elements, lighter), so that
        crystals of a wrong size are drawn anew, as long as not too many are wrong.
        """
        fewest, most = task.n_atoms
        done: list[tuple[OrbitBatch, Tensor]] = []
        if fewest < most < MAX_ATOMS:
            wide = replace(task, n_atoms=(1, MAX_ATOMS))
            tries = n
            for _ in range(_SIZE_ROUNDS):
                frame, numbers = self.draw_prototypes(
                    wide, wish, self.draw_numbers(wide, wish, tries, generator), generator, most
                )
                right = (frame.n_atoms >= fewest).nonzero().squeeze(-1)
                share = len(right) / tries
                right = right[torch.randperm(len(right), generator=generator)[:n]]
                done.append((frame.select(right), numbers[right]))
                n -= len(right)
                if not n or share < _LEAST_RIGHT:
                    break
                tries = math.ceil(n / share)
        if n:
            done.append(self.draw_prototypes(task, wish, self.draw_numbers(task, wish, n, generator), generator))
        return OrbitBatch.concatenate([frame for frame, _ in done]), torch.cat([numbers for _, numbers in done])

    def draw_prototypes(
        self,
        task: CrystalTask,
        wish: Conditions,
        numbers: Tensor,
        generator: torch.Generator,
        most: int = MAX_ATOMS,
    ) -> tuple[OrbitBatch, Tensor]:
        """Space groups and positions; elements too if the composition is given. Coordinates and lattice are 0.

        Args:
            numbers: [n] different elements that each crystal shall have.
            most: crystals that come to have more atoms are given up, and missing in the result.

        Returns:
            The crystals, in any order, and how many elements each shall have.
        """
        done: list[OrbitBatch] = []
        of_done: list[Tensor] = []
        for _ in range(ROUNDS):
            found, finished, given_up = self._try_prototypes(task, wish, numbers, generator, most)
            done.append(found)
            of_done.append(numbers[finished])
            numbers = numbers[~finished & ~given_up]
            if not len(numbers):
                break
        if len(numbers) and not any(map(len, done)):
            raise ValueError("task: the model found no crystal that fulfils it, loosen its constraints")
        return OrbitBatch.concatenate(done), torch.cat(of_done)

    def _try_prototypes(
        self, task: CrystalTask, wish: Conditions, numbers: Tensor, generator: torch.Generator, most: int
    ) -> tuple[OrbitBatch, Tensor, Tensor]:
        """Those that came out; [n] bool which they are, and which were given up as larger than ``most``."""
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
        group = sample_states(logits.masked_fill(~possible, NEVER), generator, cold)
        counts = (sizes[group, :, atoms] if task.composition else sizes[group].any(2)) & enough
        logits = self._guided(
            condition, lambda c, rows: self.denoiser.count_logits(c, group[rows].to(self.device)), of_groups
        )[:, :33]  # fmt: skip
        count = sample_states(logits.masked_fill(~counts, NEVER), generator, cold)
        width = min(int(count.max()), most)
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
        given_up = count > most  # each orbit has an atom
        start = wyckoff_table().position_start[group]
        for column in range(width):
            rows = (progress.alive & ~given_up & (count > column)).nonzero().squeeze(-1)
            if not len(rows):
                break
            logits = self._growing(frame, condition, rows, column, column, self._read_positions, settings.guidance)
            choices = letter_choices(progress, rows)
            stuck = ~choices.any(1)
            drawn = sample_states(logits.masked_fill(~choices, NEVER), generator, temperature)
            frame.position[rows, column] = start[rows] + drawn
            progress.alive[rows[stuck]] = False
            if task.composition:
                self._draw_one_element(frame, condition, progress, rows[~stuck], column, generator)
            else:
                progress.take(rows, frame.position[rows, column])
            given_up |= progress.atoms + progress.left > most
        finished = progress.finished() & progress.alive & ~given_up
        return frame.select(finished.nonzero().squeeze(-1)), finished, given_up

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
        drawn = sample_states(logits.masked_fill(~choices, NEVER), generator, self.settings.prototype_temperature)
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
        weight = possible / torch.arange(len(possible)).clamp(min=1).double()
        return torch.multinomial(weight, n, replacement=True, generator=generator)
