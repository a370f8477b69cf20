"""What a drawn crystal is worth to a model that learns from its own draws."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.frames import from_frame
from generators.crystals.hit_odds import LikelyHits
from generators.crystals.judging import ABOVE, CrystalJudge
from generators.screening.charge_balance import balanced_or_alloy
from generators.screening.crystal_funnel import KnownCrystals
from generators.screening.element_shares import RARE, known_shares
from generators.wish import Interval, Wish

NEAR, BELOW = "probability_near", "probability_below"
"""Columns: chances by the embedded surrogate that a crystal lies at most so far above the hull of known compounds."""
LEVELS = {NEAR: 0.08, BELOW: -0.01}
WEIGHTS = {NEAR: 0.4, BELOW: 0.6}
"""Of the two chances. A model that is paid for the first alone ends at soft alloys, of which everything lies some
hundredths of an eV/atom above the hull and hardly anything on it (docs/crystals.md)."""
BALANCED = "balanced"


@dataclass(frozen=True)
class Penalties:
    """What is taken off the reward of what is common, or hard to place.

    Attributes:
        element: for every doubling of an element's share above ``most_of_element`` times that among known compounds
            (of that element of a crystal which exceeds it most).
        prototype, system: for every doubling of the share of one protostructure, or of one set of elements, above
            ``most_of_prototype`` and ``most_of_system``.
        no_template: where no embedded crystal has the protostructure, so that geometry starts from noise.
        no_symmetry: in space group 1.
    """

    element: float = 0.15
    most_of_element: float = 2.5
    prototype: float = 0.1
    most_of_prototype: float = 0.01
    system: float = 0.1
    most_of_system: float = 0.002
    no_template: float = 0.1
    no_symmetry: float = 0.3


def chances(table: pd.DataFrame, likely: dict[str, LikelyHits]) -> pd.DataFrame:
    """A table of draws (`generators.crystals.draws`) with `NEAR`, `BELOW` and `BALANCED`."""
    crystals = from_frame(table).to_crystals()
    return table.assign(
        **{name: hits.log_probability(table).exp().numpy() for name, hits in likely.items()},
        **{BALANCED: [balanced_or_alloy(c.atomic_numbers, c.multiplicities) for c in crystals]},
    )


def surrogates() -> dict[str, LikelyHits]:
    """For `chances`."""
    return {
        name: LikelyHits(CrystalJudge(Wish({ABOVE: Interval(None, level)}), hull="known"))
        for name, level in LEVELS.items()
    }


def rewards(
    table: pd.DataFrame, new: NDArray[np.bool_], templates: Collection[str], penalties: Penalties | None = None
) -> NDArray[np.float64]:
    """[N] the chance to be stable, 0 for what is not new or neither charge-balanced nor an alloy; less `Penalties`.

    Args:
        table: of `chances`.
        new: [N] neither known nor drawn before.
        templates: protostructures that an embedded crystal has.
        penalties: for what is common.
    """
    p = penalties or Penalties()
    n, shares = len(table), known_shares()
    elements = [frozenset(map(int, numbers)) for numbers in table["atomic_numbers"]]
    labels = list(table["protostructure"])
    of_element = Counter(z for zs in elements for z in zs)
    excess = {z: _doublings(c / n, p.most_of_element * max(shares.get(z, 0.0), RARE)) for z, c in of_element.items()}
    of_label = {x: _doublings(c / n, p.most_of_prototype) for x, c in Counter(labels).items()}
    of_system = {x: _doublings(c / n, p.most_of_system) for x, c in Counter(elements).items()}
    taken = [
        p.element * max(excess[z] for z in zs)
        + p.prototype * of_label[label]
        + p.system * of_system[zs]
        + p.no_template * (label not in templates)
        + p.no_symmetry * (group == 1)
        for zs, label, group in zip(elements, labels, table["space_group"], strict=True)
    ]
    chance = sum(weight * table[name].to_numpy(np.float64) for name, weight in WEIGHTS.items())
    return np.asarray(chance * (new & table[BALANCED].to_numpy(bool)) - np.array(taken), dtype=np.float64)


def _doublings(share: float, most: float) -> float:
    return max(math.log2(share / most), 0.0)


def new_draws(table: pd.DataFrame, known: KnownCrystals) -> NDArray[np.bool_]:
    """[N] neither known nor a repetition of an earlier row."""
    first = ~table["crystal_key"].duplicated().to_numpy()
    rows: Sequence[tuple[str, int, Sequence[int]]] = list(
        zip(table["crystal_key"], table["space_group"], table["atomic_numbers"], strict=True)
    )
    return np.array([fresh and not known.reason(*row) for fresh, row in zip(first, rows, strict=True)], dtype=bool)
