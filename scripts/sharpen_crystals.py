"""Teach a model of whole crystals to draw what is stable and new without guidance, from the best of its own draws.

    python scripts/sharpen_crystals.py STRUCTURES.parquet --generator outputs/taught/model.pt --output FOLDER

Afterwards ``model-NN.pt`` is the model after NN rounds, ``drawn-NN.parquet`` what it drew. A killed run goes on with
the same command.
"""

from __future__ import annotations

from generators.crystals.sharpening import Sharpening, SharpeningSettings
from generators.crystals.teaching import against_hulls, start_sketching, teaching_parser


def main() -> None:
    parser = against_hulls(teaching_parser(__doc__.splitlines()[0], SharpeningSettings()))
    arguments = parser.parse_args()
    try:
        print(Sharpening(*start_sketching(SharpeningSettings(), arguments)).run())
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
