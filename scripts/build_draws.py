"""Make ``data/tables/draws.parquet``: a generator's own crystals, relaxed and labelled by CHGNet.

    python scripts/build_draws.py --generator outputs/bootstrap/model.pt
    python scripts/build_draws.py --generator generators/weights/crystal.pt --number 40000 --add  # by a better one

A model learns what is stable from crystals of others; what it gets wrong itself it learns from these. Most are drawn
under the wish for stability. A killed run goes on with the same command.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from tqdm import tqdm

from data.cells import decode
from data.contact import atomic_radii, shortest_ratio
from data.decorations import load_decorations
from data.exchanges import load_all_exchanges, load_draws
from data.orbit_batch import OrbitBatch
from data.protostructure import crystal_key
from generators.conditioning import Conditions
from generators.crystals.draws import embedded_templates
from generators.crystals.labelling import compact, labelled, relaxed_by_judge, write_drawn
from generators.crystals.model import CrystalModel, load_crystal_model
from generators.manifest import file_hash
from generators.oracles.hull_tables import reference_compounds
from generators.sampling.crystal_geometry import CrystalSamplerSettings
from generators.sampling.crystal_task import CrystalTask
from generators.wish import Interval

LARGEST = 20
CLOSEST = 0.5
"""Of the sum of the atomic radii; nearer atoms are not worth a judge's call."""
_ROUND = 512
WAYS: tuple[tuple[CrystalSamplerSettings, float | None], ...] = (
    (CrystalSamplerSettings(guidance=3.0, temperature=0.5, prototype_temperature=0.7), 0.0),
    (CrystalSamplerSettings(guidance=3.0, temperature=0.5), 0.0),
    (CrystalSamplerSettings(guidance=3.0, temperature=0.5, prototype_temperature=0.7), 0.05),
    (CrystalSamplerSettings(guidance=2.0, prototype_temperature=0.85), 0.0),
    (CrystalSamplerSettings(guidance=3.0, temperature=0.5), 0.05),
    (CrystalSamplerSettings(source=1), None),
)
"""How rounds are drawn in turn, and the highest energy above the hull that is asked for."""


def draw(model: CrystalModel, number: int, seed: int) -> OrbitBatch:
    """At least ``number`` distinct new crystals."""
    names = [scale.name for scale in model.scales]
    seen = set(reference_compounds()["crystal_key"]) | set(load_decorations().keys())
    for table in (load_all_exchanges(), load_draws()):
        seen |= set(table.keys()) if table is not None else set()
    kept, total, number_of_round = [], 0, 0
    with tqdm(total=number, unit="crystal", desc="drawn") as bar:
        while total < number:
            generator = torch.Generator().manual_seed(seed * 100_003 + number_of_round)
            settings, high = WAYS[number_of_round % len(WAYS)]
            asked = {} if high is None else {"e_above_hull": Interval(None, high)}
            sampler = model.sampler(settings, embedded_templates())
            wish = Conditions.from_wish(asked, names, 1)
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
    parser.add_argument("--add", action="store_true", help="keep the rows that the table has")
    arguments = parser.parse_args()

    model = load_crystal_model(arguments.generator)
    drawn = arguments.work / "drawn.pt"
    if not drawn.exists():
        batch = draw(model, arguments.number, arguments.seed)
        drawn.parent.mkdir(parents=True, exist_ok=True)
        torch.save(vars(batch), drawn.with_suffix(".part"))
        drawn.with_suffix(".part").replace(drawn)
    batch = OrbitBatch(**torch.load(drawn, weights_only=True))
    frame = relaxed_by_judge(batch, arguments.work, arguments.workers)
    good, reasons = labelled(frame)
    write_drawn(
        compact(good), arguments.output,
        f"""`scripts/build_draws.py`: crystals drawn by earlier models, five sixths under the wish for an energy
  above the hull of at most 0 or 0.05 eV/atom, the rest without a wish; neither known, exchanged, decorated nor
  repeated; closest atoms at least {CLOSEST:g} of the sum of their radii apart.""",
        f"a model of SHA-256 {file_hash(arguments.generator)[:16]} (seed {arguments.seed}): {len(good):,} of "
        f"{len(frame):,}; left out: {json.dumps(reasons)}",
        arguments.add,
    )  # fmt: skip
    print(f"{arguments.output}: {len(good)} of {len(frame)} new crystals, left out: {reasons}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
