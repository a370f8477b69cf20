"""How whole crystals are drawn where the configuration leaves it open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from generators.crystals.judging import ABOVE
from generators.crystals.task_schema import SOURCES
from generators.sampling.crystal_geometry import CrystalSamplerSettings
from generators.sampling.crystal_task import CrystalTask
from generators.screening.element_shares import little_known
from generators.wish import Interval, Wish


class Usual(NamedTuple):
    """Guidance, temperature and which training data to resemble (of `generators.crystals.task_schema.SOURCES`)."""

    guidance: float
    temperature: float
    like: str

    @property
    def sampler_settings(self) -> CrystalSamplerSettings:
        """The same for elements and prototypes."""
        g, t = self.guidance, self.temperature
        return CrystalSamplerSettings(g, t, g, t, source=SOURCES.index(self.like))


FOR_STABILITY, FROM_NOTHING, ON_WHAT_IS_GIVEN = (
    Usual(1.0, 1.0, "chosen"),
    Usual(4.0, 0.9, "any"),
    Usual(3.0, 0.5, "any"),
)
"""What brought most stable, unique and novel crystals (docs/benchmarks.md): with no wish but for the energy above the
hull and no composition, which the shipped model was sharpened to draw without guidance
(`generators.crystals.sharpening`); else; with seeds or prototypes."""
UNSHARPENED = CrystalSamplerSettings(8.0, 1.1, 8.0, 1.1, group_guidance=0.5, source=SOURCES.index("chosen"))
"""Under a wish for stability, of a model that is not sharpened; with more guidance of the space groups most become Pnma
(docs/crystals.md)."""
NEAR_HULL = Interval(-0.05, 0.03)
"""eV/atom above the hull that the model is asked for where any energy below something is wished. Far below the hull lie
the judge's errors, and guidance by a wish that is open there leads to what was learnt from these."""


def for_stability(task: CrystalTask, wish: Wish) -> bool:
    """Whether stability is all that is wished."""
    return set(wish.intervals) == {ABOVE} and not task.composition


def usual(task: CrystalTask, wish: Wish) -> Usual:
    """By what is wished and given."""
    if for_stability(task, wish):
        return FOR_STABILITY
    return FROM_NOTHING if task.seeds is None else ON_WHAT_IS_GIVEN


def with_usual_elements(task: CrystalTask, wish: Wish, known: Sequence[int]) -> CrystalTask:
    """The task; where stability is all that is wished and no elements are asked for, without noble gases and
    radioactive ones: of their compounds few are known, so that a hull holds for stable what is merely untried.

    Args:
        task: what is given.
        wish: what is wished.
        known: elements of the model.
    """
    given = wish.allowed_elements is not None or task.required or task.seeds is not None
    if given or not for_stability(task, wish):
        return task
    allowed = frozenset(known) if task.allowed_elements is None else task.allowed_elements
    return replace(task, allowed_elements=allowed - little_known())


def asked(task: CrystalTask, wish: Wish) -> Mapping[str, Interval]:
    """What the model is asked for: the wish, or `NEAR_HULL` where stability is all that is wished."""
    above = wish.intervals.get(ABOVE)
    if above is None or not for_stability(task, wish) or above.low is not None or above.high is None or above.high < 0:
        return wish.intervals
    return {ABOVE: NEAR_HULL}
