"""What the commands that teach a model with its own draws have in common."""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from generators.conditioning import Conditions
from generators.crystals.draws import CrystalDraws
from generators.crystals.judging import ABOVE
from generators.crystals.module import CrystalDiffusion
from generators.crystals.usual import NEAR_HULL, with_usual_elements
from generators.sampling.crystal_geometry import CrystalSamplerSettings
from generators.sampling.crystal_task import CrystalTask
from generators.wish import Wish

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
LARGEST = 20
"""Atoms of a primitive cell."""


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
