"""What guidance and temperature do to whole crystals: stable, unique, novel, and how varied."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.crystal_sets import LARGEST, CrystalBench
from data.dataset import CrystalDataset
from generators.crystals.task_schema import SOURCES
from generators.evaluation.evaluate import Protocol, evaluate
from generators.evaluation.samples import Samples
from generators.judging import JudgeWorkers
from generators.oracles.hull_tables import known_hull
from generators.oracles.judge import JudgeSettings
from generators.sampling.crystal_geometry import CrystalSamplerSettings
from generators.sampling.crystal_task import CrystalTask

N, SEED = 200, 100
BELOW = (None, 0.0)
SETTINGS: tuple[tuple[tuple[float, float], tuple[float, float], tuple[float | None, float], str], ...] = (
    ((1.0, 1.0), (3.0, 0.7), BELOW, "any"), ((3.0, 0.85), (4.0, 0.7), BELOW, "any"), ((4.0, 0.9), (4.0, 0.9), BELOW, "any"),
    ((4.0, 0.9), (4.0, 0.9), (-0.05, 0.05), "any"), ((6.0, 1.5), (6.0, 1.5), BELOW, "chosen"),
    ((12.0, 1.2), (12.0, 1.2), BELOW, "chosen"), ((12.0, 1.2), (12.0, 1.2), (-0.05, 0.0), "chosen"),
    ((12.0, 1.2), (12.0, 1.2), (-0.05, 0.03), "any"), ((6.0, 1.2), (12.0, 1.2), (-0.05, 0.03), "chosen"),
    ((12.0, 1.2), (12.0, 1.2), (-0.05, 0.03), "chosen"),
)  # fmt: skip
"""Guidance and temperature of prototypes, the same of elements, energy above the hull that is asked for, and which training
data to resemble."""
SHOWN = {
    "sun": "S.U.N.", "sun_strict": "strict", "metastable": "metastable", "far_below_hull": "far below",
    "unique": "unique", "novel": "novel", "novel_prototype": "novel prototype", "valid_composition": "balanced or alloy",
}  # fmt: skip


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Needs ``--structures`` (known crystals)."""
    if arguments.structures is None:
        raise SystemExit("benchmark: crystal_guidance needs --structures TABLE")
    bench = CrystalBench(arguments.structures, arguments.model)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        for i, (of_prototypes, of_elements, asked, like) in enumerate(SETTINGS):
            settings = CrystalSamplerSettings(
                guidance=of_elements[0], temperature=of_elements[1],
                prototype_guidance=of_prototypes[0], prototype_temperature=of_prototypes[1],
                source=SOURCES.index(like),
            )  # fmt: skip
            wish = bench.wish(e_above_hull=asked)
            batch = bench.drawn(CrystalTask(n_atoms=(1, LARGEST)), settings, wish)(N, SEED)
            dataset = CrystalDataset(batch, {}, ("",) * len(batch), tuple(str(i) for i in range(len(batch))))
            judge = JudgeWorkers(JudgeSettings(with_bulk_modulus=False, max_evaluations=100))
            result = evaluate(
                Samples(dataset, ()), Protocol(relaxed_symprec=0.1), bench.reference, known_hull(), judge,
                Path(name) / str(i),
            )  # fmt: skip
            rows.append(
                {
                    "settings": (of_prototypes, of_elements, asked, like),
                    "elements": sum(len(set(c.atomic_numbers)) for c in batch.to_crystals()) / len(batch),
                    **{key: result.figures[key].value for key in SHOWN},
                }
            )
            print(rows[-1], flush=True)
    return {"markdown": _page(rows), "seed": SEED, "samples": N, "settings": rows}


def _page(rows: list[dict[str, Any]]) -> str:
    def interval(low: float | None, high: float) -> str:
        return f"at most {high:g}" if low is None else f"{low:g} to {high:g}"

    lines = []
    for row in rows:
        *pairs, asked, like = row["settings"]
        of_prototypes, of_elements = (f"{strength:g}, {temperature:g}" for strength, temperature in pairs)
        shares = " | ".join(f"{100 * row[key]:.0f}" for key in SHOWN)
        lines.append(
            f"| {of_prototypes} | {of_elements} | {interval(*asked)} | {like} | {row['elements']:.1f} | {shares} |"
        )
    return f"""## Guidance of whole crystals

`python scripts/benchmark.py crystal_guidance --structures STRUCTURES.parquet`: {N} samples each of at most {LARGEST} atoms, nothing filtered; seed {SEED}; shares
in % and protocol as in "Whole crystals" (95 % intervals are at most ± 7). Guidance and temperature of prototypes (space groups, positions, which
orbits share an element), the same of elements, the energy above the hull (eV/atom) that is asked for, and which training data the crystals
shall be like. Where the interval is open
below, a few end far below the hull. The number of elements is drawn first and never guided: guidance of
prototypes without it ends at elemental solids and molecules, stable and of no use.

| prototypes | elements | asked for | like | elements per crystal | {" | ".join(SHOWN.values())} |
|---|---|---|---|---|{"---|" * len(SHOWN)}
{chr(10).join(lines)}"""
