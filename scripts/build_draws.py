"""Make ``data/tables/draws.parquet``: a generator's own crystals, relaxed and labelled by CHGNet.

    python scripts/build_draws.py --generator outputs/bootstrap/model.pt

A model learns what is stable from crystals of others; what it gets wrong itself it learns from these. Two thirds are
drawn under the wish for stability, the rest without any. A killed run goes on with the same command.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from data.cells import decode
from data.contact import atomic_radii, shortest_ratio
from data.exchanges import load_exchanges
from data.orbit_batch import OrbitBatch
from data.protostructure import crystal_key
from generators.checkpoints import load_checkpoint
from generators.conditioning import Conditions
from generators.crystals.labelling import LABELS, compact, labelled, shares_above_hull
from generators.crystals.module import CrystalDiffusion
from generators.judging import JudgeWorkers, write_parquet
from generators.manifest import file_hash
from generators.oracles.hull_tables import reference_compounds
from generators.oracles.judge import JudgeSettings
from generators.sampling.crystal_geometry import CrystalSamplerSettings
from generators.sampling.crystal_task import CrystalTask
from generators.sampling.crystals import CrystalSampler
from generators.wish import Interval

LARGEST = 20
CLOSEST = 0.5
"""Of the sum of the atomic radii; nearer atoms are not worth a judge's call."""
_ROUND, _SHARD = 512, 64


def draw(module: CrystalDiffusion, number: int, seed: int) -> OrbitBatch:
    """At least ``number`` distinct new crystals."""
    names = [scale.name for scale in module.scales]
    wishes = [Conditions.from_wish({"e_above_hull": Interval(None, high)}, names, 1) for high in (0.0, 0.05)]
    wishes.append(Conditions.nothing(1, len(names)))
    seen = set(reference_compounds()["crystal_key"])
    seen |= set(load_exchanges().keys())
    sampler = CrystalSampler(
        module.averaged, module.scales, module.strain_scale, module.known_elements, CrystalSamplerSettings()
    )
    kept, total, number_of_round = [], 0, 0
    with tqdm(total=number, unit="crystal", desc="drawn") as bar:
        while total < number:
            generator = torch.Generator().manual_seed(seed * 100_003 + number_of_round)
            wish = wishes[number_of_round % len(wishes)]
            batch = sampler.draw(CrystalTask(n_atoms=(1, LARGEST)), wish, _ROUND, generator)
            far = (shortest_ratio(decode(batch), atomic_radii()) > CLOSEST).tolist()
            new = []
            for i, crystal in enumerate(batch.to_crystals()):
                key = crystal_key(crystal)
                if far[i] and key not in seen:
                    seen.add(key)
                    new.append(crystal)
            kept.append(OrbitBatch.from_crystals(new))
            total += len(new)
            number_of_round += 1
            bar.update(len(new))
    return OrbitBatch.concatenate(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tables = Path(__file__).parents[1] / "data" / "tables"
    parser.add_argument("--generator", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=tables / "draws.parquet")
    parser.add_argument("--work", type=Path, default=Path("outputs/build/draws"))
    parser.add_argument("--number", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()

    module = CrystalDiffusion.from_export(*load_checkpoint(arguments.generator, "crystal"))
    drawn = arguments.work / "drawn.pt"
    if not drawn.exists():
        batch = draw(module, arguments.number, arguments.seed)
        drawn.parent.mkdir(parents=True, exist_ok=True)
        torch.save(vars(batch), drawn.with_suffix(".part"))
        drawn.with_suffix(".part").replace(drawn)
    batch = OrbitBatch(**torch.load(drawn, weights_only=True))
    batch = batch.select(torch.argsort(batch.n_atoms, stable=True))
    frames = []
    with (
        tqdm(total=len(batch), unit="crystal", smoothing=0.02, mininterval=5) as bar,
        JudgeWorkers(JudgeSettings(), arguments.workers) as workers,
    ):
        for i, rows in enumerate(torch.split(torch.arange(len(batch)), 2048)):
            part = OrbitBatch.from_crystals(batch.select(rows).to_crystals())
            frames.append(
                workers.judge(part, arguments.work, f"part-{i:03d}", _SHARD, progress=lambda n, _: bar.update(n))
            )
    frame = pd.concat(frames, ignore_index=True).assign(parent="")
    good, reasons = labelled(frame)
    write_parquet(compact(good), arguments.output)
    shares = shares_above_hull(good)
    arguments.output.with_suffix(".md").write_text(
        f"""# Card of {arguments.output.name}

- Made by: `scripts/build_draws.py --generator MODEL --number {arguments.number}` (seed {arguments.seed}), two thirds
  under the wish for an energy above the hull of at most 0 or 0.05 eV/atom, the rest without a wish; neither known,
  exchanged nor repeated; closest atoms at least {CLOSEST:g} of the sum of their radii apart.
  Relaxed within symmetry by CHGNet.
- The model: `raremat-train experiment=crystals trainer.max_epochs=6 run=bootstrap data.path=STRUCTURES`, before
  this table existed (SHA-256 {file_hash(arguments.generator)[:16]}).
- Rows: {len(good):,} of {len(frame):,}; left out: {json.dumps(reasons)}.
- **Labels are CHGNet's (0.3.0), not DFT's.** Energy above the embedded hull: {shares} eV/atom.
- Columns: as in exchanges.parquet ({", ".join(LABELS)}), without parents.
""",
        encoding="utf-8",
    )
    print(f"{arguments.output}: {len(good)} of {len(frame)} crystals, left out: {reasons}; {shares}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
