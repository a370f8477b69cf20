"""Teach a sharpened model of whole crystals to draw without guidance what it draws with guidance.

    python scripts/distil_guidance.py STRUCTURES.parquet --generator outputs/sharpened/model-04.pt --output FOLDER

Afterwards ``model-NN.pt`` is the model after NN rounds, ``drawn-NN.parquet`` what it drew. A killed run goes on with
the same command.
"""

from __future__ import annotations

from pathlib import Path

from generators.crystals.distillation import Distillation, DistillationSettings
from generators.crystals.teaching import against_hulls, start_sketching, teaching_parser


def main() -> None:
    parser = against_hulls(teaching_parser(__doc__.splitlines()[0], DistillationSettings()))
    parser.add_argument("--judged", type=Path, nargs="+", default=[], help="tables that sharpening wrote")
    arguments = parser.parse_args()
    try:
        start = start_sketching(DistillationSettings(), arguments)
        print(Distillation(*start, judged=arguments.judged).run())
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
