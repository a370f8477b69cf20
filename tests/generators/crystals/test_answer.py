"""How whole crystals are drawn where the configuration leaves it open."""

from __future__ import annotations

from data.orbit_batch import OrbitBatch
from data.prototypes import prototype_library
from generators.crystals.answer import GPU_BATCH, sampler_settings
from generators.crystals.task_schema import SOURCES
from generators.crystals.usual import (
    FOR_STABILITY,
    FROM_NOTHING,
    NEAR_HULL,
    ON_WHAT_IS_GIVEN,
    asked,
    with_usual_elements,
)
from generators.sampling.crystal_task import CrystalTask
from generators.schema import GenerateConfig
from generators.wish import Interval, Wish

SEEDS = OrbitBatch.from_crystals([prototype_library().get("rocksalt").crystal([11, 17])])


ANYTHING, LOW = Wish({}), Wish({"e_above_hull": Interval(None, 0.1)})


def drawn_with(
    task: CrystalTask, config: GenerateConfig | None = None, wish: Wish = ANYTHING
) -> tuple[tuple[float, float], ...]:
    settings = sampler_settings(config or GenerateConfig(), task, wish, "cpu")
    of_elements, of_prototypes = settings, settings.for_prototypes
    return tuple((s.guidance, s.temperature) for s in (of_elements, of_prototypes))


def test_guidance_and_temperature_follow_from_what_is_given() -> None:
    assert drawn_with(CrystalTask()) == (FROM_NOTHING[:2],) * 2
    assert drawn_with(CrystalTask(), wish=LOW) == (FOR_STABILITY[:2],) * 2
    composition = CrystalTask(composition={11: 1, 17: 1})
    assert drawn_with(composition, wish=LOW) == (FROM_NOTHING[:2],) * 2
    assert drawn_with(CrystalTask(seeds=SEEDS), wish=LOW) == (FOR_STABILITY[:2],) * 2
    assert drawn_with(CrystalTask(seeds=SEEDS)) == (ON_WHAT_IS_GIVEN[:2],) * 2


def test_little_known_elements_are_left_out_for_stability_unless_elements_are_asked_for() -> None:
    def allowed(task: CrystalTask, wish: Wish) -> frozenset[int] | None:
        return with_usual_elements(task, wish, (3, 8, 9, 18, 43, 92)).allowed_elements

    assert allowed(CrystalTask(), LOW) == {3, 8, 9, 92}
    assert allowed(CrystalTask(), ANYTHING) is None
    forbidden = Wish(LOW.intervals, forbidden_elements=frozenset([9]))
    assert allowed(CrystalTask(allowed_elements=frozenset([3, 8, 18])), forbidden) == {3, 8}
    asked_for = Wish(LOW.intervals, allowed_elements=frozenset([9, 18]))
    assert allowed(CrystalTask(allowed_elements=frozenset([9, 18])), asked_for) == {9, 18}
    for task in (CrystalTask(chemical_system=frozenset([9, 18])), CrystalTask(seeds=SEEDS)):
        assert allowed(task, LOW) is None


def test_stability_alone_is_asked_for_near_the_hull() -> None:
    task, composition = CrystalTask(), CrystalTask(composition={11: 1, 17: 1})
    assert asked(task, LOW) == asked(CrystalTask(seeds=SEEDS), LOW) == {"e_above_hull": NEAR_HULL}
    two = Wish({**LOW.intervals, "bulk_modulus": Interval(100.0, None)})
    closed, far = Wish({"e_above_hull": Interval(-0.2, 0.1)}), Wish({"e_above_hull": Interval(None, -0.1)})
    unstable = Wish({"e_above_hull": Interval(0.2, None)})
    for wish in (ANYTHING, two, closed, far, unstable):
        assert asked(task, wish) == wish.intervals
    assert asked(composition, LOW) == LOW.intervals


def test_stable_crystals_are_drawn_like_the_chosen_ones_unless_told_otherwise() -> None:
    def like(config: GenerateConfig, wish: Wish) -> str:
        return SOURCES[sampler_settings(config, CrystalTask(), wish, "cpu").source]

    config = GenerateConfig()
    assert (like(config, LOW), like(config, ANYTHING)) == ("chosen", "any")
    config.task.like = "known"
    assert like(config, LOW) == "known"


def test_what_is_asked_for_holds_and_prototypes_follow_the_elements() -> None:
    config = GenerateConfig()
    config.screening.guidance, config.screening.temperature = 2.0, 1.5
    assert drawn_with(CrystalTask(), config) == ((2.0, 1.5), (2.0, 1.5))
    config.task.prototype_guidance = 0.0
    assert drawn_with(CrystalTask(), config) == ((2.0, 1.5), (0.0, 1.5))


def test_a_graphics_card_takes_more_at_once() -> None:
    assert sampler_settings(GenerateConfig(), CrystalTask(), ANYTHING, "cuda").batch_size == GPU_BATCH
    assert sampler_settings(GenerateConfig(), CrystalTask(), ANYTHING, "cpu").batch_size < GPU_BATCH
