"""The judge of whole crystals: relaxation, energies above a hull, and which crystals fulfil the wish."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from data.frames import from_frame
from generators.judging import JudgeWorkers, judged_batch, judged_formation_energies
from generators.oracles.base import Oracle
from generators.oracles.chgnet_potential import SCALE
from generators.oracles.hull import Hull, fractions_of_batch
from generators.oracles.hull_tables import FAR_BELOW, chgnet_hull, known_hull
from generators.oracles.judge import PROPERTIES as JUDGED
from generators.oracles.judge import JudgeSettings
from generators.wish import Interval, Wish

ABOVE, GAP = "e_above_hull", "band_gap"
METASTABLE = 0.1
"""eV/atom above the hull: what counts as a hit where the judge can measure nothing of the wish."""
Which = Literal["embedded", "known"]


class CrystalJudge:
    """Judges tables of drawn crystals; used in a ``with`` statement.

    Args:
        wish: what counts as a hit, as far as it can be measured.
        settings: of CHGNet's relaxations.
        workers, device: processes on a CPU; ``auto`` for whatever is there.
        hull: that ``e_above_hull`` counts against: everything embedded, or the known compounds alone.
        network: gives band gaps (eV) of the relaxed crystals, for instance `CgcnnOracle`; without it gaps are not
            measured.
    """

    def __init__(
        self,
        wish: Wish,
        settings: JudgeSettings | None = None,
        workers: int = 2,
        device: str = "auto",
        hull: Which = "embedded",
        network: Oracle | None = None,
    ) -> None:
        self.settings = settings or JudgeSettings()
        self.workers = JudgeWorkers(self.settings, workers, device)
        self.hull_name, self.network = hull, network
        names = (*JUDGED, ABOVE, *([GAP] if network is not None else []))
        self.measured = Wish({name: i for name, i in wish.intervals.items() if name in names})
        self.not_judged = [name for name in wish.intervals if name not in names]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.workers.__exit__(*error)

    @property
    def hull(self) -> Hull:
        """That ``e_above_hull`` counts against."""
        return chgnet_hull() if self.hull_name == "embedded" else known_hull()

    @property
    def goal(self) -> Wish:
        """What a hit fulfils: the measured part of the wish, or stability where there is none.

        Nothing real lies more than 0.3 eV/atom below the hull of what is known: an interval of the energy above it that
        is open below ends there.
        """
        intervals = dict(self.measured.intervals) or {ABOVE: Interval(None, METASTABLE)}
        above = intervals.get(ABOVE)
        if above is not None and above.low is None and (above.high is None or above.high > FAR_BELOW):
            intervals[ABOVE] = Interval(FAR_BELOW, above.high)
        return Wish(intervals)

    def judge(self, chosen: pd.DataFrame, folder: Path, name: str = "raremat") -> pd.DataFrame:
        """The relaxed crystals of ``chosen`` (a table of `generators.crystals.draws`), one row each.

        Shards that are in ``folder`` are read, not judged again. Beside the columns of `generators.judging`:
        ``formation_energy_per_atom``, ``e_above_hull`` and ``e_above_known_hull`` (eV/atom), ``hit`` and what
        identifies the crystal.

        Raises:
            ValueError: the folder holds shards of other crystals.
        """
        hits = 0
        with tqdm(total=len(chosen), unit="crystal", desc=f"judge {name}", mininterval=1.0) as bar:

            def progress(n: int, frame: pd.DataFrame) -> None:
                nonlocal hits
                hits += int(self.hits(self.with_values(frame)).sum())
                bar.set_postfix(hits=hits)
                bar.update(n)

            frame = self.workers.judge(from_frame(chosen), folder, name, progress=progress)
        frame = self.with_values(frame)
        frame["hit"] = self.hits(frame)
        for column in ("id", "formula", "protostructure", "crystal_key", "novel", "distance_ratio", "n_atoms"):
            frame[column] = chosen[column].to_numpy()
        return frame

    def with_values(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A table of `generators.judging` with energies (eV/atom), and band gaps (eV) if they are measured."""
        batch = judged_batch(frame)
        values, fractions = judged_formation_energies(frame, batch), fractions_of_batch(batch)
        frame = frame.assign(
            formation_energy_per_atom=values,
            e_above_hull=self.hull.e_above_hull(fractions, values, SCALE),
            e_above_known_hull=known_hull().e_above_hull(fractions, values, SCALE),
        )
        if self.network is not None:
            rows = torch.from_numpy(np.flatnonzero(frame["valid"].to_numpy()))
            gap = np.full(len(frame), np.nan)
            if len(rows):
                gap[rows.numpy()] = self.network.evaluate(batch.select(rows)).values[GAP].numpy()
            frame[GAP] = gap
        return frame

    def hits(self, frame: pd.DataFrame) -> NDArray[np.bool_]:
        """[N] valid, and inside every interval that is measured."""
        intervals = self.goal.intervals
        values = {name: torch.from_numpy(frame[name].to_numpy(copy=True)) for name in intervals}
        return np.asarray(self.goal.hits(values).numpy() & frame["valid"].to_numpy())

    def hit_text(self) -> str:
        """What counts as a hit, for people."""
        if self.measured.intervals:
            return self.measured.describe()
        return f"at most {METASTABLE:g} eV/atom above the hull"
