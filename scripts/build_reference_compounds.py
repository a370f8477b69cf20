"""Make ``data/tables/reference_compounds.parquet``: known compounds on the judge's own energy scale.

    python scripts/build_reference_compounds.py STRUCTURES.parquet

Every structure of the given file (all formats of ``data.path``) is relaxed within its symmetry by CHGNet. What is
kept is what novelty and the hull need: formula, crystal key, energy and a few properties, no coordinates. A killed
run goes on with the same command.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import torch
from tqdm import tqdm

from data.protostructure import crystal_key, protostructure_label
from data.sources import read_crystals
from generators.judging import JudgeWorkers, judged_formation_energies, write_parquet
from generators.oracles.judge import JudgeSettings

KEPT = ("formation_energy_per_atom", "volume_per_atom", "magnetization_density", "bulk_modulus")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tables = Path(__file__).parents[1] / "data" / "tables"
    parser.add_argument("structures", type=Path)
    parser.add_argument("--source", default="Materials Project, CC-BY 4.0", help="for the card")
    parser.add_argument("--output", type=Path, default=tables / "reference_compounds.parquet")
    parser.add_argument("--work", type=Path, default=Path("outputs/build/reference_compounds"))
    parser.add_argument("--first", type=int, default=None, help="judge only so many of them")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()

    dataset, rejected = read_crystals(arguments.structures)
    if arguments.first:
        dataset = dataset.select(torch.arange(min(arguments.first, len(dataset))))
    settings = JudgeSettings(max_force=0.05, max_stress=0.2, max_evaluations=200)
    with (
        tqdm(total=len(dataset), unit="crystal", smoothing=0.02, mininterval=5) as bar,
        JudgeWorkers(settings, arguments.workers) as workers,
    ):
        frame = workers.judge(dataset.batch, arguments.work, "reference", progress=lambda n, _: bar.update(n))
    frame["formation_energy_per_atom"] = judged_formation_energies(frame)
    crystals = dataset.batch.to_crystals()
    frame["id"] = dataset.ids
    frame["formula"] = [c.reduced_formula for c in crystals]
    frame["protostructure"] = [protostructure_label(c) for c in crystals]
    frame["crystal_key"] = [crystal_key(c) for c in crystals]
    reasons = Counter(frame["reason"][~frame["valid"]])
    table = frame.loc[:, ["id", "formula", "protostructure", "crystal_key", *KEPT]]
    table = table.astype(dict.fromkeys(KEPT, "float32"))
    write_parquet(table, arguments.output, small=True)
    card = f"""# Card of {arguments.output.name}

- Made by: `scripts/build_reference_compounds.py`, from {len(table):,} structures ({arguments.source});
  {len(rejected)} more could not be read.
- Labels: CHGNet 0.3.0, relaxed within symmetry, not DFT. Formation energies against `elemental_references.json`.
- Without energy, kept for novelty: {dict(reasons) or "none"}.
- Columns: id, formula, protostructure, crystal_key, {", ".join(KEPT)}.
"""
    arguments.output.with_suffix(".md").write_text(card, encoding="utf-8")
    print(f"{arguments.output}: {len(table)} compounds, without energy: {dict(reasons)}, not read: {len(rejected)}")


if __name__ == "__main__":
    main()
