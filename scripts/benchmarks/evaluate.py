"""Known compounds, ion exchange, raremat, random decoration and noise through ``raremat-evaluate``'s own code."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pymatgen.core import Lattice, Structure

from benchmarks.common import NAME, Bench
from data.crystal import Crystal
from data.dataset import CrystalDataset
from data.decoration import to_orbit_batch, with_volume_per_atom
from data.orbit_batch import OrbitBatch
from data.sources import Source, read_crystals
from data.symmetry import encode
from generators.evaluation.evaluate import Protocol, Reference, evaluate
from generators.evaluation.samples import Samples
from generators.generate import Generation
from generators.generate_settings import GenerateSettings
from generators.judging import JudgeWorkers
from generators.oracles.hull_tables import chgnet_hull, known_hull, reference_compounds
from generators.oracles.judge import JudgeSettings
from generators.screening.atomic_volumes import additive_volume
from generators.screening.proposals import Propose, propose_unique
from generators.wish import Interval, Wish

N, SPEED = 400, 10_000
SHOWN = ("valid_structure", "charge_balanced", "unique", "novel")
ABOVE_HULL = ("metastable", "sun", "sun_strict")


def _noise(n: int, seed: int) -> OrbitBatch:
    """Atoms at random places in random cells of a usual density."""
    rng = np.random.default_rng(seed)
    crystals: list[Crystal] = []
    while len(crystals) < n:
        atoms = int(rng.integers(2, 13))
        angles = rng.uniform(70, 110, 3)
        lengths = rng.uniform(0.7, 1.3, 3) * (atoms * 18.0) ** (1 / 3)
        structure = Structure(
            Lattice.from_parameters(*lengths, *angles), rng.integers(3, 84, atoms).tolist(), rng.random((atoms, 3))
        )
        crystals.append(encode(structure))
    return OrbitBatch.from_crystals(crystals)


def _dataset(batch: OrbitBatch) -> CrystalDataset:
    return CrystalDataset(batch, {}, ("",) * len(batch), tuple(str(i) for i in range(len(batch))))


def _decorations(generation: Generation, propose: Propose, folder: Path, by_elements: bool = False) -> CrystalDataset:
    """Unique proposals, known compounds included, at the volume that the surrogate expects, or with cells
    ``by_elements`` from atomic volumes, as without a surrogate."""
    nothing = generation.sources.known[:0]
    pool = propose_unique(propose, generation.table, nothing, N, 0, "evaluate", folder, shard_size=512)
    batch = to_orbit_batch(generation.table, pool.row, pool.elements)
    if by_elements:
        return _dataset(with_volume_per_atom(batch, additive_volume(batch)))
    volume = torch.from_numpy(generation.predict(pool)[1]["volume_per_atom_surrogate"].to_numpy())
    return _dataset(with_volume_per_atom(batch, volume))


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Needs ``--structures`` for the known compounds and for the speed without relaxation."""
    if arguments.structures is None:
        raise SystemExit("benchmark: evaluate needs --structures TABLE")
    bench = Bench()
    known, _ = read_crystals(arguments.structures, Source(labels=False))
    picked = torch.randperm(len(known), generator=torch.Generator().manual_seed(0))[:N]
    wish = Wish({NAME: Interval(None, bench.quantile(0.1))})
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generation = Generation(
            bench.module, bench.surrogate, bench.training, wish, GenerateSettings(), folder / "generation"
        )
        near_hull = Wish({"e_above_hull": Interval(None, 0.05)})
        stable = Generation(
            bench.module, bench.surrogate, bench.training, near_hull, GenerateSettings(), folder / "generation"
        )
        sets = {
            "known compounds (MP subset)": known.select(picked),
            "raremat, lowest 10 % of formation energies": _decorations(
                generation, generation.sources.model(), folder / "raremat"
            ),
            "ion exchange of known compounds in that interval": _decorations(
                generation, generation.sources.exchange(), folder / "exchange", by_elements=True
            ),
            "the same by neighbours in the group": _decorations(
                generation, generation.sources.exchange("group"), folder / "group", by_elements=True
            ),
            "raremat, at most 0.05 eV/atom above the hull": _decorations(
                stable, stable.sources.model(), folder / "stable"
            ),
            "ion exchange of known compounds there": _decorations(
                stable, stable.sources.exchange(), folder / "stable-exchange", by_elements=True
            ),
            "the same there by neighbours in the group": _decorations(
                stable, stable.sources.exchange("group"), folder / "stable-group", by_elements=True
            ),
            "random decoration, charge-balanced": _decorations(
                generation, generation.sources.random(balanced=True), folder / "balanced"
            ),
            "random decoration": _decorations(generation, generation.sources.random(), folder / "random"),
            "noise": _dataset(_noise(N, 0)),
        }
        reference = Reference.from_table(reference_compounds())
        hulls = {"known": known_hull(), "embedded": chgnet_hull()}
        for label, dataset in sets.items():
            judge = JudgeWorkers(JudgeSettings(with_bulk_modulus=False))
            figures[label] = {}
            for word, hull in hulls.items():  # relaxed once: the second reads what the first has judged
                result = evaluate(Samples(dataset, ()), Protocol(), reference, hull, judge, folder / label)
                figures[label][word] = {key: vars(figure) for key, figure in result.figures.items()}
        start = time.perf_counter()
        source = Source(labels=False, limit=SPEED)
        evaluate(
            Samples(*_tupled(read_crystals(arguments.structures, source))), Protocol(relax="none"), reference,
            hulls["embedded"], JudgeWorkers(), folder / "speed",
        )  # fmt: skip
        speed = time.perf_counter() - start
    rows = "\n".join(_row(label, one) for label, one in figures.items())
    half = 1.96 * np.sqrt(0.25 / N)
    text = f"""## Evaluation of proposals without any screening

`python scripts/benchmark.py evaluate --structures STRUCTURES.parquet`: {N} samples each, relaxed within symmetry by CHGNet, against
two hulls on CHGNet's scale (energies above either are lower bounds): of the known compounds alone (`reference.hull=[known]`, {len(hulls["known"]):,}
compositions), to be set beside published figures, and the embedded one with hypothetical compounds ({len(hulls["embedded"]):,}). Novel: not
an embedded known compound. Ion exchange by mined substitution probabilities or by neighbours in the group, cells from atomic volumes; other
cells at the volume that the surrogate expects. 95 % intervals are at most ± {half:.1%}.
Metastable: at most 0.1 eV/atom above the hull. S.U.N.: metastable, unique, novel; strict: at most 1 meV/atom. Each of these three: above the
hull of known compounds / above the embedded hull.

| samples | valid | charge-balanced | unique | novel | metastable: known / embedded | S.U.N.: known / embedded | strict: known / embedded | Å to relaxed |
|---|---|---|---|---|---|---|---|---|
{rows}

{SPEED:,} crystals without relaxation: {speed:.0f} s."""
    return {"markdown": text, "seed": 0, "samples": N, "sets": figures, "seconds_for_10000_unrelaxed": round(speed, 1)}


def _row(label: str, by_hull: dict[str, Any]) -> str:
    known, embedded = by_hull["known"], by_hull["embedded"]
    cells = [f"{embedded[key]['value']:.1%}" for key in SHOWN]
    cells += [f"{known[key]['value']:.1%} / {embedded[key]['value']:.1%}" for key in ABOVE_HULL]
    return f"| {label} | " + " | ".join(cells) + f" | {embedded['rmsd']['value']:.3f} |"


def _tupled(read: tuple[CrystalDataset, list[Any]]) -> tuple[CrystalDataset, tuple[Any, ...]]:
    return read[0], tuple(read[1])
