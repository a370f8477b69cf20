"""Make ``data/tables/exchanges.parquet``: hypothetical crystals by ion exchange, relaxed and labelled by CHGNet.

    python scripts/build_exchanges.py STRUCTURES.parquet

Each known crystal of at most 20 atoms gets some of its elements replaced by similar ones, in several rounds; what is
new is relaxed within its symmetry. The generator of whole crystals learns from them what is stable and what is not, and
takes its geometries as seeds. A killed run goes on with the same command.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from data.dataset import CrystalDataset
from data.frames import CRYSTAL_COLUMNS
from data.orbit_batch import OrbitBatch
from data.protostructure import crystal_key
from data.sources import read_crystals
from generators.crystals.labelling import STORED, compact, labelled, shares_above_hull
from generators.judging import JudgeWorkers, write_parquet
from generators.oracles.judge import JudgeSettings
from generators.screening.crystal_exchange import exchange_crystals

LARGEST, MOST_FREE = 20, 30
TEMPERATURES = (1.0, 1.0)
_SHARD = 64


def children(parents: OrbitBatch, known: set[str], seed: int) -> tuple[OrbitBatch, Tensor, list[int]]:
    """Distinct new children, small ones first within each round; the row of each one's parent, and its round."""
    seen = set(known)
    batches, rows, rounds = [], [], []
    for number, temperature in enumerate(TEMPERATURES):
        generator = torch.Generator().manual_seed(seed * 1009 + number)
        batch, row = exchange_crystals(parents, generator, temperature=temperature)
        new = []
        for i, crystal in enumerate(batch.to_crystals()):
            key = crystal_key(crystal)
            if key not in seen:
                seen.add(key)
                new.append(i)
        index = torch.tensor(new)
        index = index[torch.argsort(batch.n_atoms[index], stable=True)]
        batches.append(batch.select(index))
        rows.append(row[index])
        rounds += [number] * len(index)
    return OrbitBatch.concatenate(batches), torch.cat(rows), rounds


def parents_of(dataset: CrystalDataset) -> Tensor:
    """Rows of the crystals that are small enough."""
    batch = dataset.batch
    free = batch.coordinate_mask.flatten(1).sum(1)
    return ((batch.n_atoms <= LARGEST) & (free <= MOST_FREE)).nonzero().squeeze(-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tables = Path(__file__).parents[1] / "data" / "tables"
    parser.add_argument("structures", type=Path)
    parser.add_argument("--output", type=Path, default=tables / "exchanges.parquet")
    parser.add_argument("--work", type=Path, default=Path("outputs/build/exchanges"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()

    dataset, _ = read_crystals(arguments.structures)
    eligible = dataset.select(parents_of(dataset))
    batch, row, rounds = children(eligible.batch, set(dataset.keys()), arguments.seed)
    shards = torch.split(torch.arange(len(batch)), 2048)  # padded no wider than they need
    frames = []
    with (
        tqdm(total=len(batch), unit="crystal", smoothing=0.02, mininterval=5) as bar,
        JudgeWorkers(JudgeSettings(), arguments.workers) as workers,
    ):
        for i, rows in enumerate(shards):
            part = OrbitBatch.from_crystals(batch.select(rows).to_crystals())
            frames.append(
                workers.judge(part, arguments.work, f"part-{i:03d}", _SHARD, progress=lambda n, _: bar.update(n))
            )
    frame = pd.concat(frames, ignore_index=True)
    frame["parent"] = [eligible.ids[i] for i in row.tolist()]
    frame["round"] = rounds
    good, reasons = labelled(frame)
    write_parquet(compact(good), arguments.output, small=True)
    temperatures = ", ".join(f"{t:g}" for t in TEMPERATURES)
    shares, columns = shares_above_hull(good), ", ".join((*CRYSTAL_COLUMNS, *STORED))
    arguments.output.with_suffix(".md").write_text(
        f"""# Card of {arguments.output.name}

- Made by: `scripts/build_exchanges.py` (seed {arguments.seed}): in {len(TEMPERATURES)} rounds each of {len(eligible):,}
  known crystals (Materials Project, CC-BY 4.0) of at most {LARGEST} atoms gets one or several elements replaced by
  similar ones (pymatgen's substitution probabilities, to the power of 1 over {temperatures}), the cell rescaled; what
  is neither known nor repeated is relaxed within its symmetry by CHGNet (forces below 0.1 eV/Å, stress below 0.5 GPa).
- Rows: {len(good):,} of {len(frame):,}; left out: {reasons}.
- **Labels are CHGNet's (0.3.0), not DFT's.** Energy above the embedded hull: {shares} eV/atom.
- Columns: parent (Materials Project's identifier), protostructure, {columns}.
""",
        encoding="utf-8",
    )
    print(f"{arguments.output}: {len(good)} of {len(frame)} crystals, left out: {reasons}; {shares}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
