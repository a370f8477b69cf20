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
from generators.sampling.crystal_task import CrystalTask
from generators.sampling.crystals import CrystalSamplerSettings

N = 200
SETTINGS = ((0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (3.0, 1.0), (3.0, 0.7), (5.0, 0.6), (6.0, 0.5))


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Needs ``--structures`` (known crystals)."""
    if arguments.structures is None:
        raise SystemExit("benchmark: crystal_guidance needs --structures TABLE")
    bench = CrystalBench(arguments.structures, arguments.model)
    stable = bench.wish(e_above_hull=(None, 0.0))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        for guidance, temperature in SETTINGS:
            settings = CrystalSamplerSettings(guidance=guidance, temperature=temperature)
            batch = bench.drawn(CrystalTask(n_atoms=(1, LARGEST)), settings, stable)(N, 0)
            dataset = CrystalDataset(batch, {}, ("",) * len(batch), tuple(str(i) for i in range(len(batch))))
            judge = JudgeWorkers(JudgeSettings(with_bulk_modulus=False, max_evaluations=100))
            folder = Path(name) / f"{guidance}-{temperature}"
            result = evaluate(Samples(dataset, ()), Protocol(), bench.reference, known_hull(), judge, folder)
            shares = {k: result.figures[k].value for k in ("sun", "sun_strict", "metastable", "unique", "novel")}
            rows.append(
                {
                    "guidance": guidance,
                    "temperature": temperature,
                    **shares,
                    "new_prototype": result.figures["novel_prototype"].value,
                    "elements": len({z for zs in batch.atomic_number.tolist() for z in zs} - {0}),
                    "space_groups": len(set(batch.space_group.tolist())),
                }
            )
            print(rows[-1], flush=True)
    keys = ("sun", "sun_strict", "metastable", "unique", "novel", "new_prototype")
    lines = "\n".join(
        f"| {r['guidance']:g} | {r['temperature']:g} | "
        + " | ".join(f"{100 * r[k]:.0f}" for k in keys)
        + f" | {r['elements']} | {r['space_groups']} |"
        for r in rows
    )
    text = f"""## Guidance of whole crystals

`python scripts/benchmark.py crystal_guidance --structures STRUCTURES.parquet`: {N} samples each of at most {LARGEST} atoms, nothing filtered, wish:
at most 0 eV/atom above the hull; seed 0; shares in % and protocol as in "Whole crystals" (95 % intervals are at most ± 7).

| guidance | temperature | S.U.N. | strict | metastable | unique | novel | novel prototype | elements | space groups |
|---|---|---|---|---|---|---|---|---|---|
{lines}"""
    return {"markdown": text, "seed": 0, "samples": N, "settings": rows}
