"""Teach a model of whole crystals with the best of its own draws, judged by CHGNet, round by round.

    python scripts/iterate_crystals.py STRUCTURES.parquet --generator generators/weights/crystal.pt --output FOLDER
    python scripts/iterate_crystals.py ... --draw-workers 14 --judge-workers 15 --device cuda     # a graphics card

Afterwards ``model-NN.pt`` is the model after NN rounds, ``judged-NN.parquet`` what it learnt from; ``--table`` adds all
that was judged to a table, for instance ``data/tables/chosen.parquet``. A killed run goes on with the same command.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from data.exchanges import load_exchanges
from data.workers import start_worker
from generators.crystals.build import build_crystals
from generators.crystals.expert_iteration import LOW, ExpertIteration, IterationSettings
from generators.crystals.labelling import compact, write_drawn
from generators.crystals.teaching import LARGEST, given_settings, stable_draws, teaching_parser
from generators.crystals.usual import UNSHARPENED
from generators.manifest import file_hash
from generators.schema import DataConfig, ModelConfig, TrainConfig


def main() -> None:
    parser = teaching_parser(__doc__.splitlines()[0], IterationSettings())
    parser.add_argument("--table", type=Path, help="where the judged crystals are added")
    parser.add_argument("--guidance", type=float, default=UNSHARPENED.guidance, help="of the draws")
    parser.add_argument("--temperature", type=float, default=UNSHARPENED.temperature, help="of the draws")
    arguments = parser.parse_args()
    try:
        iterate(arguments)
    except ValueError as error:
        parser.error(str(error))


def iterate(arguments: argparse.Namespace) -> None:
    """All rounds, then the table.

    Raises:
        ValueError: settings, files or folders that cannot be used.
    """
    table: Path | None = arguments.table
    if table is not None and table.exists() and not table.with_suffix(".md").exists():
        raise ValueError(f"table={table}: has no card {table.with_suffix('.md').name} beside it")
    if arguments.device == "cuda":
        torch.set_float32_matmul_precision("high")
    else:
        start_worker()
    settings = given_settings(IterationSettings(), arguments)
    config = TrainConfig(
        run="iterate", data=DataConfig(path=str(arguments.structures)),
        model=ModelConfig(
            kind="crystal", initial=str(arguments.generator), dropout=0.0, weight_decay=0.03, ema_decay=0.99
        ),
    )  # fmt: skip
    data, module, _ = build_crystals(config)
    g, t = arguments.guidance, arguments.temperature
    sampler = replace(
        UNSHARPENED, guidance=g, temperature=t, prototype_guidance=g, prototype_temperature=t,
        batch_size=settings.shard_size if settings.device == "cuda" else UNSHARPENED.batch_size,
    )  # fmt: skip
    draws = stable_draws(arguments.generator, module, sampler, settings.seed)
    iteration = ExpertIteration(module, data, draws, settings, arguments.output, lambda line: print(line, flush=True))
    print(iteration.run())
    if table is None:
        return
    judged = pd.concat(iteration.judged(), ignore_index=True).assign(parent="")
    if table.exists():
        judged = judged[~judged["crystal_key"].isin(load_exchanges(table).keys())]
    if not len(judged):
        print(f"{table}: has all of them")
        return
    write_drawn(
        compact(judged), table,
        f"""`scripts/iterate_crystals.py`: crystals of at most {LARGEST} atoms that a model drew under the wish to
  be stable, round by round; the embedded surrogate chose those likeliest to lie at most
  {LOW:g} eV/atom above the hull of the known compounds; none known, exchanged, decorated, drawn or repeated.""",
        f"a model of SHA-256 {file_hash(arguments.generator)[:16]} and its successors, {_rounds(settings.rounds)} "
        f"of {settings.draws:,} draws (guidance {g:g}, temperature {t:g}, seed {settings.seed}): {len(judged):,}",
        table.exists(),
    )  # fmt: skip


def _rounds(n: int) -> str:
    return "in one round" if n == 1 else f"in {n} rounds"


if __name__ == "__main__":
    main()
