"""Teach a model of whole crystals to draw what is stable and new without guidance, from the best of its own draws.

    python scripts/sharpen_crystals.py STRUCTURES.parquet --generator outputs/taught/model.pt --output FOLDER

Afterwards ``model-NN.pt`` is the model after NN rounds, ``drawn-NN.parquet`` what it drew. A killed run goes on with
the same command.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from generators.crystals.build import build_crystals
from generators.crystals.sharpening import Sharpening, SharpeningSettings
from generators.crystals.task_schema import SOURCES
from generators.crystals.teaching import given_settings, stable_draws, teaching_parser
from generators.crystals.usual import FOR_STABILITY
from generators.oracles.hull_tables import KNOWN
from generators.sampling.crystal_geometry import CrystalSamplerSettings
from generators.schema import DataConfig, ModelConfig, TrainConfig

STEPS = 8
"""Network evaluations of a geometry from noise: enough for the surrogate."""


def main() -> None:
    parser = teaching_parser(__doc__.splitlines()[0], SharpeningSettings())
    parser.add_argument(
        "--hull", type=Path, action="append",
        help="table (formula, formation_energy_per_atom on CHGNet's scale) or word (known, embedded) that energies "
        "count against; may be given several times; known if it is not",
    )  # fmt: skip
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
    settings = given_settings(SharpeningSettings(), arguments)
    config = TrainConfig(
        run="sharpen", data=DataConfig(path=str(arguments.structures)),
        model=ModelConfig(kind="crystal", initial=str(arguments.generator), dropout=0.0),
    )  # fmt: skip
    data, module, _ = build_crystals(config)
    sampler = CrystalSamplerSettings(source=SOURCES.index(FOR_STABILITY.like), steps=STEPS)
    draws = stable_draws(arguments.generator, module, sampler, settings.seed)
    hull = arguments.hull or [Path(KNOWN)]
    print(Sharpening(module, data, draws, settings, arguments.output, hull, lambda line: print(line, flush=True)).run())


if __name__ == "__main__":
    main()
