"""Make ``data/tables/chosen.parquet``: what a generator drew and the embedded surrogate chose, judged by CHGNet.

    raremat-generate run=many task=crystals task.n=60000 'target.wish={e_above_hull: [null, 0]}' screening=samples
    python scripts/build_chosen.py outputs/many/samples.parquet --generator generators/weights/crystal.pt

A model that learns from the best of its own draws gives such draws at once (expert iteration: Anthony, Tian & Barber,
NeurIPS 2017). A killed run goes on with the same command; ``--add`` keeps the rows that the table has.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import torch
from tqdm import tqdm

from data.frames import from_frame, to_frame
from data.orbit_batch import OrbitBatch
from generators.crystals.hit_odds import LikelyHits
from generators.crystals.judging import ABOVE, CrystalJudge
from generators.crystals.labelling import compact, labelled, relaxed_by_judge, write_drawn
from generators.judging import write_parquet
from generators.manifest import file_hash
from generators.screening.crystal_funnel import KnownCrystals, screen_crystals
from generators.wish import Interval, Wish

LOW = 0.05
"""eV/atom above the hull of the known compounds that the choice asks for: some are worse than expected."""
_ROWS = 4000


def likeliest(samples: Path, share: float) -> OrbitBatch:
    """That share of a run's crystals, or as many of them as are new and well-spaced, the likeliest first."""
    file = pq.ParquetFile(samples)
    likely = LikelyHits(CrystalJudge(Wish({ABOVE: Interval(None, LOW)}), hull="known"))
    with tqdm(total=file.metadata.num_rows, unit="crystal", desc="choose", mininterval=1.0) as bar:

        def tables() -> Iterator[pd.DataFrame]:
            for batch in file.iter_batches(_ROWS):
                yield batch.to_pandas().assign(seconds=0.0)
                bar.update(len(batch))

        wanted = round(share * file.metadata.num_rows)
        return from_frame(
            screen_crystals(tables(), KnownCrystals(), frozenset(), wanted, likely=likely.log_probability).chosen
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tables = Path(__file__).parents[1] / "data" / "tables"
    parser.add_argument("samples", type=Path, help="samples.parquet of a run")
    parser.add_argument("--generator", type=Path, required=True, help="that drew them, for the card")
    parser.add_argument("--share", type=float, default=0.25, help="of the samples: the likeliest")
    parser.add_argument("--number", type=int, help="of these, drawn evenly; default is all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=tables / "chosen.parquet")
    parser.add_argument("--work", type=Path, default=Path("outputs/build/chosen"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--add", action="store_true", help="keep the rows that the table has")
    arguments = parser.parse_args()

    kept = arguments.work / "chosen.parquet"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        batch = likeliest(arguments.samples, arguments.share)
        order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(arguments.seed))
        write_parquet(to_frame(batch.select(order[: arguments.number])), kept)
    frame = relaxed_by_judge(from_frame(pd.read_parquet(kept)), arguments.work, arguments.workers)
    good, reasons = labelled(frame)
    write_drawn(
        compact(good), arguments.output,
        f"""`scripts/build_chosen.py`: crystals of at most 20 atoms that earlier models drew under the wish for an
  energy above the hull of at most 0, of which the embedded surrogate chose those likeliest to lie at most {LOW:g}
  eV/atom above the hull of the known compounds; none known, exchanged, decorated, drawn or repeated.""",
        f"a model of SHA-256 {file_hash(arguments.generator)[:16]}: "
        f"{pq.ParquetFile(arguments.samples).metadata.num_rows:,}, of which {len(frame):,} were chosen and "
        f"{len(good):,} kept; left out: {json.dumps(reasons)}",
        arguments.add,
    )  # fmt: skip
    print(f"{arguments.output}: {len(good)} of {len(frame)} crystals, left out: {reasons}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
