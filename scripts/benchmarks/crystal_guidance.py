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
SETTINGS = (
    (0.0, 1.0, (1, 10)), (1.0, 1.0, (1, 10)), (2.0, 1.0, (1, 10)), (3.0, 1.0, (1, 10)), (3.0, 0.7, (1, 10)),
    (5.0, 0.6, (1, 10)), (6.0, 0.5, (1, 10)), (3.0, 0.7, (3, 5)), (5.0, 0.6, (3, 5)),
)  # fmt: skip


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Needs ``--structures`` (known crystals)."""
    if arguments.structures is None:
        raise SystemExit("benchmark: crystal_guidance needs --structures TABLE")
    bench = CrystalBench(arguments.structures, arguments.model)
    stable = bench.wish(e_above_hull=(None, 0.0))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        for guidance, temperature, n_elements in SETTINGS:
            settings = CrystalSamplerSettings(guidance=guidance, temperature=temperature)
            batch = bench.drawn(CrystalTask(n_atoms=(1, LARGEST), n_elements=n_elements), settings, stable)(N, 0)
            dataset = CrystalDataset(batch, {}, ("",) * len(batch), tuple(str(i) for i in range(len(batch))))
            judge = JudgeWorkers(JudgeSettings(with_bulk_modulus=False, max_evaluations=100))
            folder = Path(name) / f"{guidance}-{temperature}-{n_elements[0]}"
            result = evaluate(Samples(dataset, ()), Protocol(), bench.reference, known_hull(), judge, folder)
            shares = {k: result.figures[k].value for k in ("sun", "sun_strict", "metastable", "unique", "novel")}
            rows.append(
                {
                    "guidance": guidance,
                    "temperature": temperature,
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
        f"| {r['guidance']:g} | {r['temperature']:g} | {r['asked']} | {r['elements_per_crystal']:.1f} | "
        + " | ".join(f"{100 * r[k]:.0f}" for k in keys)
        + f" | {r['elements']} | {r['space_groups']} |"
        for r in rows
    )
    text = f"""## Guidance of whole crystals

`python scripts/benchmark.py crystal_guidance --structures STRUCTURES.parquet`: {N} samples each of at most {LARGEST} atoms, nothing filtered, wish:
at most 0 eV/atom above the hull; seed 0; shares in % and protocol as in "Whole crystals" (95 % intervals are at most ± 7).
Strong guidance buys stability with variety: fewer elements, fewer space groups, smaller formulas, elemental crystals among them. Asking for
three to five elements takes these away.

| guidance | temperature | elements asked for | elements per crystal | S.U.N. | strict | metastable | unique | novel | novel prototype | elements in all | space groups |
|---|---|---|---|---|---|---|---|---|---|---|---|
{lines}"""
    return {"markdown": text, "seed": 0, "samples": N, "settings": rows}
