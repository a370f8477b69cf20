"""Teach a model of whole crystals to draw what is stable and new without guidance, from the best of its own draws.

    python scripts/sharpen_crystals.py STRUCTURES.parquet --generator outputs/taught/model.pt --output FOLDER

Afterwards ``model-NN.pt`` is the model after NN rounds, ``drawn-NN.parquet`` what it drew. A killed run goes on with
the same command.
"""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from generators.conditioning import Conditions
from generators.crystals.build import build_crystals
from generators.crystals.draws import CrystalDraws
from generators.crystals.judging import ABOVE
from generators.crystals.sharpening import Sharpening, SharpeningSettings
from generators.crystals.task_schema import SOURCES
from generators.crystals.usual import FOR_STABILITY, NEAR_HULL
from generators.sampling.crystal_geometry import CrystalSamplerSettings
from generators.sampling.crystal_task import CrystalTask
from generators.schema import DataConfig, ModelConfig, TrainConfig
from generators.screening.element_shares import radioactive_elements

LARGEST = 20
STEPS = 8
"""Network evaluations of a geometry from noise: enough for the surrogate."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("structures", type=Path, help="known crystals that the model was trained on")
    parser.add_argument("--generator", type=Path, required=True, help="model to start from")
    parser.add_argument("--output", type=Path, required=True, help="folder")
    usual = SharpeningSettings()
    for field in fields(SharpeningSettings):
        value = getattr(usual, field.name)
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(value), default=value)
    arguments = parser.parse_args()
    try:
        sharpen(arguments)
    except ValueError as error:
        parser.error(str(error))


def sharpen(arguments: argparse.Namespace) -> None:
    """All rounds.

    Raises:
        ValueError: settings, files or folders that cannot be used.
    """
    settings = SharpeningSettings(**{f.name: getattr(arguments, f.name) for f in fields(SharpeningSettings)})
    config = TrainConfig(
        run="sharpen", data=DataConfig(path=str(arguments.structures)),
        model=ModelConfig(kind="crystal", initial=str(arguments.generator), dropout=0.0),
    )  # fmt: skip
    data, module, _ = build_crystals(config)
    draws = CrystalDraws(
        arguments.generator,
        CrystalSamplerSettings(source=SOURCES.index(FOR_STABILITY.like), steps=STEPS),
        CrystalTask(
            n_atoms=(1, LARGEST), allowed_elements=frozenset(module.known_elements) - radioactive_elements()
        ),
        Conditions.from_wish({ABOVE: NEAR_HULL}, [scale.name for scale in module.scales], 1),
        settings.seed,
    )  # fmt: skip
    print(
        Sharpening(
            module, data, draws, settings, arguments.output, log=lambda line: print(line, flush=True)
        ).run()
    )  # fmt: skip


if __name__ == "__main__":
    main()
