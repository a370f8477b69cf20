"""How whole crystals are drawn where the configuration leaves it open."""

from __future__ import annotations

from data.orbit_batch import OrbitBatch
from data.prototypes import prototype_library
from generators.crystals.answer import FROM_NOTHING, GPU_BATCH, ON_WHAT_IS_GIVEN, sampler_settings
from generators.sampling.crystal_task import CrystalTask
from generators.schema import GenerateConfig

SEEDS = OrbitBatch.from_crystals([prototype_library().get("rocksalt").crystal([11, 17])])


def drawn_with(task: CrystalTask, config: GenerateConfig | None = None) -> tuple[tuple[float, float], ...]:
    settings = sampler_settings(config or GenerateConfig(), task, "cpu")
    of_elements, of_prototypes = settings, settings.for_prototypes
    return tuple((s.guidance, s.temperature) for s in (of_elements, of_prototypes))


def test_guidance_and_temperature_follow_from_what_is_given() -> None:
    assert drawn_with(CrystalTask()) == (FROM_NOTHING, FROM_NOTHING)
    assert drawn_with(CrystalTask(seeds=SEEDS)) == (ON_WHAT_IS_GIVEN, ON_WHAT_IS_GIVEN)


def test_what_is_asked_for_holds_and_prototypes_follow_the_elements() -> None:
    config = GenerateConfig()
    config.screening.guidance, config.screening.temperature = 2.0, 1.5
    assert drawn_with(CrystalTask(), config) == ((2.0, 1.5), (2.0, 1.5))
    config.task.prototype_guidance = 0.0
    assert drawn_with(CrystalTask(), config) == ((2.0, 1.5), (0.0, 1.5))


def test_a_graphics_card_takes_more_at_once() -> None:
    assert sampler_settings(GenerateConfig(), CrystalTask(), "cuda").batch_size == GPU_BATCH
    assert sampler_settings(GenerateConfig(), CrystalTask(), "cpu").batch_size < GPU_BATCH
