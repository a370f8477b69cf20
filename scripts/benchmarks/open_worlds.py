"""Wishes in the open space of crystals, 180 judge calls each: hits that are stable, unique and novel."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.open_worlds_count import REPORTED, confirm, page, with_matches
from data.dataset import CrystalDataset
from data.orbit_batch import OrbitBatch
from data.sources import Source, read_crystals
from generators.conditioning import Conditions
from generators.crystals.draws import CrystalDraws, drawn_table
from generators.crystals.generate import known_prototypes
from generators.crystals.judging import ABOVE, GAP, CrystalJudge
from generators.crystals.labelled import Labelled, labelled_crystals
from generators.crystals.model import load_crystal_model
from generators.crystals.rounds import Rounds, RoundSettings
from generators.manifest import file_hash
from generators.oracles.cgcnn import CgcnnOracle
from generators.oracles.hull import fractions_of_batch
from generators.oracles.hull_tables import ENERGY
from generators.oracles.judge import JudgeSettings
from generators.sampling.crystal_geometry import CrystalSamplerSettings
from generators.sampling.crystal_task import CrystalTask
from generators.screening.crystal_exchange import exchange_crystals, with_elements
from generators.screening.crystal_funnel import KnownCrystals, screen_crystals
from generators.shipped import shipped
from generators.wish import Interval, Wish

CALLS, LARGEST, SEEDS, PER_BATCH = 180, 20, 150, 500
ROUNDS_FOR_GAPS = 9
"""With eighteen the first seed had 75 new hits, with nine 109."""
ROUNDS = RoundSettings(rounds=18, seeds=SEEDS, workers=1)
SETS = {
    "raremat": (360, ROUNDS),
    "similar elements, same surrogate, no model": (0, replace(ROUNDS, exchange=0.0, redrawn=0)),
}
"""Crystals drawn by the model, and how the judge calls are spent."""
GUIDED = CrystalSamplerSettings(guidance=3.0, prototype_guidance=3.0)
STABLE = {ABOVE: Interval(None, 0.1)}
WISHES = {
    "magnetization density > 0.2 µB/Å³": {"magnetization_density": Interval(0.2, None)},
    "bulk modulus 100 to 200 GPa and magnetization density ≥ 0.1 µB/Å³": {
        "bulk_modulus": Interval(100.0, 200.0),
        "magnetization_density": Interval(0.1, None),
    },
    "band gap 3.0 ± 0.1 eV": {"band_gap": Interval(2.9, 3.1)},
    "bulk modulus > 300 GPa": {"bulk_modulus": Interval(300.0, None)},
}


@dataclass(frozen=True, eq=False)
class OpenBench:
    """What every wish needs: the model, the known crystals, labels, and which crystals are new."""

    model: Path
    own: CrystalDataset
    labelled: Labelled
    seed: int = 0

    def judge(self, wish: Wish) -> CrystalJudge:
        network = CgcnnOracle() if "band_gap" in wish.intervals else None
        return CrystalJudge(wish, JudgeSettings(all_bulk_moduli=True), 1, "cpu", "known", network)

    def in_rounds(self, name: str, wish: Wish, judge: CrystalJudge, folder: Path) -> pd.DataFrame:
        """What ``raremat-generate task=crystals screening.rounds=18`` (9 for gaps) does; ``name`` among `SETS`."""
        samples, settings = SETS[name]
        if GAP in wish.intervals:
            settings = replace(settings, rounds=ROUNDS_FOR_GAPS)
        names = [scale.name for scale in load_crystal_model(self.model).scales]
        draws = CrystalDraws(
            self.model, GUIDED, CrystalTask(n_atoms=(1, LARGEST)), Conditions.from_wish(wish.intervals, names, 1), self.seed
        )  # fmt: skip
        rounds = Rounds(
            draws, judge, KnownCrystals(self.own), known_prototypes(), lambda: self.labelled, settings, folder
        )  # fmt: skip
        return rounds.run(samples, CALLS)[2]

    def first_new(
        self, draw: Callable[[torch.Generator], OrbitBatch], judge: CrystalJudge, folder: Path
    ) -> pd.DataFrame:
        """The first new, well-spaced crystals of a baseline, judged."""
        generator = torch.Generator().manual_seed(self.seed)
        tables: list[pd.DataFrame] = []
        known = KnownCrystals(self.own)
        while True:
            tables.append(drawn_table(draw(generator), f"draw-{len(tables)}").assign(seconds=0.0))
            screened = screen_crystals(tables, known, known_prototypes(), CALLS)
            if len(screened.chosen) == CALLS:
                return judge.judge(screened.chosen, folder / "judged")

    def exchanged(self, judge: CrystalJudge) -> Callable[[torch.Generator], OrbitBatch]:
        """Ion exchange of the crystals whose labels fulfil the wish or come nearest to it."""
        parents = self.nearest(judge)

        def draw(generator: torch.Generator) -> OrbitBatch:
            picked = torch.randint(len(parents), (PER_BATCH,), generator=generator)
            return exchange_crystals(parents.select(picked), generator)[0]

        return draw

    def nearest(self, judge: CrystalJudge, n: int = SEEDS) -> OrbitBatch:
        """The ``n`` labelled crystals least outside the wish."""
        return self.labelled.dataset.batch.select(torch.argsort(self.outside(judge), stable=True)[:n])

    def outside(self, judge: CrystalJudge) -> Tensor:
        """[N] how far the labelled crystals are outside the wish, in standard deviations of the labels."""
        batch, properties = self.labelled.dataset.batch, dict(self.labelled.dataset.properties)
        hull = torch.from_numpy(judge.hull.hull_energy(fractions_of_batch(batch)))
        properties[ABOVE] = properties[ENERGY].double() - hull
        outside = torch.zeros(len(batch), dtype=torch.float64)
        for name, interval in judge.goal.intervals.items():
            x = properties[name].double()
            far = torch.zeros_like(x)
            if interval.low is not None:
                far = torch.maximum(far, interval.low - x)
            if interval.high is not None:
                far = torch.maximum(far, x - interval.high)
            outside += torch.where(x.isnan(), torch.inf, far / x[~x.isnan()].std())
        return outside

    def decorated(self, generator: torch.Generator) -> OrbitBatch:
        """Known crystals with other elements drawn evenly, equal ones staying equal."""
        small = self.own.batch.select(self.own.batch.n_atoms <= LARGEST)
        batch = small.select(torch.randint(len(small), (PER_BATCH,), generator=generator))
        elements = torch.tensor(load_crystal_model(self.model).known_elements)
        mapping = torch.zeros(len(batch), 119, dtype=torch.long)
        mapping[:, elements] = elements[torch.rand(len(batch), len(elements), generator=generator).argsort(1)]
        return with_elements(batch, mapping.gather(1, batch.atomic_number) * batch.mask)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Needs ``--structures`` (known crystals with band gaps); goes on where a killed run stopped (``--cache``)."""
    if arguments.structures is None:
        raise SystemExit("benchmark: open needs --structures TABLE")
    model = Path(arguments.model) if arguments.model else shipped("crystal")
    own, _ = read_crystals(arguments.structures, Source(workers=1))
    bench = OpenBench(model, own, labelled_crystals(own))
    rows = [
        row
        for label in WISHES
        for seed in range(1, 1 + arguments.seeds)
        for row in _wish(replace(bench, seed=seed), label, arguments.cache / f"open-{file_hash(model)[:8]}")
    ]
    frame = pd.DataFrame(rows)
    return {"markdown": page(frame, CALLS, len(bench.labelled.dataset), labelled_hits(bench)), "calls": CALLS,
            "sets": rows}  # fmt: skip


def _wish(bench: OpenBench, label: str, folder: Path) -> list[dict[str, Any]]:
    """One row per way; the second opinion is asked about raremat's own hits, once."""
    intervals = WISHES[label]
    wish = Wish({**intervals, **STABLE})
    rows = []
    with bench.judge(wish) as judge:
        ways: dict[str, Callable[[Path], pd.DataFrame]] = {
            **{name: partial(bench.in_rounds, name, wish, judge) for name in SETS},
            "ion exchange": lambda path: bench.first_new(bench.exchanged(judge), judge, path),
            "random decoration": lambda path: bench.first_new(bench.decorated, judge, path),
        }
        for name, work in ways.items():
            path = folder / f"{bench.seed}" / re.sub(r"[^a-z0-9]+", "-", f"{label} {name}".lower())
            table = with_matches(work(path), bench.own, bench.labelled.dataset)
            row = {"wish": label, "set": name, "seed": bench.seed, **_figures(table, intervals)}
            if name == "raremat" and bench.seed == 1:
                row |= confirm(table[table["counts"]], wish, path)
            rows.append(row)
            print({key: value for key, value in row.items() if key in REPORTED}, flush=True)
    return rows


def labelled_hits(bench: OpenBench) -> dict[str, int]:
    """Wish -> labelled crystals that fulfil it."""
    counts = {}
    for label, intervals in WISHES.items():
        with bench.judge(Wish({**intervals, **STABLE})) as judge:
            counts[label] = int((bench.outside(judge) == 0).sum())
    return counts


def _figures(table: pd.DataFrame, intervals: dict[str, Interval]) -> dict[str, Any]:
    """Counts among the judged; the best value of each property among the stable ones."""
    stable = table[table["valid"] & (table["e_above_known_hull"] <= 0.1)]
    best = {f"highest {name}": float(stable[name].max()) if len(stable) else np.nan for name in intervals}
    return {
        "calls": len(table),
        "hits": int(table["hit"].sum()),
        "unique_novel": int(table["counts"].sum()),
        "metastable": len(stable),
        "prototypes": int(table.loc[table["counts"], "protostructure"].nunique()),
        "systems": len({frozenset(map(int, zs)) for zs in table.loc[table["counts"], "atomic_numbers"]}),
        **best,
    }
