"""Make ``data/tables/hull_compounds.parquet``: hypothetical compounds that compete with the known ones.

Known compounds on library prototypes get each of their elements replaced by its most similar ones, are relaxed by
CHGNet, and what lies on the hull of everything is kept: formulas and energies only. Without them the hull of the
embedded known compounds, a part of what is known, has holes. A killed run goes on with the same command.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.optimize import nnls
from torch import Tensor
from tqdm import tqdm

from data.decoration import canonical_elements, decoration_codes, to_orbit_batch, with_volume_per_atom
from data.prototype_table import PrototypeTable
from data.prototypes import prototype_library
from generators.judging import JudgeWorkers, judged_formation_energies, write_parquet
from generators.oracles.chgnet_potential import SCALE
from generators.oracles.hull import Hull, fractions_of, fractions_of_batch
from generators.oracles.hull_tables import ENERGY, LOWEST, reference_compounds
from generators.oracles.judge import JudgeSettings
from generators.screening.ion_exchange import known_decorations, substitution_weights

LARGEST = 20
ON_HULL = 1e-6


def children(table: PrototypeTable, row: Tensor, elements: Tensor, similar: int) -> tuple[Tensor, Tensor]:
    """Decorations with one element of a parent replaced by each of its ``similar`` most similar ones, without
    repeats and without the parents."""
    weight, substitute = substitution_weights().topk(similar, dim=1)
    rows, drawn = [], []
    for column in range(elements.shape[1]):
        leads = table.is_leader[row][:, column]
        before = elements[leads]
        old = before[:, column]
        for k in range(similar):
            new = substitute[old, k]
            usable = (weight[old, k] > 0) & ~(before == new[:, None]).any(1)
            after = torch.where(before == old[:, None], new[:, None], before)
            rows.append(row[leads][usable])
            drawn.append(after[usable])
    row_, elements_ = torch.cat(rows), torch.cat(drawn)
    elements_ = canonical_elements(table, row_, elements_)
    codes = decoration_codes(table, row_, elements_)
    _, first = np.unique(codes, return_index=True)
    new_ones = first[~np.isin(codes[first], decoration_codes(table, row, elements))]
    kept = torch.from_numpy(np.sort(new_ones))
    return row_[kept], elements_[kept]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tables = Path(__file__).parents[1] / "data" / "tables"
    parser.add_argument("--output", type=Path, default=tables / "hull_compounds.parquet")
    parser.add_argument("--work", type=Path, default=Path("outputs/build/hull_compounds"))
    parser.add_argument("--similar", type=int, default=3, help="substitutes per element")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()

    prototypes = [p for p in prototype_library() if 2 <= p.n_species <= 4 and p.n_atoms <= LARGEST]
    table = PrototypeTable.build(prototypes)
    known = reference_compounds()
    known = known[known[ENERGY].notna() & (known[ENERGY] > LOWEST)].reset_index(drop=True)
    row, elements, _ = known_decorations(table, torch.arange(len(table)), known)
    row, elements = children(table, row, elements, arguments.similar)
    order = torch.randperm(len(row), generator=torch.Generator().manual_seed(0))
    row, elements = row[order], elements[order]

    fractions = fractions_of(known["formula"])
    volumes, _ = nnls(fractions, known["volume_per_atom"].to_numpy(dtype=np.float64))
    batch = to_orbit_batch(table, row, elements)
    share = fractions_of_batch(batch)
    batch = with_volume_per_atom(batch, torch.from_numpy(share @ np.where(volumes > 0, volumes, volumes.mean())))
    settings = JudgeSettings(max_evaluations=100, with_bulk_modulus=False)
    with (
        tqdm(total=len(batch), unit="crystal", smoothing=0.02, mininterval=5) as bar,
        JudgeWorkers(settings, arguments.workers) as workers,
    ):
        frame = workers.judge(batch, arguments.work, "hull", 128, progress=lambda n, _: bar.update(n))
    values = judged_formation_energies(frame)
    usable = np.isfinite(values) & (values > LOWEST)
    hull = Hull(
        np.concatenate([fractions, share[usable]]),
        np.concatenate([known[ENERGY].to_numpy(float), values[usable]]),
        SCALE,
    )
    known_hull = Hull(fractions, known[ENERGY].to_numpy(float), SCALE)
    below = values < known_hull.hull_energy(share) - ON_HULL
    kept = usable & below & (values <= hull.hull_energy(share) + ON_HULL)
    crystals = batch.to_crystals()
    rows = np.flatnonzero(kept)
    result = pd.DataFrame(
        {
            "formula": [crystals[i].reduced_formula for i in rows],
            "prototype": [table.names[i] for i in row[rows].tolist()],
            ENERGY: values[rows].astype("float32"),
        }
    ).sort_values("formula", ignore_index=True)
    write_parquet(result, arguments.output, small=True)
    reasons = dict(Counter(frame["reason"][~frame["valid"]]))
    arguments.output.with_suffix(".md").write_text(
        f"""# Card of {arguments.output.name}

- Made by: `scripts/build_hull_compounds.py --similar {arguments.similar}`: {len(frame):,} hypothetical decorations of
  {len(table)} library prototypes, one element of a known compound replaced by a similar one, relaxed within
  symmetry by CHGNet; failed: {reasons}.
- Kept: {len(result):,} that lie below the hull of the known compounds and on the hull of all. Nobody says that
  they exist; they only make the hull stricter. They do not count as known.
- Labels: CHGNet 0.3.0, not DFT. Columns: formula, prototype, {ENERGY} (eV/atom).
""",
        encoding="utf-8",
    )
    print(f"{arguments.output}: {len(result)} of {len(frame)} hypothetical compounds on the hull, failed: {reasons}")


if __name__ == "__main__":
    main()
