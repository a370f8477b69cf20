"""What the commands that teach a model with its own draws have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from generators.conditioning import Conditions
from generators.crystals.build import build_crystals
from generators.crystals.datamodule import CrystalDataModule
from generators.crystals.draw_and_learn import LearningSettings
from generators.crystals.draws import CrystalDraws
from generators.crystals.judging import ABOVE
from generators.crystals.module import CrystalDiffusion
from generators.crystals.task_schema import SOURCES
from generators.crystals.usual import FOR_STABILITY, NEAR_HULL, with_usual_elements
from generators.oracles.hull_tables import KNOWN
from generators.sampling.crystal_geometry import CrystalSamplerSettings
from generators.sampling.crystal_task import CrystalTask
from generators.schema import DataConfig, ModelConfig, TrainConfig
from generators.wish import Wish

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
LARGEST = 20
"""Atoms of a primitive cell."""
STEPS = 8
"""Network evaluations of a geometry from noise: enough for the surrogate."""


def teaching_parser(description: str, settings: DataclassInstance) -> argparse.ArgumentParser:
    """A command line with the files and an option for each of the settings, with its value here where none is given."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("structures", type=Path, help="known crystals that the model was trained on")
    parser.add_argument("--generator", type=Path, required=True, help="model to start from")
    parser.add_argument("--output", type=Path, required=True, help="folder")
    for field in fields(settings):
        value = getattr(settings, field.name)
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(value), default=value)
    return parser


def given_settings(settings: T, arguments: argparse.Namespace) -> T:
    """The settings with the values that `teaching_parser` read.

    Raises:
        ValueError: settings that cannot be used.
    """
    return replace(settings, **{field.name: getattr(arguments, field.name) for field in fields(settings)})


def stable_draws(
    generator: Path, module: CrystalDiffusion, settings: CrystalSamplerSettings, seed: int
) -> CrystalDraws:
    """Draws under the wish to be stable, of the elements that are usual under it (`with_usual_elements`)."""
    stable = Wish({ABOVE: NEAR_HULL})
    task = with_usual_elements(CrystalTask(n_atoms=(1, LARGEST)), stable, module.known_elements)
    wish = Conditions.from_wish({ABOVE: NEAR_HULL}, [scale.name for scale in module.scales], 1)
    return CrystalDraws(generator, settings, task, wish, seed)


def against_hulls(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The command line with tables of hulls."""
    parser.add_argument(
        "--hull", type=Path, action="append",
        help="table (formula, formation_energy_per_atom on CHGNet's scale) or word (known, embedded) that energies "
        "count against; may be given several times; known if it is not",
    )  # fmt: skip
    return parser


class Sketching(NamedTuple):
    """What `generators.crystals.draw_and_learn.DrawAndLearn` begins with."""

    module: CrystalDiffusion
    data: CrystalDataModule
    draws: CrystalDraws
    settings: Any
    folder: Path
    hull: Sequence[Path]
    log: Callable[[str], object]


def start_sketching(settings: LearningSettings, arguments: argparse.Namespace) -> Sketching:
    """By the settings and the command line of `teaching_parser` and `against_hulls`.

    Raises:
        ValueError: settings or files that cannot be used.
    """
    given = given_settings(settings, arguments)
    config = TrainConfig(
        run="sketch", data=DataConfig(path=str(arguments.structures)),
        model=ModelConfig(kind="crystal", initial=str(arguments.generator), dropout=0.0),
    )  # fmt: skip
    data, module, _ = build_crystals(config)
    sampler = CrystalSamplerSettings(source=SOURCES.index(FOR_STABILITY.like), steps=STEPS)
    draws = stable_draws(arguments.generator, module, sampler, given.seed)
    hull = arguments.hull or [Path(KNOWN)]
    return Sketching(module, data, draws, given, arguments.output, hull, lambda line: print(line, flush=True))
