"""Shares and distances with bootstrap error bars, from the table of single crystals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

SHARES = {
    "valid_structure": "shortest distance at least 0.5 Å, cell not empty",
    "charge_balanced": "SMACT finds a neutral combination of oxidation states",
    "valid_composition": "charge-balanced, or nothing but metals",
    "unique": "no earlier sample is the same crystal",
    "novel": "neither as generated nor relaxed in the reference",
    "novel_formula": "formula not in the reference",
    "novel_prototype": "protostructure not in the reference",
    "symmetric": "space group above P1",
    "relaxed": "the judge's relaxation converged",
    "matches_relaxed": "the sample and its relaxed form are the same crystal",
    "metastable": "energy above hull within the tolerance",
    "stable": "on or below the hull (1 meV/atom)",
    "far_below_hull": "more than 0.3 eV/atom below the hull: rather an error of the judge than a discovery",
    "sun": "metastable, unique and novel",
    "sun_strict": "stable, unique and novel",
    "dynamically_stable": "no imaginary phonons, of the metastable samples that were drawn for it",
}
"""Columns of the table that become shares of all samples, with what they mean."""
OF_SOME = ("dynamically_stable",)
MEANS = {
    "rmsd": "Å, as generated to relaxed",
    "e_above_hull": "eV/atom",
    "match_distance": "normalised, to the closest reference",
}


@dataclass(frozen=True)
class Figure:
    """A value with its 95 % bootstrap interval; ``n`` samples stand behind it."""

    value: float
    low: float
    high: float
    n: int


def bootstrap(values: NDArray[np.float64], seed: int = 0, repeats: int = 1000) -> Figure:
    """The mean of [N] values, resampled with replacement."""
    if len(values) == 0:
        return Figure(float("nan"), float("nan"), float("nan"), 0)
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(repeats)]
    low, high = np.quantile(means, [0.025, 0.975])
    return Figure(float(values.mean()), float(low), float(high), len(values))


def summarise(table: pd.DataFrame, seed: int = 0, repeats: int = 1000) -> dict[str, Figure]:
    """Every share and mean that the table has columns for.

    A share counts all samples, those that could not be read included; ``dynamically_stable`` counts the samples
    whose phonons were asked for (the others are missing values).
    """
    result: dict[str, Figure] = {}
    for name in SHARES:
        if name in table:
            values = np.asarray(table[name].to_numpy(dtype=np.float64, na_value=np.nan))
            asked = np.isfinite(values) if name in OF_SOME else np.ones(len(values), dtype=np.bool_)
            result[name] = bootstrap(np.nan_to_num(values[asked]), seed, repeats)
    for name in MEANS:
        if name in table:
            known = table[name].to_numpy(dtype=np.float64, na_value=np.nan)
            result[name] = bootstrap(known[np.isfinite(known)], seed, repeats)
    return result


def distances(
    samples: Mapping[str, NDArray[np.float64]], reference: Mapping[str, NDArray[np.float64]]
) -> dict[str, float]:
    """First Wasserstein distances between samples and reference, per quantity that both have, in its unit."""
    result = {}
    for name in samples.keys() & reference.keys():
        ours = samples[name][np.isfinite(samples[name])]
        theirs = reference[name][np.isfinite(reference[name])]
        if len(ours) and len(theirs):
            result[name] = float(wasserstein_distance(ours, theirs))
    return dict(sorted(result.items()))
