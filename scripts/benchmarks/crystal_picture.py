"""The best and the worst of 64 random samples of whole crystals, as drawn and as relaxed."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pymatgen.core import Structure

from benchmarks.crystal_sets import RELAXED, CrystalBench
from data.cells import decode
from generators.judging import JudgeWorkers, judged_batch, judged_formation_energies
from generators.oracles.chgnet_potential import SCALE
from generators.oracles.hull import fractions_of_batch
from generators.oracles.hull_tables import known_hull

N, SHOWN, SEED = 64, 4, 0
IMAGE = Path(__file__).resolve().parents[2] / "docs" / "images" / "crystals.png"


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Needs ``--structures`` (known crystals)."""
    if arguments.structures is None:
        raise SystemExit("benchmark: crystal_picture needs --structures TABLE")
    bench = CrystalBench(arguments.structures, arguments.model)
    batch = bench.sampler(bench.guided).draw(bench.small(), bench.stable(), N, torch.Generator().manual_seed(SEED))
    judge = JudgeWorkers(RELAXED)
    with tempfile.TemporaryDirectory() as name, judge:
        frame = judge.judge(batch, Path(name), "picture")
    relaxed = judged_batch(frame)
    above = known_hull().e_above_hull(fractions_of_batch(relaxed), judged_formation_energies(frame, relaxed), SCALE)
    above = np.where(frame["valid"] & np.isfinite(above), above, np.inf)
    order = np.argsort(above)
    picked = [*order[:SHOWN], *order[-SHOWN:]]
    before, after = list(decode(batch).structures()), list(decode(relaxed).structures())
    titles = [
        f"{before[i].composition.reduced_formula}, {int(batch.space_group[i])}\n"
        + (f"{above[i]:+.3f} eV/atom" if np.isfinite(above[i]) else str(frame["reason"].iloc[i]))
        for i in picked
    ]
    _picture([(before[i], after[i]) for i in picked], titles)
    finite = above[np.isfinite(above)]
    text = f"""## The best and the worst of {N} samples

`python scripts/benchmark.py crystal_picture --structures STRUCTURES.parquet`: {N} crystals drawn like the guided ones of the section
"Whole crystals" (seed {SEED}), none left out. Left the {SHOWN} lowest, right the {SHOWN} highest above the hull of the known compounds; formula,
space group, energy above the hull after relaxation. Above as drawn, below as CHGNet relaxes them. What lies
more than 0.3 eV/atom below the hull would be no discovery but an error of the judge or a gap in the hull.
Median {np.median(finite):.3f} eV/atom, {int((above <= 0.1).sum())} of {N} at most 0.1, of these {int((above < -0.3).sum())} below -0.3.

![Best and worst of {N}](images/crystals.png)"""
    return {"markdown": text, "seed": SEED, "n": N, "e_above_hull": sorted(round(float(x), 4) for x in finite)}


def _picture(pairs: list[tuple[Structure, Structure]], titles: list[str]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from ase.visualize.plot import plot_atoms

    figure, axes = plt.subplots(2, len(pairs), figsize=(1.7 * len(pairs), 4.2), constrained_layout=True)
    for column, ((before, after), title) in enumerate(zip(pairs, titles, strict=True)):
        for axis, structure in zip(axes[:, column], (before, after), strict=True):
            atoms = structure.to_ase_atoms()
            plot_atoms(atoms * tuple(int(n) for n in np.clip(np.ceil(7 / atoms.cell.lengths()), 1, 3)), axis,
                       rotation="10x,-15y,0z")  # fmt: skip
            axis.set_axis_off()
        axes[0, column].set_title(title, fontsize=8)
    figure.savefig(IMAGE, dpi=90)
    plt.close(figure)
