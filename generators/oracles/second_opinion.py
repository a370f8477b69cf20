"""What judges that neither trained nor steered anything say about a table of candidates."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from data.frames import from_frame
from data.orbit_batch import OrbitBatch
from generators.oracles.base import Oracle
from generators.oracles.corrections import mp2020_correction
from generators.oracles.sevennet_potential import SCALE as SEVENNET
from generators.wish import Interval, Wish

ENERGY = "formation_energy_per_atom"
FROM_STRUCTURE = ("band_gap", "bulk_modulus")
"""Properties that are taken from a network on the relaxed structure (CGCNN)."""
REFUTES = frozenset({"collapsed", "exploded"})
"""What a judge says of crystals that do not exist for it. Other reasons only say that it cannot tell: SevenNet sees
no further than 5 Å, knows 89 elements, and may stop before it converges."""
UNCORRECTED = frozenset({SEVENNET})
"""Energy scales without the Materials Project's corrections, which are part of CHGNet's."""


def second_opinion(
    table: pd.DataFrame,
    wish: Wish,
    judge: Oracle | None,
    network: Oracle | None,
    tolerance: Mapping[str, float] | None = None,
    corrected: bool = True,
) -> pd.DataFrame:
    """Second values for the candidates of the first judge, beside the wish.

    The judge relaxes once more, within symmetry and from the first judge's minimum. The network reads the
    structure as the first judge left it. Where both give a property, the judge's value counts.

    Args:
        table: crystal columns of the relaxed candidates (`data.frames.to_frame`), and
            ``formation_energy_per_atom`` of the first judge if there is a second judge.
        wish: the intervals that a second value should lie in.
        judge: gives formation energies (eV/atom) with its own elements, for instance `SevenNetJudge`.
        network: gives band gaps (eV) and bulk moduli (GPa), for instance `CgcnnOracle`.
        tolerance: per property, how far outside its interval a second value may lie, in its unit; 0 if missing.
        corrected: add the Materials Project's corrections (`mp2020_correction`) to formation energies on an
            `UNCORRECTED` scale, as the first judge's have them.

    Returns:
        A table with the index of ``table``. For a judge NAME its properties (``formation_energy_per_atom_NAME``
        first; NaN where it fails), ``disagreement`` (absolute difference of the formation energies, eV/atom)
        and ``reason_NAME``; for a network NAME ``band_gap_NAME``, ``bulk_modulus_NAME`` and, if it has them,
        ``formation_energy_per_atom_NAME`` and ``disagreement_NAME`` (shown, never decisive: a network on a fixed
        structure errs by ten times as much as a potential that relaxes it); and ``confirmed``:
        True if every interval holds, False if one does not or the crystal falls apart under the judge
        (`REFUTES`), None if none is violated but some have no second value.

    Raises:
        ValueError: a column is missing, the network lacks a property, or a tolerance is negative or for no
            property of the wish.
    """
    tolerance = dict(tolerance or {})
    _check(table, wish, judge, network, tolerance)
    columns: dict[str, object] = {}
    second: dict[str, Tensor] = {}
    refuted = torch.zeros(len(table), dtype=torch.bool)
    batch = from_frame(table) if len(table) else None
    if network is not None:
        found = _network_values(network, batch)
        energy = found.pop(ENERGY, None)
        second |= found
        columns = {f"{name}_{network.name}": value.numpy() for name, value in found.items()}
        if energy is not None and ENERGY in table.columns:
            columns[f"{ENERGY}_{network.name}"] = energy.numpy()
            columns[f"disagreement_{network.name}"] = np.abs(energy.numpy() - table[ENERGY].to_numpy(dtype=float))
    if judge is not None:
        values, reason = _judge_values(judge, batch, corrected)
        refuted = torch.tensor([r in REFUTES for r in reason], dtype=torch.bool)
        first = torch.from_numpy(table[ENERGY].to_numpy(dtype=float, copy=True))
        judged: dict[str, object] = {f"{name}_{judge.name}": value.numpy() for name, value in values.items()}
        judged["disagreement"] = (values[ENERGY] - first).abs().numpy()
        judged[f"reason_{judge.name}"] = reason
        columns = judged | columns
        for name, value in values.items():
            second[name] = torch.where(value.isnan(), second.get(name, value), value)
    result = pd.DataFrame(columns, index=table.index)
    confirmed = _confirmed(wish, second, tolerance, refuted)
    result["confirmed"] = pd.Series(confirmed, index=table.index, dtype=object)
    return result


def _check(
    table: pd.DataFrame, wish: Wish, judge: Oracle | None, network: Oracle | None, tolerance: Mapping[str, float]
) -> None:
    if judge is not None and ENERGY not in table.columns:
        raise ValueError(f"columns={ENERGY!r}: not in the table, a second value has nothing to be compared with")
    for name in FROM_STRUCTURE:
        if network is not None and name not in network.properties:
            raise ValueError(f"network={network.name!r}: gives no {name}, it has {', '.join(network.properties)}")
    for name, margin in tolerance.items():
        if name not in wish.intervals:
            raise ValueError(f"tolerance.{name}: not in the wish, which has {', '.join(wish.intervals) or 'nothing'}")
        if not margin >= 0:
            raise ValueError(f"tolerance.{name}={margin}: must be 0 or more")


def _network_values(network: Oracle, batch: OrbitBatch | None) -> dict[str, Tensor]:
    names = [*FROM_STRUCTURE, *([ENERGY] if ENERGY in network.properties else [])]
    if batch is None:
        return dict.fromkeys(names, torch.zeros(0, dtype=torch.float64))
    values = network.evaluate(batch).values
    return {name: values[name] for name in names}


def _judge_values(judge: Oracle, batch: OrbitBatch | None, corrected: bool) -> tuple[dict[str, Tensor], list[str]]:
    """Values with formation energies first, and a reason where the judge fails."""
    names = sorted(judge.properties, key=lambda name: name != ENERGY)
    if batch is None:
        return dict.fromkeys(names, torch.zeros(0, dtype=torch.float64)), []
    found = judge.evaluate(batch)
    values = {name: found.values[name] for name in names}
    if corrected and judge.scale in UNCORRECTED:
        values[ENERGY] = values[ENERGY] + mp2020_correction(batch)
    return values, list(found.reason)


def _confirmed(
    wish: Wish, second: Mapping[str, Tensor], tolerance: Mapping[str, float], refuted: Tensor
) -> list[bool | None]:
    holds = ~refuted
    unknown = torch.full_like(refuted, not wish.intervals)
    for name, interval in wish.intervals.items():
        value = second.get(name, torch.full(refuted.shape, torch.nan, dtype=torch.float64))
        holds = holds & (value.isnan() | _widened(interval, tolerance.get(name, 0.0)).contains(value))
        unknown = unknown | value.isnan()
    return [None if ok and open_ else ok for ok, open_ in zip(holds.tolist(), unknown.tolist(), strict=True)]


def _widened(interval: Interval, margin: float) -> Interval:
    low = None if interval.low is None else interval.low - margin
    high = None if interval.high is None else interval.high + margin
    return Interval(low, high)
