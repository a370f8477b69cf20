"""Whole crystals beside ion exchange and random decoration: stable, unique, novel; how far from relaxed; what is new."""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pymatgen.core import Composition

from benchmarks.crystal_sets import DRAWN, LARGEST, CrystalBench, known_pairs, published_hull
from data.cells import decode
from data.contact import atomic_radii, shortest_ratio
from data.exchanges import STABLE as SEEDS_ABOVE
from data.exchanges import load_predicted
from data.orbit_batch import OrbitBatch
from data.protostructure import crystal_key
from generators.crystals.usual import FOR_STABILITY, NEAR_HULL
from generators.evaluation.evaluate import ENERGY, STABLE, Evaluation, Reference, density
from generators.evaluation.metrics import distances
from generators.oracles.chgnet_potential import SCALE
from generators.oracles.hull import fractions_of
from generators.oracles.hull_tables import FAR_BELOW, chgnet_hull, known_hull
from generators.oracles.overcounted import DOUBTFUL, overcounted
from generators.screening.crystal_funnel import KnownCrystals

N = 400
FIRST_SEED = 10
FAR = 0.7
METASTABLE = 0.1


def new_keys(batch: OrbitBatch, known: KnownCrystals) -> np.ndarray:
    """[B] bool: the crystal key is not known, and is not that of an earlier one: what `raremat-generate` may judge."""
    seen: set[str] = set()
    new = []
    for crystal in batch.to_crystals():
        key = crystal_key(crystal)
        new.append(key not in seen and not known.reason(key, crystal.space_group, crystal.atomic_numbers))
        seen.add(key)
    return np.array(new)


def _figures(
    batch: OrbitBatch, result: Evaluation, pairs: set[tuple[str, int]], held_out: Reference, first: np.ndarray
) -> dict[str, float]:
    """Shares of all samples; Å; distances to the held-out known crystals. ``first``: of `new_keys`."""
    table = result.table
    fractions, energy = fractions_of(table["formula"]), table[ENERGY].to_numpy(np.float64)
    known, embedded = (hull.e_above_hull(fractions, energy, SCALE) for hull in (known_hull(), chgnet_hull()))
    good = table["unique"] & table["novel"]
    sun = (good & (table["e_above_hull"] <= METASTABLE)).to_numpy(bool)
    strict = (good & (table["e_above_hull"] <= STABLE)).to_numpy(bool)
    sure = (overcounted(batch) <= DOUBTFUL).numpy()
    new = np.array([pair not in pairs for pair in zip(table["formula"], table["space_group_relaxed"], strict=True)])
    fresh = (table["novel_prototype"] & good).to_numpy(bool)
    reported = {name: figure.value for name, figure in result.figures.items()}
    ratio = shortest_ratio(decode(batch), atomic_radii()).numpy()
    compositions = [Composition(formula) for formula in table["formula"]]
    quantities = {
        "density": density(compositions, table["volume_per_atom"].to_numpy(np.float64)),
        "elements_per_formula": np.array([len(c) for c in compositions], dtype=np.float64),
        ENERGY: table[ENERGY].to_numpy(np.float64),
    }
    return {
        "sun": float(sun.mean()),
        "sun_strict": float(strict.mean()),
        "sun_sure": float((sun & sure).mean()),
        "sun_strict_sure": float((strict & sure).mean()),
        "sun_of_new_keys": float(sun[first].mean()) if first.any() else float("nan"),
        "sun_known_hull": float((good & (known <= METASTABLE)).mean()),
        "sun_embedded_hull": float((good & (embedded <= METASTABLE)).mean()),
        "sun_far_apart": float(sun[ratio > FAR].mean()),
        "new_to_mp": float((sun & new).mean()),
        "stable_new_to_mp": float((table["unique"] & (table["e_above_hull"] <= METASTABLE) & new).mean()),
        "metastable": reported["metastable"],
        "far_below": reported["far_below_hull"],
        "unique": reported["unique"],
        "novel": reported["novel"],
        "new_prototype": float(fresh.mean()),
        "sun_of_new_prototypes": float(sun[fresh].mean()) if fresh.any() else float("nan"),
        "valid": reported["valid_structure"],
        "far_apart": float((ratio > FAR).mean()),
        "charge_balanced": reported["charge_balanced"],
        "valid_composition": reported["valid_composition"],
        "rmsd_median": float(table["rmsd"].fillna(np.inf).median()),
        "match": reported["matches_relaxed"],
        "relaxed": reported["relaxed"],
        "space_group_kept": float((table["space_group"] == table["space_group_relaxed"]).mean()),
        "p1": float((table["space_group"] == 1).mean()),
        "judge_evaluations": float(table["judge_evaluations"].mean()),
        **{f"d_{name}": value for name, value in distances(quantities, held_out.quantities).items()},
    }


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Needs ``--structures`` (known crystals) and ``--data`` (tables of what else is known)."""
    if arguments.structures is None or arguments.data is None:
        raise SystemExit("benchmark: crystals needs --structures TABLE --data FOLDER")
    bench = CrystalBench(arguments.structures, arguments.model)
    pairs = known_pairs(bench.known, arguments.data)
    sets: dict[str, tuple[Callable[[int, int], OrbitBatch], int]] = bench.sets()
    hull, known = published_hull(arguments.data), bench.as_known
    rows: list[dict[str, Any]] = []
    kept = bench.kept_in(arguments.cache, "crystals", hull.energy.tobytes())
    with tempfile.TemporaryDirectory() as name:
        for label, (draw, seeds) in sets.items():
            for seed in range(min(seeds, arguments.seeds)):
                file = kept / f"{re.sub(r'[^a-z0-9]+', '-', label.lower())}-{seed}.json"
                if file.exists():
                    rows.append(json.loads(file.read_text(encoding="utf-8")))
                    continue
                start = time.process_time()
                batch = draw(N, FIRST_SEED + seed)
                seconds = time.process_time() - start
                result = bench.judged(batch, hull, Path(name) / f"{label}-{seed}")
                one = _figures(batch, result, pairs, bench.held_out, new_keys(batch, known))
                rows.append({"set": label, "seed": seed, "cpu_seconds_per_1000": 1000 * seconds / N, **one})
                file.write_text(json.dumps(rows[-1]), encoding="utf-8")
                print(rows[-1], flush=True)
    frame = pd.DataFrame(rows)
    return {"markdown": _page(frame, bench), "seeds": arguments.seeds, "samples": N, "sets": rows}


DISTANCES = ("d_density", f"d_{ENERGY}", "d_elements_per_formula")
SHOWN = {
    "sun": "S.U.N.",
    "sun_strict": "strict",
    "sun_sure": "not doubtful",
    "sun_strict_sure": "strict, not doubtful",
    "sun_of_new_keys": "of new keys",
    "sun_known_hull": "known hull",
    "sun_embedded_hull": "embedded hull",
    "sun_far_apart": "of those far apart",
    "new_to_mp": "new to MP",
    "stable_new_to_mp": "stable, unique, new to MP",
    "metastable": "metastable",
    "far_below": "far below",
    "unique": "unique",
    "novel": "novel",
    "new_prototype": "novel prototype",
    "sun_of_new_prototypes": "their S.U.N.",
    "valid": "valid",
    "far_apart": "far apart",
    "charge_balanced": "charge-balanced",
    "valid_composition": "or alloy",
    "match": "match relaxed",
    "space_group_kept": "group kept",
    "p1": "P1",
}


def _page(frame: pd.DataFrame, bench: CrystalBench) -> str:
    def cell(values: pd.Series) -> str:
        if values.isna().all():
            return "–"
        spread = f" ± {100 * values.std():.1f}" if len(values) > 1 else ""
        return f"{100 * values.mean():.1f}{spread}"

    lines = []
    for label, group in frame.groupby("set", sort=False):
        lines.append(
            f"| {label} | {' | '.join(cell(group[key]) for key in SHOWN)} | {group['rmsd_median'].mean():.3f} | "
            f"{group['judge_evaluations'].mean():.0f} | {group['cpu_seconds_per_1000'].mean():.0f} | "
            + " / ".join(f"{group[key].mean():.2f}" for key in DISTANCES)
            + " |"
        )
    head = " | ".join(SHOWN.values())
    least = distances(bench.trained_on.quantities, bench.held_out.quantities)
    floor = " / ".join(f"{least[name.removeprefix('d_')]:.2f}" for name in DISTANCES)
    return f"""## Whole crystals

`python scripts/benchmark.py crystals --structures STRUCTURES.parquet --data FOLDER`: {N:,} samples each of at most 20 atoms; relaxed within
symmetry by CHGNet 0.3.0 (forces below 0.1 eV/Å); shares of all samples in %, ± standard deviation over the seeds. Nothing is filtered but in the
rows that say "chosen": there {DRAWN} times (or 8 times) as many are drawn, and of those whose crystal key is new the embedded surrogate takes the {N:,} likeliest to
be stable, as `raremat-generate` does before it asks the judge.

Not doubtful: S.U.N. without crystals for which CHGNet, taught with the Materials Project's corrections, may count more than {DOUBTFUL} eV/atom for anions that the other
elements cannot reduce (`generators.oracles.overcounted`; of such a second potential confirms 27 to 62 %, of others 88 %).
Of new keys: S.U.N. among the samples whose crystal key is neither known nor repeated, which is all that `raremat-generate` ever hands to the judge.
Metastable: at most {METASTABLE} eV/atom above the hull; strict: at most {STABLE * 1000:.0f} meV/atom; far below: more than {-FAR_BELOW:g} eV/atom below it. The hull is the
lower envelope of CHGNet's energies of the known compounds and the published ones of the Materials Project's hull; known hull: what is embedded of it (known
compounds, and known formulas with predicted structures); embedded hull: hypothetical compounds on it too. Unique and novel by pymatgen's
StructureMatcher on the relaxed structures, novel against everything that the model was trained on ({len(bench.reference.structures):,}
crystals, of which {len(bench.known) + len(load_predicted()):,} are known compounds, the others hypothetical ones, many drawn by earlier models). New to MP: S.U.N., and formula with
space group in none of the tables of the Materials Project at hand; stable, unique, new to MP: whether or not it is among the hypothetical ones. Far apart: all
distances above {FAR:.0%} of the sum of the atomic radii; S.U.N. of these: of the samples that are. "Stable": the model is
asked for an energy of {NEAR_HULL.low:g} to {NEAR_HULL.high:g} eV/atom above the hull, guidance {FOR_STABILITY.guidance:g}, temperature {FOR_STABILITY.temperature:g},
like the chosen draws, of all elements but noble gases and radioactive ones, as `raremat-generate` does; the model was sharpened to be drawn so (docs/crystals.md). d: Wasserstein distances to the held-out known crystals of at most {LARGEST} atoms (g/cm³, eV/atom, elements); as many that
the model was trained on have {floor}. Match relaxed: the sample and its relaxed
form are the same crystal by StructureMatcher.
Known prototypes and what is said to start from embedded exchanges start from those that CHGNet had put at most {1000 * SEEDS_ABOVE:.0f} meV/atom above the
hull (`task.seed_structures=[embedded]`); raremat's own stable draws are the embedded chosen draws of which the same is true (`[chosen]`); plain ion
exchange and random decoration start from the known crystals of the training part.

| samples | {head} | Å to relaxed, median | CHGNet evaluations | CPU s per 1,000 | d_rho / d_E / d_elem |
|---|{"---|" * (len(SHOWN) + 4)}
{chr(10).join(lines)}"""
