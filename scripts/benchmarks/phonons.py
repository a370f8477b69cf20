"""How many crystals have no imaginary phonons: known stable ones, and what raremat proposes."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.common import NAME, Bench
from data.sources import Source, read_crystals
from generators.generate import Generation
from generators.generate_settings import GenerateSettings
from generators.judging import PhononWorkers, judged_batch
from generators.report.figures import wilson
from generators.wish import Interval, Wish

N, LARGEST = 48, 12
METASTABLE = 0.1
SETS = ("known, on MP's hull", "raremat, lowest 1 %", "random decoration, metastable")


def _known(structures: Path) -> Any:
    dataset, _ = read_crystals(structures, Source())
    small = (dataset.batch.n_atoms <= LARGEST) & (dataset.properties["e_above_hull"] <= 1e-3)
    rows = small.nonzero().ravel()
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:N]]
    return dataset.batch.select(rows)


def _proposed(bench: Bench, folder: Path) -> dict[str, Any]:
    """Candidates of a wish that lie at most `METASTABLE` above the hull, and random decorations that do."""
    wish = Wish({NAME: Interval(None, bench.quantile(0.01))})
    settings = GenerateSettings(judge_calls=320, pool=4000)
    answer = Generation(bench.module, bench.surrogate, bench.training, wish, settings, folder).run()
    good = answer.candidates[answer.candidates["e_above_hull"] <= METASTABLE]
    picked = good.sample(min(N, len(good)), random_state=0)
    from generators.oracles.chgnet_potential import SCALE
    from generators.oracles.hull import fractions_of_batch
    from generators.oracles.hull_tables import chgnet_hull

    above = chgnet_hull().e_above_hull(
        fractions_of_batch(bench.training.batch), bench.training.properties[NAME].double().numpy(), SCALE
    )
    rows = torch.from_numpy((above <= METASTABLE).nonzero()[0])
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:N]]
    return {
        SETS[1]: (judged_batch(picked), f"{len(good)} of {len(answer.candidates)} candidates"),
        SETS[2]: (bench.training.batch.select(rows), "of the embedded decorations"),
    }


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Needs ``--structures`` with ``e_above_hull``."""
    if arguments.structures is None:
        raise SystemExit("benchmark: phonons needs --structures TABLE")
    bench = Bench()
    figures: dict[str, Any] = {}
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sets = {SETS[0]: (_known(arguments.structures), f"at most {LARGEST} atoms"), **_proposed(bench, folder)}
        for label, (batch, note) in sets.items():
            start = time.perf_counter()
            with PhononWorkers() as workers:
                table = workers.judge(batch, folder / "phonons", label.replace(" ", "-"), shard_size=4)
            seconds = time.perf_counter() - start
            figures[label] = _figures(table, seconds)
            one = figures[label]
            low, high = wilson(one["stable"], one["judged"])
            rows.append(
                f"| {label} ({note}) | {one['judged']} | {one['stable'] / max(one['judged'], 1):.0%} "
                f"({low:.0%}–{high:.0%}) | {one['median_thz']:.2f} | {one['not_judged']} | {seconds / len(batch):.1f} |"
            )
    lines = "\n".join(rows)
    text = f"""## Dynamical stability

`python scripts/benchmark.py phonons --structures STRUCTURES.parquet`: {N} crystals each, relaxed to 0.01 eV/Å and 0.1 GPa, finite
displacements in supercells of at least 9 Å, forces of CHGNet; stable: no mode below -0.1 THz. CHGNet's forces are too soft, so that
these are CHGNet's answers, not DFT's.

| crystals | judged | without imaginary modes (95 %) | median lowest mode, THz | not judged | s per crystal |
|---|---|---|---|---|---|
{lines}"""
    return {"markdown": text, "seed": 0, "sets": figures}


def _figures(table: pd.DataFrame, seconds: float) -> dict[str, Any]:
    good = table[table["valid"]]
    return {
        "judged": len(good),
        "stable": int(good["dynamically_stable"].sum()),
        "median_thz": float(good["lowest_frequency"].median()),
        "not_judged": int((~table["valid"]).sum()),
        "reasons": table["reason"][~table["valid"]].value_counts().to_dict(),
        "seconds": round(seconds, 1),
    }
