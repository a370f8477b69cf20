"""What an oracle is: crystals in, values with uncertainty, validity and reason out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from data.orbit_batch import OrbitBatch


@dataclass(frozen=True, eq=False)
class OracleResult:
    """Values for B crystals, in the order of the input.

    Attributes:
        values: per property [B], in the property's unit; NaN where not valid.
        std: per property [B], one standard deviation in the same unit; 0 where the oracle gives none.
        valid: [B] bool.
        reason: B strings, empty where valid.
        relaxed: the crystals at which the values hold, or None if the oracle does not move atoms.
        n_evaluations: [B] costly evaluations spent, or None.
        max_force: [B] eV/Å that is left along any free coordinate, or None; max_stress: [B] GPa, the same.
    """

    values: dict[str, Tensor]
    std: dict[str, Tensor]
    valid: Tensor
    reason: tuple[str, ...]
    relaxed: OrbitBatch | None = None
    n_evaluations: Tensor | None = None
    max_force: Tensor | None = None
    max_stress: Tensor | None = None


class Oracle(Protocol):
    """Anything that judges crystals.

    Attributes:
        name: short name for tables and reports.
        properties: names of the properties it gives.
        scale: energy scale, for instance ``CHGNet 0.3.0``; empty if it gives no energies.
    """

    name: str
    properties: tuple[str, ...]
    scale: str

    def evaluate(self, batch: OrbitBatch) -> OracleResult:
        """Judge every crystal of ``batch``. Inputs are not changed; the order is kept."""
        ...
