"""What guidance and temperature do to whole crystals: stable, unique, novel, and how varied."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.crystal_sets import LARGEST, CrystalBench
from data.dataset import CrystalDataset
from generators.evaluation.evaluate import Protocol, evaluate
from generators.evaluation.samples import Samples
from generators.judging import JudgeWorkers
from generators.oracles.hull_tables import known_hull
from generators.oracles.judge import JudgeSettings
from generators.sampling.crystal_geometry import CrystalSamplerSettings
from generators.sampling.crystal_task import CrystalTask

N = 200
ANY, SEVERAL = (1, 10), (3, 5)
SETTINGS = (
    ((1.0, 1.0), (1.0, 1.0), ANY), ((1.0, 1.0), (3.0, 0.5), ANY), ((1.0, 0.7), (3.0, 0.5), ANY),
    ((1.0, 0.7), (5.0, 0.3), ANY), ((1.0, 0.5), (5.0, 0.3), ANY), ((3.0, 0.5), (5.0, 0.3), ANY),
    ((5.0, 0.6), (5.0, 0.6), ANY), ((1.0, 0.7), (5.0, 0.3), SEVERAL), ((3.0, 0.5), (3.0, 0.5), SEVERAL),
)  # fmt: skip
"""Guidance and temperature of prototypes, of elements, and how many elements are asked for."""


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Needs ``--structures`` (known crystals)."""
    if arguments.structures is None:
        raise SystemExit("benchmark: crystal_guidance needs --structures TABLE")
    bench = CrystalBench(arguments.structures, arguments.model)
    stable = bench.wish(e_above_hull=(None, 0.0))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        for i, (of_prototypes, of_elements, n_elements) in enumerate(SETTINGS):
            settings = CrystalSamplerSettings(
                guidance=of_elements[0], temperature=of_elements[1], prototype_guidance=of_prototypes[0],
                prototype_temperature=of_prototypes[1],
            )  # fmt: skip
            batch = bench.drawn(CrystalTask(n_atoms=(1, LARGEST), n_elements=n_elements), settings, stable)(N, 0)
            dataset = CrystalDataset(batch, {}, ("",) * len(batch), tuple(str(i) for i in range(len(batch))))
            judge = JudgeWorkers(JudgeSettings(with_bulk_modulus=False, max_evaluations=100))
            result = evaluate(
                Samples(dataset, ()), Protocol(), bench.reference, known_hull(), judge, Path(name) / str(i)
            )
            shares = {k: result.figures[k].value for k in ("sun", "sun_strict", "metastable", "unique", "novel")}
            rows.append(
                {
                    "prototypes": of_prototypes,
                    "elements_drawn": of_elements,
                    "asked": f"{n_elements[0]} to {n_elements[1]}" if n_elements[0] > 1 else "any",
                    "elements_per_crystal": sum(len(set(c.atomic_numbers)) for c in batch.to_crystals()) / len(batch),
                    **shares,
                    "new_prototype": result.figures["novel_prototype"].value,
                    "elements": len({z for zs in batch.atomic_number.tolist() for z in zs} - {0}),
                    "space_groups": len(set(batch.space_group.tolist())),
                }
            )
            print(rows[-1], flush=True)
    keys = ("sun", "sun_strict", "metastable", "unique", "novel", "new_prototype")
    lines = "\n".join(
        f"| {r['prototypes'][0]:g}, {r['prototypes'][1]:g} | {r['elements_drawn'][0]:g}, {r['elements_drawn'][1]:g} | {r['asked']} | {r['elements_per_crystal']:.1f} | "
        + " | ".join(f"{100 * r[k]:.0f}" for k in keys)
        + f" | {r['elements']} | {r['space_groups']} |"
        for r in rows
    )
    text = f"""## Guidance of whole crystals

`python scripts/benchmark.py crystal_guidance --structures STRUCTURES.parquet`: {N} samples each of at most {LARGEST} atoms, nothing filtered, wish:
at most 0 eV/atom above the hull; seed 0; shares in % and protocol as in "Whole crystals" (95 % intervals are at most ± 7).
Guidance and temperature, once of prototypes (space groups, positions, which orbits share an element), once of elements. Strong guidance of
prototypes ends at elemental solids and molecules, stable and of no use; asking for three to five elements takes these away.

| prototypes | elements | elements asked for | elements per crystal | S.U.N. | strict | metastable | unique | novel | novel prototype | elements in all | space groups |
|---|---|---|---|---|---|---|---|---|---|---|---|
{lines}"""
    return {"markdown": text, "seed": 0, "samples": N, "settings": rows}
