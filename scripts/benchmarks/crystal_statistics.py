"""10,000 whole crystals as they are drawn, beside known ones that no model was trained on: what costs no relaxation."""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import pandas as pd
import torch
from pymatgen.core import Composition
from torch import Tensor

from benchmarks.crystal_sets import COOL, COOLER, LARGEST, CrystalBench
from data.cells import decode
from data.contact import atomic_radii, shortest_ratio
from data.orbit_batch import OrbitBatch
from generators.crystals.draws import drawn_table
from generators.crystals.generate import known_prototypes
from generators.element_features import N_STATES
from generators.evaluation.evaluate import density
from generators.evaluation.metrics import distances
from generators.evaluation.samples import shortest_distance
from generators.sampling.crystal_geometry import CrystalSamplerSettings
from generators.sampling.crystal_task import CrystalTask
from generators.screening.charge_balance import balanced_or_alloy, charge_balanced
from generators.screening.crystal_funnel import KnownCrystals
from generators.screening.element_shares import radioactive_elements

N, SHARD, SEED, FAR = 10_000, 1000, 200, 0.7
SHOWN = {
    "valid": "valid", "far_apart": "far apart", "balanced": "charge-balanced", "or_alloy": "or alloy",
    "unique": "unique", "novel": "novel", "new_prototype": "novel prototype", "p1": "P1",
    "pnma": "Pnma", "radioactive": "radioactive", "elements_off": "elements off",
}  # fmt: skip


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Needs ``--structures`` (known crystals); sets that are in ``--cache`` are only read."""
    if arguments.structures is None:
        raise SystemExit("benchmark: crystal_statistics needs --structures TABLE")
    bench = CrystalBench(arguments.structures, arguments.model)
    known, prototypes = KnownCrystals(bench.known), known_prototypes()
    small = CrystalTask(n_atoms=(1, LARGEST))
    sets = {
        "raremat, like the known ones": bench.drawn(small, CrystalSamplerSettings(source=1), bench.wish()),
        f"raremat, the same at temperature {COOL}": bench.drawn(small, COOLER, bench.wish()),
        "raremat, wish: stable": bench.drawn(bench.small(), bench.guided, bench.stable()),
        "raremat, the same, charge-balanced": bench.drawn(
            bench.small(charge_balanced=True), bench.guided, bench.stable()
        ),
    }
    folder = bench.kept_in(arguments.cache, "statistics")
    rows = []
    for number, (label, draw) in enumerate(sets.items()):
        file = folder / f"{number}.json"
        if not file.exists():
            batch = OrbitBatch.concatenate([draw(SHARD, SEED + i) for i in range(N // SHARD)])
            figures = _figures(batch, bench, known, prototypes)
            file.write_text(json.dumps({"set": label, **figures}), encoding="utf-8")
        rows.append(json.loads(file.read_text(encoding="utf-8")))
        print(rows[-1], flush=True)
    rows.append({"set": "known crystals, held out", **_figures(bench.unseen.batch, bench, known, prototypes)})
    rows.append({"set": "known crystals, trained on", **_figures(bench.seen.batch, bench, known, prototypes)})
    return {"markdown": _page(rows), "samples": N, "seed": SEED, "sets": rows}


def _figures(
    batch: OrbitBatch, bench: CrystalBench, known: KnownCrystals, prototypes: frozenset[str]
) -> dict[str, float]:
    table = drawn_table(batch, "draw")
    cells = decode(batch)
    crystals = batch.to_crystals()
    new = [
        not known.reason(key, group, numbers)
        for key, group, numbers in zip(
            table["crystal_key"], table["space_group"], table["atomic_numbers"], strict=True
        )
    ]  # fmt: skip
    volume = (cells.volume / cells.n_atoms).numpy().astype(np.float64)
    compositions = [Composition(formula) for formula in table["formula"]]
    quantities = {
        "density": density(compositions, volume),
        "elements_per_formula": np.array([len(c) for c in compositions], dtype=np.float64),
    }
    return {
        "n": len(batch),
        "valid": float((shortest_distance(cells) > 0.5).double().mean()),
        "far_apart": float((shortest_ratio(cells, atomic_radii()) > FAR).double().mean()),
        "balanced": float(np.mean([charge_balanced(c.atomic_numbers, c.multiplicities) for c in crystals])),
        "or_alloy": float(np.mean([balanced_or_alloy(c.atomic_numbers, c.multiplicities) for c in crystals])),
        "unique": table["crystal_key"].nunique() / len(table),
        "novel": float(np.mean(new)),
        "new_prototype": float((~table["protostructure"].isin(prototypes)).mean()),
        "p1": float((table["space_group"] == 1).mean()),
        "pnma": float((table["space_group"] == 62).mean()),
        "radioactive": float(np.mean([bool(set(c.atomic_numbers) & radioactive_elements()) for c in crystals])),
        "elements_off": float((_element_shares(batch) - _element_shares(bench.unseen.batch)).abs().sum() / 2),
        **{f"d_{name}": value for name, value in distances(quantities, bench.held_out.quantities).items()},
    }


def _element_shares(batch: OrbitBatch) -> Tensor:
    """[119] of all occurrences of an element in a crystal."""
    occurs = torch.zeros(len(batch), N_STATES).scatter(1, batch.atomic_number * batch.mask, 1.0)
    occurs[:, 0] = 0
    total = occurs.sum(0)
    return total / total.sum()


def _page(rows: list[dict[str, Any]]) -> str:
    lines = []
    for row in pd.DataFrame(rows).to_dict("records"):
        shares = " | ".join(f"{100 * row[name]:.1f}" for name in SHOWN)
        lines.append(
            f"| {row['set']} | {row['n']:,} | {shares} | {row['d_density']:.2f} / {row['d_elements_per_formula']:.3f} |"
        )
    return f"""## {N:,} whole crystals as drawn

`python scripts/benchmark.py crystal_statistics --structures STRUCTURES.parquet`: crystals of at most {LARGEST} atoms, nothing filtered, nothing relaxed; shares in % (95 % intervals
at most ± 1), seed {SEED}. Valid: all distances above 0.5 Å; far apart: above {FAR:.0%} of the sum of the atomic radii; charge-balanced: SMACT's rule with its
oxidation states, or an alloy of metals alone; Pnma: the commonest space group; radioactive: with an element that has no stable isotope (but Bi, Th, U); elements off: total
variation distance of the elements' shares from those of the held-out known crystals; unique and novel by crystal key (space group, sites, elements), so that {N:,} samples meet each other
more often than 400 do; novel prototype: that of no known compound; d: Wasserstein distances to the held-out known crystals
(validation and test part; g/cm³, elements): those of the known crystals that the model was trained on are what a perfect model would have.

| samples | number | {" | ".join(SHOWN.values())} | d_rho / d_elem |
|---|---|{"---|" * (len(SHOWN) + 1)}
{chr(10).join(lines)}"""
