"""Build ``data/tables/elemental_references*.json``: every element's lowest energy on a potential's scale.

Each element is put on every one-element prototype of the library (AFLOW's elemental structures, molecular
crystals among them), relaxed within symmetry by CHGNet, and the lowest energy per atom is kept with the name
of its structure. For SevenNet, several times slower, the lowest structures of each element under CHGNet are
relaxed again. Run: ``python scripts/build_elemental_references.py [--potential sevennet]``; it resumes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd
import torch
from pymatgen.core import Composition, Element
from tqdm import tqdm

from data.cells import decode
from data.contact import covalent_radii, shortest_ratio
from data.decoration import with_volume_per_atom
from data.frames import from_frame
from data.orbit_batch import OrbitBatch
from data.prototypes import prototype_library
from generators.judging import JudgeWorkers
from generators.oracles.judge import JudgeSettings, energy_scale

MAX_ATOMS = 4
"""Larger structures (up to 32 atoms) are tried only for elements of the group that they were found in."""
LARGEST = 32
VOLUME_FACTOR = 1.15
UNKNOWN = {84, 85, 86, 87, 88}  # Po, At, Rn, Fr, Ra: in no training set of CHGNet or SevenNet
NUMBERS = [z for z in range(1, 95) if z not in UNKNOWN]
FEW = 6
"""Structures of each element that a slower potential relaxes again."""
COMPRESSION = 0.85
"""Volume from which it does: at CHGNet's volumes, neighbours in Rb and Cs lie beyond SevenNet's cutoff."""
FILES = {"chgnet": "elemental_references.json", "sevennet": "elemental_references_sevennet.json"}


def _group(formula: str) -> int:
    """Group of an elemental crystal's element (18 columns; lanthanides and actinides count as 3)."""
    return int(Composition(formula).elements[0].group)


def _candidates() -> tuple[OrbitBatch, list[str]]:
    """Every element on every one-element prototype that suits it, at a rough volume; names of the prototypes."""
    library = [p for p in prototype_library() if p.n_species == 1 and p.n_atoms <= LARGEST]
    radii = covalent_radii()
    batches, names = [], []
    for z in NUMBERS:
        symbol = Element.from_Z(z).symbol
        prototypes = [p for p in library if p.n_atoms <= MAX_ATOMS or _group(p.example) == _group(symbol)]
        batch = OrbitBatch.from_crystals([p.crystal([z]) for p in prototypes])
        cells = decode(batch)
        touching = cells.volume / cells.n_atoms / shortest_ratio(cells, radii) ** 3
        batches.append(with_volume_per_atom(batch, touching * VOLUME_FACTOR))
        names += [p.name for p in prototypes]
    return OrbitBatch.concatenate(batches), names


def _relaxed(batch: OrbitBatch, names: list[str], potential: str, folder: Path, workers: int) -> pd.DataFrame:
    """Table of `JudgeWorkers.judge` with ``prototype`` and ``element``; resumes from ``folder``."""
    with (
        tqdm(total=len(batch), unit="crystal", desc=potential) as bar,
        JudgeWorkers(JudgeSettings(with_bulk_modulus=False), workers, potential=potential) as pool,
    ):
        table = pool.judge(batch, folder, "elements", shard_size=16, progress=lambda n, _: bar.update(n))
    table["prototype"] = names
    table["element"] = [Element.from_Z(row[0]).symbol for row in table["atomic_numbers"]]
    return table


def _lowest(table: pd.DataFrame, n: int) -> pd.DataFrame:
    """The ``n`` valid rows of lowest energy of each element, elements in order."""
    return table[table["valid"]].sort_values("energy_per_atom", kind="stable").groupby("element", sort=False).head(n)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--potential", choices=tuple(FILES), default="chgnet")
    parser.add_argument("--output", type=Path, default=None)
    parser.add_argument("--work", type=Path, default=Path("outputs/build/elemental_references"))
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    output = arguments.output or Path(__file__).parents[1] / "data" / "tables" / FILES[arguments.potential]
    batch, names = _candidates()
    table = _relaxed(batch, names, "chgnet", arguments.work, arguments.workers)
    how = "all prototypes"
    if arguments.potential != "chgnet":
        few = _lowest(table, FEW)
        how = f"the {FEW} lowest structures of each element under CHGNet"
        folder = arguments.work / arguments.potential
        start = with_volume_per_atom(from_frame(few), torch.from_numpy(few["volume_per_atom"].to_numpy()) * COMPRESSION)
        table = _relaxed(start, list(few["prototype"]), arguments.potential, folder, arguments.workers)
    best = _lowest(table, 1).set_index("element")
    symbols = [Element.from_Z(z).symbol for z in NUMBERS]
    summary = {
        symbol: {
            "energy_per_atom": round(float(best.loc[symbol, "energy_per_atom"]), 5),
            "volume_per_atom": round(float(best.loc[symbol, "volume_per_atom"]), 4),
            "structure": str(best.loc[symbol, "prototype"]),
        }
        for symbol in symbols
        if symbol in best.index
    }
    card = {
        "scale": energy_scale(arguments.potential),
        "unit": "eV/atom",
        "made_by": f"scripts/build_elemental_references.py --potential {arguments.potential}",
        "candidate_structures": len(set(names)),
        "relaxed": how,
        "elements": summary,
    }
    output.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    print(f"{output}: {len(summary)} of {len(NUMBERS)} elements")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
