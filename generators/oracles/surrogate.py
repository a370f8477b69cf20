"""The trained surrogate as an oracle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from data.orbit_batch import OrbitBatch
from data.properties import known_property
from data.prototype_table import PrototypeTable
from data.wyckoff import wyckoff_table
from generators.checkpoints import load_checkpoint
from generators.oracles.base import OracleResult
from generators.oracles.hit_probability import log_inside
from generators.oracles.surrogate_module import SurrogateModule
from generators.wish import Interval


class SurrogateOracle:
    """Mean and calibrated standard deviation from prototype and elements; geometry is not looked at.

    Crystals with an element or a prototype that the training data lack are still predicted, and flagged
    (`out_of_domain`).
    """

    name = "surrogate"
    scale = "CHGNet 0.3.0"

    def __init__(self, module: SurrogateModule) -> None:
        self.module = module.eval()
        self.properties = module.properties

    @classmethod
    def load(cls, path: Path) -> SurrogateOracle:
        """From a checkpoint file. Raises ValueError in one line for anything that is not one."""
        config, state = load_checkpoint(path, "surrogate")
        return cls(SurrogateModule.from_export(config, state))

    @torch.no_grad()
    def predict(self, table: PrototypeTable, row: Tensor, elements: Tensor) -> OracleResult:
        """Predictions for decorations: rows of ``table`` [B] and elements [B, K]."""
        mean, std = self.module(row, elements, table)
        values, stds = {}, {}
        for p, name in enumerate(self.properties):
            spec = known_property(name)
            center, scale = self.module.center[p], self.module.scale[p]
            middle = (mean[:, p] * scale + center).double()
            width = (std[:, p] * scale).double()
            values[name] = spec.from_model(middle)
            # For a logarithm the standard deviation is carried over to first order.
            stds[name] = width * values[name] if spec.transform == "log" else width
        n = len(row)
        return OracleResult(values, stds, torch.ones(n, dtype=torch.bool), ("",) * n)

    def evaluate(self, batch: OrbitBatch) -> OracleResult:
        """Predictions for crystals whose space group and letters belong to a training prototype.

        Crystals of other prototypes are not valid (reason ``unknown prototype``).
        """
        table = self.module.table
        rows = {_signature(p.space_group, p.letters): i for i, p in enumerate(table.prototypes)}
        crystals = batch.to_crystals()
        row = torch.tensor([rows.get(_signature(c.space_group, c.letters), -1) for c in crystals])
        known = row >= 0
        elements = torch.zeros(len(batch), table.mask.shape[1], dtype=torch.long)
        k = min(elements.shape[1], batch.atomic_number.shape[1])
        elements[:, :k] = batch.atomic_number[:, :k]
        nan = torch.full((len(batch),), torch.nan, dtype=torch.float64)
        values = {name: nan.clone() for name in self.properties}
        stds = {name: torch.zeros_like(nan) for name in self.properties}
        if bool(known.any()):
            part = self.predict(table, row[known], elements[known])
            for name in self.properties:
                values[name][known], stds[name][known] = part.values[name], part.std[name]
        reason = tuple("" if ok else "unknown prototype" for ok in known.tolist())
        return OracleResult(values, stds, known, reason)

    def log_hit_probability(self, result: OracleResult, intervals: Mapping[str, Interval]) -> Tensor:
        """[B] log-probability that every interval holds, properties taken as independent normals.

        Logarithms keep the order far in the tails, where probabilities underflow.
        """
        total = torch.zeros(len(result.valid), dtype=torch.float64)
        for name, interval in intervals.items():
            total = total + log_inside(result.values[name], result.std[name], interval)
        return total

    def out_of_domain(self, table: PrototypeTable, row: Tensor, elements: Tensor) -> Tensor:
        """[B] bool: an element or prototype that was not in the training data."""
        known = torch.zeros(119, dtype=torch.bool)
        known[[0, *self.module.known_elements]] = True
        names = set(self.module.table.names)
        new = torch.tensor([name not in names for name in table.names])
        return ~known[elements].all(-1) | new[row]


def _signature(space_group: int, letters: tuple[str, ...]) -> tuple[object, ...]:
    wyckoff_table().index(space_group, letters[0])
    return (space_group, *letters)
