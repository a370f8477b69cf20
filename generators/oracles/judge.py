"""The judge of the first loop: CHGNet relaxation within symmetry, energies against CHGNet's own elements."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import torch
from pymatgen.core import Element
from torch import Tensor

from data.cells import decode
from data.contact import covalent_radii, shortest_ratio
from data.orbit_batch import OrbitBatch
from generators.oracles.base import OracleResult
from generators.oracles.chgnet_potential import SCALE, CHGNetPotential
from generators.oracles.crystal_graph import generic_cells
from generators.oracles.relaxation import RelaxationSettings, bulk_modulus, relax

MIN_DISTANCE_RATIO = 0.6
"""Shortest distance over the sum of covalent radii below which a relaxed crystal counts as collapsed."""
PROPERTIES = ("formation_energy_per_atom", "volume_per_atom", "magnetization_density", "bulk_modulus")


@lru_cache(maxsize=1)
def elemental_references() -> dict[int, float]:
    """Energy per atom (eV) of every element's lowest structure on CHGNet's scale, by atomic number.

    Made by ``scripts/build_elemental_references.py``.
    """
    text = (files("data.tables") / "elemental_references.json").read_text(encoding="utf-8")
    rows = json.loads(text)["elements"]
    return {int(Element(symbol).Z): float(row["energy_per_atom"]) for symbol, row in rows.items()}


def formation_energy(batch: OrbitBatch, energy_per_atom: Tensor, references: dict[int, float]) -> Tensor:
    """[B] eV/atom; NaN where an element has no reference."""
    table = torch.full((119,), torch.nan, dtype=torch.float64)
    for z, energy in references.items():
        table[z] = energy
    table[0] = 0.0
    weight = batch.multiplicity.double()
    elements = (table[batch.atomic_number] * weight).sum(-1) / weight.sum(-1)
    return energy_per_atom - elements


@dataclass(frozen=True)
class JudgeSettings:
    """What the judge measures and how tightly it relaxes."""

    max_force: float = 0.1
    max_stress: float = 0.5
    max_evaluations: int = 60
    with_bulk_modulus: bool = True


class ChgnetJudge:
    """Relaxes within symmetry and measures; implements `generators.oracles.base.Oracle`.

    Magnetization density is the sum of CHGNet's absolute site moments over the volume, that is for
    ferromagnetic order. The bulk modulus is given for cubic crystals without free coordinates only, where two
    more evaluations give it exactly; elsewhere it is NaN.
    """

    name = "chgnet"
    scale = SCALE
    properties = PROPERTIES

    def __init__(self, settings: JudgeSettings | None = None, device: str = "cpu") -> None:
        self.settings = settings or JudgeSettings()
        self.potential = CHGNetPotential(device)

    def evaluate(self, batch: OrbitBatch) -> OracleResult:
        """Relax and judge; ``relaxed`` holds the crystals that the values belong to."""
        energy, result = self.measure(batch)
        assert result.relaxed is not None
        result.values["formation_energy_per_atom"] = formation_energy(result.relaxed, energy, elemental_references())
        return result

    def measure(self, batch: OrbitBatch) -> tuple[Tensor, OracleResult]:
        """(energy per atom [B] on CHGNet's absolute scale, everything that needs no references)."""
        settings = self.settings
        relaxed = relax(
            batch,
            self.potential,
            RelaxationSettings(settings.max_force, settings.max_stress, settings.max_evaluations),
        )
        cells = decode(relaxed.batch)
        close = shortest_ratio(cells, covalent_radii()) < MIN_DISTANCE_RATIO
        reason = tuple(r or ("collapsed" if c else "") for r, c in zip(relaxed.reason, close.tolist(), strict=True))
        valid = torch.tensor([not r for r in reason])
        nan = torch.full((len(batch),), torch.nan, dtype=torch.float64)
        magnetization, modulus = nan.clone(), nan.clone()
        rows = valid.nonzero().squeeze(-1)
        if len(rows):
            good = relaxed.batch.select(rows)
            with torch.no_grad():
                part = decode(good)
                moment = self.potential.evaluate(
                    part, magnetic_moments=True, generic=generic_cells(good)
                ).magnetic_moment
            assert moment is not None
            total = torch.zeros(len(rows), dtype=torch.float64).index_add(0, part.owner, moment.double())
            magnetization[rows] = total / part.volume
            if settings.with_bulk_modulus:
                cubic = (good.strain_mask.sum(-1) == 1) & ~good.coordinate_mask.flatten(1).any(-1)
                if bool(cubic.any()):
                    modulus[rows[cubic]] = bulk_modulus(good.select(cubic), self.potential)
        values = {
            "volume_per_atom": torch.where(valid, relaxed.volume_per_atom, nan),
            "magnetization_density": magnetization,
            "bulk_modulus": modulus,
        }
        energy = torch.where(valid, relaxed.energy_per_atom, nan)
        zero = torch.zeros_like(nan)
        std = dict.fromkeys(PROPERTIES, zero)
        return energy, OracleResult(values, std, valid, reason, relaxed.batch, relaxed.n_evaluations)
