"""What guidance and temperature do to whole crystals: stable, unique, novel, and how varied."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.crystal_sets import LARGEST, CrystalBench
from generators.crystals.task_schema import SOURCES
from generators.crystals.usual import FOR_STABILITY
from generators.oracles.hull_tables import known_hull
from generators.sampling.crystal_geometry import CrystalSamplerSettings

N, SEED = 200, 100
BELOW, NEAR = (None, 0.0), (-0.05, 0.03)


class Setting(NamedTuple):
    """Guidance and temperature of prototypes and of elements, energy above the hull that is asked for, which training
    data to resemble, and guidance and temperature of space groups and numbers of orbits in multiples of the prototypes'."""

    prototypes: tuple[float, float]
    elements: tuple[float, float]
    asked: tuple[float | None, float]
    like: str
    groups: tuple[float, float] = (1.0, 1.0)

    @property
    def sampler_settings(self) -> CrystalSamplerSettings:
        """For the sampler."""
        return CrystalSamplerSettings(*self.elements, *self.prototypes, *self.groups, source=SOURCES.index(self.like))


STRONG = (12.0, 1.2)
TAKEN = (FOR_STABILITY.guidance, FOR_STABILITY.temperature)
SETTINGS = (
    Setting((1.0, 1.0), (3.0, 0.7), BELOW, "any"),
    Setting((3.0, 0.85), (4.0, 0.7), BELOW, "any"),
    Setting((4.0, 0.9), (4.0, 0.9), BELOW, "any"),
    Setting((4.0, 0.9), (4.0, 0.9), (-0.05, 0.05), "any"),
    Setting((6.0, 1.5), (6.0, 1.5), BELOW, "chosen"),
    Setting(STRONG, STRONG, BELOW, "chosen"),
    Setting(STRONG, STRONG, (-0.05, 0.0), "chosen"),
    Setting(STRONG, STRONG, NEAR, "any"),
    Setting(STRONG, STRONG, NEAR, "chosen"),
    Setting(STRONG, STRONG, NEAR, "chosen", (0.5, 1.0)),
    Setting((8.0, 1.1), (8.0, 1.1), NEAR, "chosen", (0.5, 1.0)),
    Setting((2.0, 1.0), (2.0, 1.0), NEAR, "chosen"),
    Setting(TAKEN, TAKEN, NEAR, FOR_STABILITY.like),
)
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
        for i, setting in enumerate(SETTINGS):
            draw = bench.drawn(bench.small(), setting.sampler_settings, bench.wish(e_above_hull=setting.asked))
            batch = draw(N, SEED)
            result = bench.judged(batch, known_hull(), Path(name) / str(i))
            rows.append(
                {
                    "settings": setting,
                    "groups": _effective(batch.space_group),
                    "elements": sum(len(set(c.atomic_numbers)) for c in batch.to_crystals()) / len(batch),
                    **{key: result.figures[key].value for key in SHOWN},
                    "p1": 1 - result.figures["symmetric"].value,
                }
            )
            print(rows[-1], flush=True)
    return {"markdown": _page(rows), "seed": SEED, "samples": N, "settings": rows}


def _effective(group: Tensor) -> float:
    share = torch.bincount(group).double() / len(group)
    return float(torch.special.entr(share).sum().exp())


def _page(rows: list[dict[str, Any]]) -> str:
    def interval(low: float | None, high: float) -> str:
        return f"at most {high:g}" if low is None else f"{low:g} to {high:g}"

    lines = []
    for row in rows:
        setting: Setting = row["settings"]
        (g, t), (share, cold) = setting.prototypes, setting.groups
        pairs = ((g * share, t * cold), setting.prototypes, setting.elements)
        strengths = " | ".join(f"{strength:g}, {temperature:g}" for strength, temperature in pairs)
        shares = " | ".join(f"{100 * row[key]:.0f}" for key in (*SHOWN, "p1"))
        lines.append(
            f"| {strengths} | {interval(*setting.asked)} | {setting.like} | {row['elements']:.1f} | {row['groups']:.0f} | {shares} |"
        )
    return f"""## Guidance of whole crystals

`python scripts/benchmark.py crystal_guidance --structures STRUCTURES.parquet`: {N} samples each of at most {LARGEST} atoms, nothing filtered; seed {SEED}; shares
in % and protocol as in "Whole crystals" (95 % intervals are at most ± 7). Guidance and temperature of space groups and numbers of orbits, of the other parts of
prototypes (positions, which orbits share an element), the same of elements, the energy above the hull (eV/atom) that is asked for, and which training data the crystals
shall be like. Different groups: e to the entropy of the space groups. Where the interval is open
below, a few end far below the hull. The number of elements is drawn first and never guided: guidance of
prototypes without it ends at elemental solids and molecules, stable and of no use.

| groups | prototypes | elements | asked for | like | elements per crystal | different groups | {" | ".join(SHOWN.values())} | P1 |
|---|---|---|---|---|---|---|{"---|" * (len(SHOWN) + 1)}
{chr(10).join(lines)}"""
