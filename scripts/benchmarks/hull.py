"""The hull: against published decomposition energies, its speed, and how the judge scores known stable crystals."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition

from generators.oracles.chgnet_potential import SCALE
from generators.oracles.hull import Hull, fractions_of
from generators.oracles.hull_tables import ENERGY, LOWEST, chgnet_hull, known_hull, read_hull, reference_compounds

CHECKED, QUERIES, BESIDE = 2_000, 100_000, 100
DFT = "MP 2020 (DFT)"


def _published(table: pd.DataFrame, rng: np.random.Generator) -> dict[str, Any]:
    """Decomposition energies again, each from the hull of all other compositions of the same table."""
    fractions, energy = fractions_of(table["formula"]), table[ENERGY].to_numpy(dtype=np.float64)
    published = table["decomposition_energy_per_atom"].to_numpy(dtype=np.float64)
    # Every compound is a reference here, stable or not: with one left out, the next may come to the hull.
    hull = Hull(fractions, energy, DFT)
    rows = rng.choice(len(table), CHECKED, replace=False)
    found = hull.decomposition_energy(fractions[rows], energy[rows], DFT)
    apart = found - published[rows]
    worst = rows[np.argsort(-np.abs(apart))[:20]]
    by_pymatgen = [_pymatgen_depth(table, fractions, energy, row) for row in worst]
    ours = hull.decomposition_energy(fractions[worst], energy[worst], DFT)
    return {
        "checked": CHECKED,
        "within_1_mev": float((np.abs(apart) < 1e-3).mean()),
        "largest_difference": float(np.abs(apart).max()),
        "published_lower": int((apart > 1e-3).sum()),
        "published_higher": int((apart < -1e-3).sum()),
        "largest_difference_to_pymatgen_in_the_worst_20": float(np.abs(ours - by_pymatgen).max()),
    }


def _pymatgen_depth(table: pd.DataFrame, fractions: np.ndarray, energy: np.ndarray, row: int) -> float:
    inside = np.asarray(~(fractions[:, fractions[row] == 0] > 0).any(1), dtype=np.bool_)
    inside[row] = False
    compositions = [Composition(f) for f in table["formula"][inside]]
    query = Composition(table["formula"].iloc[row])
    entries = [PDEntry(c, e * c.num_atoms) for c, e in zip(compositions, energy[inside], strict=True)]
    diagram = PhaseDiagram([*entries, *(PDEntry(Composition(e.symbol), 0.0) for e in query)])
    return float(energy[row] - diagram.get_hull_energy_per_atom(query))


def _speed(table: pd.DataFrame, hull: Hull, rng: np.random.Generator) -> dict[str, Any]:
    """Queries in systems drawn like the compounds' own, with other amounts."""
    compositions = [Composition(f) for f in table["formula"].sample(QUERIES, replace=True, random_state=0)]
    queries = fractions_of(
        [{e: int(n) for e, n in zip(c, rng.integers(1, 7, len(c)), strict=True)} for c in compositions]
    )
    start = time.perf_counter()
    found = hull.hull_energy(queries)
    seconds = time.perf_counter() - start
    rows = rng.choice(np.flatnonzero(np.isfinite(found)), BESIDE, replace=False)
    entries = [
        PDEntry(Composition({e: float(x) for e, x in _shares(hull, i).items()}), float(hull.energy[i]))
        for i in range(len(hull.energy))
    ]
    start = time.perf_counter()
    slow = []
    for row in rows:
        on = np.flatnonzero(queries[row])
        inside = np.flatnonzero(~(np.delete(hull.fractions, on, axis=1) > 0).any(1))
        diagram = PhaseDiagram([entries[i] for i in inside])
        query = Composition({diagram.elements[0].from_Z(int(z)): float(queries[row, z]) for z in on})
        slow.append(diagram.get_hull_energy_per_atom(query))
    slow_seconds = time.perf_counter() - start
    return {
        "queries": QUERIES,
        "query_seconds": round(seconds, 1),
        "times_pymatgen": round(slow_seconds / BESIDE / (seconds / QUERIES), 1),
        "largest_difference_to_pymatgen": float(np.abs(found[rows] - np.array(slow)).max()),
    }


def _shares(hull: Hull, i: int) -> dict[str, float]:
    from pymatgen.core import Element

    return {Element.from_Z(int(z)).symbol: hull.fractions[i, z] for z in np.flatnonzero(hull.fractions[i])}


def _known_stable(structures: Path, tables: list[Path]) -> dict[str, dict[str, float]]:
    """CHGNet's energies of crystals that MP calls stable, above four hulls."""
    known = reference_compounds().set_index("id")
    labels = pd.read_parquet(structures).set_index("material_id")
    stable = labels.index[labels["e_above_hull"] <= 0]
    ours = known.loc[known.index.intersection(stable)].dropna(subset=[ENERGY])
    fractions, energy = fractions_of(ours["formula"]), ours[ENERGY].to_numpy(dtype=np.float64)
    dft = read_hull([*tables, structures], DFT)
    results = {
        "MP's DFT energies, MP's hull": dft.e_above_hull(
            fractions, labels.loc[ours.index, ENERGY].to_numpy(dtype=np.float64), DFT
        ),
        "CHGNet's energies, MP's hull": energy - dft.hull_energy(fractions),
        "CHGNet's energies, the hull of the embedded known compounds": known_hull().e_above_hull(
            fractions, energy, SCALE
        ),
        "CHGNet's energies, the embedded hull": chgnet_hull().e_above_hull(fractions, energy, SCALE),
    }
    return {
        name: {
            "crystals": len(x),
            "median": float(np.median(x)),
            "on_hull": float((x <= 1e-3).mean()),
            "within_50_mev": float((x <= 0.05).mean()),
            "within_100_mev": float((x <= 0.1).mean()),
        }
        for name, x in results.items()
    }


def _holes(on_hull: Path) -> dict[str, dict[str, float]]:
    """How far the embedded hulls lie above the compounds on the published one."""
    table = pd.read_parquet(on_hull)
    table = table[np.isfinite(table[ENERGY]) & (table[ENERGY] > LOWEST)]
    fractions, energy = fractions_of(table["formula"]), table[ENERGY].to_numpy(dtype=np.float64)
    at_hand = reference_compounds().dropna(subset=[ENERGY])
    at_hand = at_hand[at_hand[ENERGY] > LOWEST]
    hulls = {
        "known compounds with a structure at hand": Hull(
            fractions_of(at_hand["formula"]), at_hand[ENERGY].to_numpy(dtype=np.float64), SCALE
        ),
        "the same and known formulas in predicted structures (`known`)": known_hull(),
        "the same and hypothetical compounds (`embedded`)": chgnet_hull(),
    }
    found: dict[str, dict[str, float]] = {}
    for name, hull in hulls.items():
        above = hull.hull_energy(fractions) - energy
        found[name] = {
            "compounds": len(table), **{f"within_{at:g}": float((above <= at).mean()) for at in (0.05, 0.1, 0.3)}
        }  # fmt: skip
    return found


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Needs ``--hull FOLDER`` (mp_decomposition.parquet, mp_on_hull.parquet) and ``--structures``."""
    if arguments.hull is None or arguments.structures is None:
        raise SystemExit("benchmark: hull needs --hull FOLDER and --structures TABLE")
    rng = np.random.default_rng(0)
    table = pd.read_parquet(arguments.hull / "mp_decomposition.parquet")
    published = _published(table, rng)
    on_hull = arguments.hull / "mp_on_hull.parquet"
    speed = _speed(table, read_hull([on_hull], DFT), rng)
    stable = _known_stable(arguments.structures, [on_hull])
    holes = _holes(on_hull)
    met = "\n".join(
        f"| {name} | {x['within_0.05']:.1%} | {x['within_0.1']:.1%} | {x['within_0.3']:.1%} |"
        for name, x in holes.items()
    )
    rows = "\n".join(
        f"| {name} | {x['median'] * 1000:.0f} | {x['on_hull']:.0%} | {x['within_50_mev']:.0%} | {x['within_100_mev']:.0%} |"
        for name, x in stable.items()
    )
    crystals = next(iter(stable.values()))["crystals"]
    text = f"""## The convex hull

`python scripts/benchmark.py hull --hull FOLDER --structures STRUCTURES.parquet`

{published["checked"]:,} random compounds of Bartel et al. (npj Comput. Mater. 6, 97 (2020), {len(table):,} in all): decomposition energy again
within 1 meV/atom for {published["within_1_mev"]:.1%}; largest difference {published["largest_difference"] * 1000:.1f} meV/atom. Where it differs by more, our competing
mixture is lower {published["published_lower"]} times and higher {published["published_higher"]} times, and pymatgen's phase diagram agrees with ours
(20 worst: {published["largest_difference_to_pymatgen_in_the_worst_20"] * 1000:.1e} meV/atom): the published minimisation stopped early.

{speed["queries"]:,} queries in {speed["query_seconds"]:.0f} s on one core, {speed["times_pymatgen"]:.0f} times faster than one `PhaseDiagram` per query
(largest difference {speed["largest_difference_to_pymatgen"] * 1000:.1e} meV/atom).

How {crystals:,} crystals come out that MP labels as stable:

| energies and hull | median, meV/atom | <= 1 meV | <= 50 meV | <= 100 meV |
|---|---|---|---|---|
{rows}

How high the embedded hulls lie at the {next(iter(holes.values()))["compounds"]:,} compounds on MP's hull (CHGNet's energies against published ones; compounds of
an element without a CHGNet reference count as not met):

| hull of | <= 50 meV | <= 100 meV | <= 300 meV |
|---|---|---|---|
{met}"""
    return {"markdown": text, "seed": 0, **published, **speed, "known_stable": stable, "holes": holes}
