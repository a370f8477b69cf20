"""What judges that neither trained nor steered anything say about a table of candidates."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import torch
from torch import Tensor

from data.frames import from_frame
from data.orbit_batch import OrbitBatch
from generators.oracles.base import Oracle, OracleResult
from generators.oracles.corrections import mp2020_correction
from generators.oracles.judge import PotentialJudge
from generators.wish import Interval, Wish

ENERGY = "formation_energy_per_atom"
FROM_STRUCTURE = ("band_gap", "bulk_modulus")
"""Properties that are taken from a network on the relaxed structure (CGCNN)."""


def second_opinion(
    table: pd.DataFrame,
    wish: Wish,
    judge: PotentialJudge | None,
    network: Oracle | None,
    tolerance: Mapping[str, float] | None = None,
    corrected: bool = True,
) -> pd.DataFrame:
    """Second values for the candidates of the first judge, beside the wish.

    The judge relaxes once more, within symmetry and from the first judge's minimum. The network reads the
    structure as the first judge left it.

    Args:
        table: crystal columns of the relaxed candidates (`data.frames.to_frame`), and
            ``formation_energy_per_atom`` of the first judge if there is a second judge.
        wish: the intervals that a second value should lie in.
        judge: gives formation energies (eV/atom) with its own elements.
        network: gives band gaps (eV) and bulk moduli (GPa).
        tolerance: per property, how far outside its interval a second value may lie, in its unit; 0 if missing.
        corrected: add the Materials Project's corrections (`mp2020_correction`) to the judge's values. They
            are part of CHGNet's scale and not of SevenNet's.

    Returns:
        A table with the index of ``table``, and for a judge NAME and a network NAME:
        ``formation_energy_per_atom_NAME`` (NaN where it fails), ``disagreement`` (absolute difference of the
        formation energies, eV/atom), ``reason_NAME``, ``band_gap_NAME``, ``bulk_modulus_NAME``, and
        ``confirmed``: True if every interval holds, False if one does not or the second judge fails on the
        crystal, None if none is violated but some have no second value.

    Raises:
        ValueError: a column is missing, or a tolerance is negative or for no property of the wish.
    """
    tolerance = dict(tolerance or {})
    _check(table, wish, judge, tolerance)
    result = pd.DataFrame(index=table.index)
    second: dict[str, Tensor] = {}
    if len(table) == 0:
        return _empty(result, judge, network)
    batch = from_frame(table)
    if judge is not None:
        found = judge.evaluate(batch)
        energy = found.values[ENERGY] + (mp2020_correction(batch) if corrected else 0.0)
        second[ENERGY] = energy
        first = torch.from_numpy(table[ENERGY].to_numpy(dtype=float, copy=True))
        result[f"{ENERGY}_{judge.name}"] = energy.numpy()
        result["disagreement"] = (energy - first).abs().numpy()
        result[f"reason_{judge.name}"] = list(found.reason)
    if network is not None:
        read = _read(network, batch)
        for name in FROM_STRUCTURE:
            second[name] = read.values[name]
            result[f"{name}_{network.name}"] = read.values[name].numpy()
    result["confirmed"] = pd.Series(_confirmed(wish, second, tolerance, len(table)), index=table.index, dtype=object)
    return result


def _check(table: pd.DataFrame, wish: Wish, judge: PotentialJudge | None, tolerance: Mapping[str, float]) -> None:
    if judge is not None and ENERGY not in table.columns:
        raise ValueError(f"columns={ENERGY!r}: not in the table, a second value has nothing to be compared with")
    for name, value in tolerance.items():
        if name not in wish.intervals:
            raise ValueError(f"tolerance.{name}: not in the wish, which has {', '.join(wish.intervals) or 'nothing'}")
        if not value >= 0:
            raise ValueError(f"tolerance.{name}={value}: must be 0 or more")


def _read(network: Oracle, batch: OrbitBatch) -> OracleResult:
    missing = [name for name in FROM_STRUCTURE if name not in network.properties]
    if missing:
        raise ValueError(f"network={network.name!r}: gives no {missing[0]}, it has {', '.join(network.properties)}")
    return network.evaluate(batch)


def _empty(result: pd.DataFrame, judge: PotentialJudge | None, network: Oracle | None) -> pd.DataFrame:
    """The same columns without rows."""
    names = []
    if judge is not None:
        names += [f"{ENERGY}_{judge.name}", "disagreement", f"reason_{judge.name}"]
    if network is not None:
        names += [f"{name}_{network.name}" for name in FROM_STRUCTURE]
    return result.reindex(columns=[*names, "confirmed"])


def _confirmed(wish: Wish, second: Mapping[str, Tensor], tolerance: Mapping[str, float], n: int) -> list[bool | None]:
    """Three-valued: an interval without second values is unknown, a second value that is NaN does not hold."""
    holds = torch.ones(n, dtype=torch.bool)
    unknown = not wish.intervals
    for name, interval in wish.intervals.items():
        if name in second:
            holds &= _widened(interval, tolerance.get(name, 0.0)).contains(second[name])
        else:
            unknown = True
    return [None if ok and unknown else ok for ok in holds.tolist()]


def _widened(interval: Interval, margin: float) -> Interval:
    low = None if interval.low is None else interval.low - margin
    high = None if interval.high is None else interval.high + margin
    return Interval(low, high)
