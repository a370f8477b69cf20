"""Build ``data/tables/elemental_references.json``: every element's lowest energy on CHGNet's scale.

Each element is put on every one-element prototype of the library (AFLOW's elemental structures, molecular
crystals among them), relaxed within symmetry by CHGNet , and the lowest energy per atom
is kept with the name of its structure. Run: ``python scripts/build_elemental_references.py``; it resumes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from pymatgen.core import Composition, Element
from tqdm import tqdm

from data.cells import decode
from data.contact import covalent_radii, shortest_ratio
from data.decoration import with_volume_per_atom
from data.orbit_batch import OrbitBatch
from data.prototypes import prototype_library
from generators.judging import JudgeWorkers
from generators.oracles.judge import JudgeSettings

MAX_ATOMS = 4
"""Larger structures (up to 32 atoms) are tried only for elements of the group that they were found in."""
LARGEST = 32
VOLUME_FACTOR = 1.15
UNKNOWN_TO_CHGNET = {84, 85, 86, 87, 88}  # Po, At, Rn, Fr, Ra


def _group(formula: str) -> int:
    """Group of an elemental crystal's element (18 columns; lanthanides and actinides count as 3)."""
    return int(Composition(formula).elements[0].group)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tables = Path(__file__).parents[1] / "data" / "tables"
    parser.add_argument("--output", type=Path, default=tables / "elemental_references.json")
    parser.add_argument("--work", type=Path, default=Path("outputs/build/elemental_references"))
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    library = [p for p in prototype_library() if p.n_species == 1 and p.n_atoms <= LARGEST]
    numbers = [z for z in range(1, 95) if z not in UNKNOWN_TO_CHGNET]
    radii = covalent_radii()
    summary: dict[str, dict[str, object]] = {}
    jobs = []
    names: list[str] = []
    for z in numbers:
        symbol = Element.from_Z(z).symbol
        prototypes = [p for p in library if p.n_atoms <= MAX_ATOMS or _group(p.example) == _group(symbol)]
        batch = OrbitBatch.from_crystals([p.crystal([z]) for p in prototypes])
        cells = decode(batch)
        touching = cells.volume / cells.n_atoms / shortest_ratio(cells, radii) ** 3
        jobs.append(with_volume_per_atom(batch, touching * VOLUME_FACTOR))
        names += [p.name for p in prototypes]
    everything = OrbitBatch.concatenate(jobs)
    with (
        tqdm(total=len(everything), unit="crystal") as bar,
        JudgeWorkers(JudgeSettings(with_bulk_modulus=False), arguments.workers) as workers,
    ):
        table = workers.judge(everything, arguments.work, "elements", progress=lambda n, _: bar.update(n))
    table["prototype"] = names
    table["element"] = [Element.from_Z(row[0]).symbol for row in table["atomic_numbers"]]
    for symbol, rows in table[table["valid"]].groupby("element", sort=False):
        best = rows.sort_values("energy_per_atom").iloc[0]
        summary[str(symbol)] = {
            "energy_per_atom": round(float(best["energy_per_atom"]), 5),
            "volume_per_atom": round(float(best["volume_per_atom"]), 4),
            "structure": str(best["prototype"]),
        }
    card = {
        "scale": "CHGNet 0.3.0",
        "unit": "eV/atom",
        "made_by": "scripts/build_elemental_references.py",
        "candidate_structures": len(library),
        "elements": summary,
    }
    arguments.output.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    print(f"{arguments.output}: {len(summary)} of {len(numbers)} elements")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
