"""Build ``data/tables/decorations.parquet``: random decorations of prototypes, relaxed and labelled by CHGNet.

Nothing is chosen for being sensible chemistry: prototypes and elements are drawn at random, so that rare
properties are rare. A prototype contributes at most a tenth of its distinct decorations. Run:
``python scripts/build_decorations.py`` (resumes where it stopped). Labels are CHGNet's, not DFT's.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pymatgen.core import Element
from scipy.optimize import nnls
from torch import Tensor
from tqdm import tqdm

from data.contact import touching_volume
from data.decoration import canonical_elements, decoration_codes, to_orbit_batch, with_volume_per_atom
from data.orbit_batch import OrbitBatch
from data.prototype_table import PrototypeTable
from data.prototypes import prototype_library
from generators.judging import JudgeWorkers, judged_batch, judged_formation_energies, write_parquet
from generators.oracles.chgnet_potential import SCALE
from generators.oracles.hull import fractions_of_batch
from generators.oracles.hull_tables import with_decorations
from generators.screening.baselines import random_decorations

PROTOTYPES = (
    "rocksalt", "cscl", "zincblende", "wurtzite", "nias", "fluorite", "rutile", "cdi2", "alb2", "cu3au",
    "perovskite", "half_heusler", "full_heusler", "caswellsilverite", "chalcopyrite",
    "thcr2si2", "pbfcl", "k2ptcl6", "max_211", "spinel", "quaternary_heusler", "zrcusias", "elpasolite",
)  # fmt: skip
ELEMENTS = (
    "Li", "Be", "B", "C", "N", "O", "F", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "K", "Ca", "Sc", "Ti", "V", "Cr",
    "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Se", "Br", "Rb", "Sr", "Y", "Zr", "Nb", "Mo", "Ru", "Rh",
    "Pd", "Ag", "Cd", "In", "Sn", "Sb", "Te", "I", "Cs", "Ba", "La", "Hf", "Ta", "W", "Re", "Ir", "Pt", "Au", "Tl",
    "Pb", "Bi",
)  # fmt: skip
SHARE_OF_SPACE = 0.1
PILOT = 2048
"""Decorations that start from touching spheres and teach the others their starting volume."""
HEAVY = {"spinel": 0.4, "elpasolite": 1.5, "quaternary_heusler": 1.2}


def draw(table: PrototypeTable, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """``n`` distinct decorations: rows of the table and canonical elements."""
    generator = torch.Generator().manual_seed(seed)
    numbers = [Element(x).Z for x in ELEMENTS]
    space = []
    for prototype in table.prototypes:
        orders = len(prototype.equivalent_orders)
        count = np.prod([len(numbers) - i for i in range(prototype.n_species)]) / orders
        space.append(float(count))
    wanted = np.array([HEAVY.get(p.name, 1.0) for p in table.prototypes])
    share = np.ones(len(space))
    for _ in range(50):  # water filling: what small spaces cannot give goes to the others
        quota = np.minimum(share * wanted / (share * wanted).sum() * n, SHARE_OF_SPACE * np.array(space))
        if quota.sum() >= n - 1:
            break
        share = np.where(quota < SHARE_OF_SPACE * np.array(space), share * n / quota.sum(), share)
    rows, elements = [], []
    for i, amount in enumerate(np.floor(quota).astype(int)):
        row, drawn = random_decorations(table, torch.tensor([i]), numbers, 3 * int(amount) + 50, generator)
        _, first = np.unique(decoration_codes(table, row, drawn), return_index=True)
        keep = torch.from_numpy(np.sort(first)[:amount])
        rows.append(row[keep])
        elements.append(canonical_elements(table, row[keep], drawn[keep]))
    row, drawn = torch.cat(rows), torch.cat(elements)
    order = torch.randperm(len(row), generator=generator)
    return row[order], drawn[order]


def _mean_over_atoms(batch: OrbitBatch, per_element: Tensor) -> Tensor:
    """[B] mean of ``per_element`` [119] over the atoms of each crystal."""
    weight = batch.multiplicity.double()
    return (per_element[batch.atomic_number] * weight).sum(-1) / weight.sum(-1)


def _atomic_volumes(batch: OrbitBatch, frame: pd.DataFrame) -> Tensor:
    """[119] Å^3 per element whose means fit the relaxed volumes best (non-negative least squares of the
    relative error): a better start for the other relaxations than touching spheres."""
    eye = torch.eye(119, dtype=torch.float64)
    share = torch.stack([_mean_over_atoms(batch, eye[z]) for z in range(119)], 1).numpy()
    valid = frame["valid"].to_numpy()
    target = frame["volume_per_atom"].to_numpy()[valid]
    fitted, _ = nnls(share[valid] / target[:, None], np.ones(len(target)))
    return torch.from_numpy(np.where(fitted > 0, fitted, target.mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tables = Path(__file__).parents[1] / "data" / "tables"
    parser.add_argument("--output", type=Path, default=tables / "decorations.parquet")
    parser.add_argument("--work", type=Path, default=Path("outputs/build/decorations"))
    parser.add_argument("--number", type=int, default=32_000, help="decorations to draw")
    parser.add_argument("--first", type=int, default=20_992, help="judge only so many of them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()

    library = prototype_library()
    table = PrototypeTable.build([library.get(name) for name in PROTOTYPES])
    row, elements = draw(table, arguments.number, arguments.seed)
    row, elements = row[: arguments.first], elements[: arguments.first]
    batch = to_orbit_batch(table, row, elements)
    pilot, rest = batch.select(torch.arange(PILOT)), batch.select(torch.arange(PILOT, len(batch)))
    with (
        tqdm(total=len(batch), unit="crystal", smoothing=0.02, mininterval=5) as bar,
        JudgeWorkers(workers=arguments.workers) as workers,
    ):

        def judge(part: OrbitBatch, name: str) -> pd.DataFrame:
            return workers.judge(part, arguments.work, name, progress=lambda n, _: bar.update(n))

        frame = judge(with_volume_per_atom(pilot, 0.7 * touching_volume(pilot)), "pilot")
        volumes = _atomic_volumes(pilot, frame)
        frame = pd.concat(
            [frame, judge(with_volume_per_atom(rest, _mean_over_atoms(rest, volumes)), "decorations")],
            ignore_index=True,
        )
    frame.insert(0, "prototype", [table.names[i] for i in row.tolist()])
    frame["formation_energy_per_atom"] = judged_formation_energies(frame)
    reasons = Counter(frame["reason"][~frame["valid"]])
    frame["bulk_modulus"] = frame["bulk_modulus"].where(frame["bulk_modulus"] > 0)  # at a maximum, not a minimum
    good = frame[frame["valid"] & frame["formation_energy_per_atom"].notna()]
    energies, kept = good["formation_energy_per_atom"].to_numpy(dtype=np.float64), judged_batch(good)
    above = with_decorations(kept, energies).e_above_hull(fractions_of_batch(kept), energies, SCALE)
    good = good.assign(e_above_hull=above)
    write_parquet(_compact(good), arguments.output, small=True)
    _write_card(arguments.output.with_suffix(".md"), good, len(frame), dict(reasons), arguments.seed)
    print(f"{arguments.output}: {len(good)} of {len(frame)} crystals, left out: {dict(reasons)}")


def _compact(frame: pd.DataFrame) -> pd.DataFrame:
    """Only what cannot be made again from the prototype, in small types."""
    return pd.DataFrame(
        {
            "prototype": frame["prototype"].astype("category"),
            "atomic_numbers": [np.asarray(z, dtype=np.uint8) for z in frame["atomic_numbers"]],
            "coordinates": [np.asarray(u, dtype=np.float32).round(5) for u in frame["coordinates"]],
            "strain": [np.asarray(s, dtype=np.float32).round(5) for s in frame["strain"]],
            **{
                name: frame[name].astype(np.float32).round(5)
                for name in (
                    "formation_energy_per_atom",
                    "volume_per_atom",
                    "magnetization_density",
                    "bulk_modulus",
                    "e_above_hull",
                )
            },
            "judge_evaluations": frame["judge_evaluations"].astype(np.uint8),
        }
    ).reset_index(drop=True)


def _write_card(path: Path, frame: pd.DataFrame, drawn: int, reasons: dict[str, int], seed: int) -> None:
    energy = frame["formation_energy_per_atom"]
    quantiles = {q: round(float(energy.quantile(q)), 3) for q in (0.001, 0.002, 0.01, 0.1, 0.5, 0.9)}
    lines = [
        "# Card of decorations.parquet",
        "",
        f"{len(frame):,} random decorations of {len(PROTOTYPES)} prototypes with {len(ELEMENTS)} elements, made by",
        f"`scripts/build_decorations.py` (seed {seed}) of this project. **The labels are CHGNet's (0.3.0), not",
        "DFT's**: relaxed within symmetry (forces below 0.1 eV/Å, stress below 0.5 GPa), formation energies",
        "against CHGNet's own elements (`elemental_references.json`), magnetization density from CHGNet's absolute",
        "moments (ferromagnetic order), bulk modulus for cubic crystals without free coordinates, energy above the",
        "hull of known and hypothetical compounds on CHGNet's scale and of these decorations themselves.",
        "Elements and prototypes are drawn at random, not for sensible chemistry.",
        "",
        f"Drawn: {drawn:,}. Left out: " + ", ".join(f"{k} {v:,}" for k, v in sorted(reasons.items())) + ".",
        "",
        "Formation energy per atom at quantiles: " + json.dumps(quantiles) + " eV/atom.",
        "",
        "| prototype | rows | lowest formation energy per atom |",
        "|---|---|---|",
    ]
    for name, rows in frame.groupby("prototype", observed=True):
        lines.append(f"| {name} | {len(rows):,} | {rows['formation_energy_per_atom'].min():.3f} |")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
