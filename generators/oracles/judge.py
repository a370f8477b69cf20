"""Judges that relax within symmetry by a potential; energies count against the same potential's elements."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from types import MappingProxyType

import torch
from pymatgen.core import Element
from torch import Tensor

from data.cells import decode
from data.contact import covalent_radii, shortest_ratio
from data.orbit_batch import OrbitBatch
from generators.oracles.base import OracleResult
from generators.oracles.chgnet_potential import CHGNetPotential
from generators.oracles.crystal_graph import generic_cells
from generators.oracles.potential import Potential
from generators.oracles.relaxation import RelaxationSettings, bulk_modulus, relax
from generators.oracles.sevennet_potential import SevenNetPotential

MIN_DISTANCE_RATIO = 0.6
"""Shortest distance over the sum of covalent radii below which a relaxed crystal counts as collapsed."""
PROPERTIES = ("formation_energy_per_atom", "volume_per_atom", "magnetization_density", "bulk_modulus")


@dataclass(frozen=True)
class ElementalReferences:
    """Energy per atom (eV) of every element's lowest structure, by atomic number, and whose energies they are."""

    scale: str
    energies: Mapping[int, float]


@cache
def _reference_tables() -> dict[str, ElementalReferences]:
    tables = {}
    for file in files("data.tables").iterdir():
        if file.name.startswith("elemental_references") and file.name.endswith(".json"):
            card = json.loads(file.read_text(encoding="utf-8"))
            energies = {int(Element(x).Z): float(row["energy_per_atom"]) for x, row in card["elements"].items()}
            tables[card["scale"]] = ElementalReferences(card["scale"], MappingProxyType(energies))
    return tables


def elemental_references(scale: str) -> ElementalReferences:
    """The elements on one energy scale. Made by ``scripts/build_elemental_references.py``.

    Raises:
        ValueError: no table of that scale.
    """
    tables = _reference_tables()
    if scale not in tables:
        raise ValueError(f"scale={scale!r}: no elemental references, there are {', '.join(sorted(tables))}")
    return tables[scale]


def formation_energy(batch: OrbitBatch, energy_per_atom: Tensor, references: ElementalReferences, scale: str) -> Tensor:
    """[B] eV/atom; NaN where an element has no reference.

    Args:
        batch: the crystals.
        energy_per_atom: [B] eV/atom on ``scale``.
        references: elements on the same scale.
        scale: energy scale of ``energy_per_atom``.

    Raises:
        ValueError: energies and references of two scales.
    """
    if references.scale != scale:
        raise ValueError(f"scale={scale!r}: the references are {references.scale!r}, take those of the same scale")
    table = torch.full((119,), torch.nan, dtype=torch.float64)
    for z, energy in references.energies.items():
        table[z] = energy
    table[0] = 0.0
    weight = batch.multiplicity.double()
    elements = (table[batch.atomic_number] * weight).sum(-1) / weight.sum(-1)
    return energy_per_atom - elements


@dataclass(frozen=True)
class JudgeSettings:
    """What the judge measures and how tightly it relaxes.

    Attributes:
        all_bulk_moduli: of every crystal, by two more relaxations at fixed volumes, not only where it is exact
            without (`exact_bulk_modulus`).
    """

    max_force: float = 0.1
    max_stress: float = 0.5
    max_evaluations: int = 60
    with_bulk_modulus: bool = True
    all_bulk_moduli: bool = False


def exact_bulk_modulus(batch: OrbitBatch) -> Tensor:
    """[B] bool: cubic without free coordinates, so that pressures of scaled cells give the bulk modulus."""
    return (batch.strain_mask.sum(-1) == 1) & ~batch.coordinate_mask.flatten(1).any(-1)


class PotentialJudge:
    """Relaxes within symmetry and measures; implements `generators.oracles.base.Oracle`.

    Magnetization density is the sum of the potential's absolute site moments over the volume, that is for
    ferromagnetic order; it is left out for a potential without moments. The bulk modulus is given for cubic
    crystals without free coordinates only, where two more evaluations give it exactly; elsewhere it is NaN, unless
    the settings ask for all of them.
    """

    def __init__(self, potential: Potential, name: str, settings: JudgeSettings | None = None) -> None:
        self.potential = potential
        self.name = name
        self.scale = potential.scale
        self.settings = settings or JudgeSettings()
        self.properties = tuple(p for p in PROPERTIES if potential.gives_moments or p != "magnetization_density")

    def evaluate(self, batch: OrbitBatch) -> OracleResult:
        """Relax and judge; ``relaxed`` holds the crystals that the values belong to."""
        energy, result = self.measure(batch)
        assert result.relaxed is not None
        references = elemental_references(self.scale)
        values = formation_energy(result.relaxed, energy, references, self.scale)
        known = torch.isfinite(values) | ~result.valid
        reason = tuple(r if k else "no elemental reference" for r, k in zip(result.reason, known.tolist(), strict=True))
        blank = {name: torch.where(known, value, torch.nan) for name, value in result.values.items()}
        blank["formation_energy_per_atom"] = values
        return replace(result, values=blank, valid=result.valid & known, reason=reason)

    def measure(self, batch: OrbitBatch) -> tuple[Tensor, OracleResult]:
        """(energy per atom [B] on the potential's absolute scale, everything that needs no references)."""
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
            if self.potential.gives_moments:
                magnetization[rows] = self._magnetization(good)
            if settings.with_bulk_modulus:
                cubic = exact_bulk_modulus(good)
                if bool(cubic.any()):
                    modulus[rows[cubic]] = bulk_modulus(good.select(cubic), self.potential)
                if settings.all_bulk_moduli and not bool(cubic.all()):
                    # Tighter than the crystal itself: 0.5 GPa of stress would be 6 % of a modulus of 200 GPa.
                    tight = RelaxationSettings(
                        settings.max_force / 2, settings.max_stress / 2, settings.max_evaluations
                    )
                    modulus[rows[~cubic]] = bulk_modulus(good.select(~cubic), self.potential, settings=tight)
        values = {
            "volume_per_atom": torch.where(valid, relaxed.volume_per_atom, nan),
            "magnetization_density": magnetization,
            "bulk_modulus": modulus,
        }
        values = {name: value for name, value in values.items() if name in self.properties}
        energy = torch.where(valid, relaxed.energy_per_atom, nan)
        std = {name: torch.zeros_like(nan) for name in self.properties}
        return energy, OracleResult(
            values, std, valid, reason, relaxed.batch, relaxed.n_evaluations, relaxed.max_force, relaxed.max_stress
        )

    def _magnetization(self, batch: OrbitBatch) -> Tensor:
        """[B] µB/Å^3."""
        cells = decode(batch)
        with torch.no_grad():
            output = self.potential.evaluate(cells, magnetic_moments=True, generic=generic_cells(batch))
        assert output.magnetic_moment is not None
        total = torch.zeros(len(batch), dtype=torch.float64).index_add(0, cells.owner, output.magnetic_moment.double())
        return total / cells.volume


class ChgnetJudge(PotentialJudge):
    """The judge of the first loop: CHGNet."""

    def __init__(self, settings: JudgeSettings | None = None, device: str = "cpu") -> None:
        super().__init__(CHGNetPotential(device), "chgnet", settings)


class SevenNetJudge(PotentialJudge):
    """The second opinion: SevenNet. Raises ImportError if it is not installed."""

    def __init__(self, settings: JudgeSettings | None = None, device: str = "cpu") -> None:
        super().__init__(SevenNetPotential(device), "sevennet", settings)


JUDGES: dict[str, type[ChgnetJudge] | type[SevenNetJudge]] = {"chgnet": ChgnetJudge, "sevennet": SevenNetJudge}
SCALES = {"chgnet": CHGNetPotential.scale, "sevennet": SevenNetPotential.scale}


def make_judge(potential: str, settings: JudgeSettings | None = None, device: str = "cpu") -> PotentialJudge:
    """The judge of a potential's short name. Raises ValueError for an unknown one."""
    energy_scale(potential)
    return JUDGES[potential](settings, device)


def energy_scale(potential: str) -> str:
    """Energy scale of a potential's short name, without loading it. Raises ValueError for an unknown one."""
    if potential not in SCALES:
        raise ValueError(f"potential={potential!r} is unknown: use one of {', '.join(SCALES)}")
    return SCALES[potential]
