"""Relaxation of many crystals at once, within their symmetry, by a differentiable potential.

The variables are those that the space group leaves free: the lattice chart and the orbits' free
coordinates. A rock salt has one, an elpasolite two. Free relaxation is the same thing for a crystal that is
written in P1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from data.cells import CellBatch, decode
from data.lattice import strain_to_lattice
from data.orbit_batch import OrbitBatch
from generators.oracles.crystal_graph import generic_cells
from generators.oracles.minimize import minimize
from generators.oracles.potential import Potential

EV_PER_A3_IN_GPA = 160.21766208
_BULK_MODULUS_GUESS = 100.0 / EV_PER_A3_IN_GPA
_FORCE_CONSTANT_GUESS = 6.0
MAX_VOLUME_PER_ATOM = 150.0
MAX_LOG_VOLUME_CHANGE = 1.2


@dataclass(frozen=True)
class RelaxationSettings:
    """When a relaxation is done.

    Attributes:
        max_force: eV/Å, per site along each free coordinate.
        max_stress: GPa, per free component of the lattice chart.
        max_evaluations: energy and gradient evaluations per crystal.
        fix_volume: keep the volume; the shape of the cell and the coordinates relax.
    """

    max_force: float = 0.1
    max_stress: float = 0.5
    max_evaluations: int = 60
    fix_volume: bool = False

    def __post_init__(self) -> None:
        for name in ("max_force", "max_stress", "max_evaluations"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be positive")


@dataclass(frozen=True, eq=False)
class RelaxationResult:
    """B relaxed crystals.

    Attributes:
        batch: relaxed crystals (the start where not valid).
        energy_per_atom: [B] eV/atom on the potential's scale; NaN where not valid.
        volume_per_atom: [B] Å^3.
        max_force: [B] eV/Å; max_stress: [B] GPa, at the end.
        n_evaluations: [B].
        valid: [B] bool; false if collapsed, exploded, isolated or not converged.
        reason: B strings, empty where valid.
    """

    batch: OrbitBatch
    energy_per_atom: Tensor
    volume_per_atom: Tensor
    max_force: Tensor
    max_stress: Tensor
    n_evaluations: Tensor
    valid: Tensor
    reason: tuple[str, ...]


def relax(batch: OrbitBatch, potential: Potential, settings: RelaxationSettings | None = None) -> RelaxationResult:
    """Minimise the energy over the free parameters of every crystal; ``batch`` is not changed."""
    settings = settings or RelaxationSettings()
    b, k = batch.mask.shape
    batch = batch.replace(strain=batch.strain.double(), coordinates=batch.coordinates.double())
    start = decode(batch)
    volume, n_atoms = start.volume, start.n_atoms.double()
    axes = strain_to_lattice(batch.space_group, batch.strain).norm(dim=-1)  # [B, 3]
    multiplicity = batch.multiplicity.double().clamp(min=1)
    force_unit = (multiplicity[:, :, None] * axes[:, None, :]).reshape(b, 3 * k)
    stress_unit = (volume / EV_PER_A3_IN_GPA)[:, None].expand(b, 6)

    lattice_curvature = (volume * _BULK_MODULUS_GUESS)[:, None].expand(b, 6)
    site_curvature = _FORCE_CONSTANT_GUESS * (multiplicity[:, :, None] * axes[:, None, :] ** 2)
    max_step = torch.cat([torch.full((b, 6), 0.25), (0.2 / axes).repeat(1, k)], 1).double()
    tolerance = torch.cat([stress_unit * settings.max_stress, force_unit * settings.max_force], 1)
    reasons = [""] * b

    def objective(rows: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        variables = x.detach().requires_grad_()
        part = _with_variables(batch.select(rows), variables)
        output = potential.evaluate(decode(part), generic=generic_cells(part))
        energy = output.energy
        gradient = torch.autograd.grad(energy.sum(), variables)[0] if energy.requires_grad else torch.zeros_like(x)
        for row, reason in zip(rows.tolist(), output.reason, strict=True):
            reasons[row] = reason
        return energy.detach().double(), gradient.double(), output.valid

    lattice_free = batch.strain_mask.clone()
    lattice_free[:, 0] &= not settings.fix_volume
    x0 = torch.cat([batch.strain, batch.coordinates.reshape(b, 3 * k)], 1)
    minimum = minimize(
        objective,
        x0,
        torch.cat([lattice_free, batch.coordinate_mask.reshape(b, 3 * k)], 1),
        torch.cat([lattice_curvature, site_curvature.reshape(b, 3 * k)], 1),
        tolerance,
        max_step,
        settings.max_evaluations,
    )
    relaxed = _with_variables(batch, minimum.x)
    cells = decode(relaxed)
    reasons = _reasons(minimum.converged, minimum.energy, cells, volume, reasons)
    valid = torch.tensor([not reason for reason in reasons])
    gradient = minimum.gradient.abs()
    nan = torch.full_like(volume, torch.nan)
    return RelaxationResult(
        batch=relaxed,
        energy_per_atom=torch.where(valid, minimum.energy / n_atoms, nan),
        volume_per_atom=cells.volume / n_atoms,
        max_force=(gradient[:, 6:] / force_unit).amax(-1) if k else nan,
        max_stress=(gradient[:, :6] / stress_unit).amax(-1),
        n_evaluations=minimum.n_evaluations,
        valid=valid,
        reason=tuple(reasons),
    )


def _with_variables(batch: OrbitBatch, x: Tensor) -> OrbitBatch:
    b, k = batch.mask.shape
    return batch.replace(strain=x[:, :6], coordinates=x[:, 6:].reshape(b, k, 3))


def _reasons(converged: Tensor, energy: Tensor, cells: CellBatch, start_volume: Tensor, last: list[str]) -> list[str]:
    per_atom = cells.volume / cells.n_atoms
    change = torch.log(cells.volume / start_volume)
    result = []
    for i, reason in enumerate(last):
        if not torch.isfinite(energy[i]):
            result.append(reason or "no energy")
        elif per_atom[i] > MAX_VOLUME_PER_ATOM or change[i] > MAX_LOG_VOLUME_CHANGE:
            result.append("exploded")
        elif change[i] < -MAX_LOG_VOLUME_CHANGE:
            result.append("collapsed")
        elif not converged[i]:
            result.append("not converged")
        else:
            result.append("")
    return result


def bulk_modulus(
    batch: OrbitBatch, potential: Potential, strain: float = 0.02, settings: RelaxationSettings | None = None
) -> Tensor:
    """[B] GPa, from the pressures at volumes ``exp(+-strain)`` around each (relaxed) crystal.

    Args:
        batch: relaxed crystals.
        potential: what they were relaxed with.
        strain: change of the logarithm of the volume.
        settings: relax shape and coordinates at both volumes; None scales isotropically with clamped
            free coordinates, which is an upper bound where there are any.

    Returns:
        NaN where a cell cannot be evaluated or does not relax.
    """
    pressures = []
    volume = decode(batch).volume
    for sign in (-1.0, 1.0):
        shifted = batch.strain.clone()
        shifted[:, 0] += sign * strain
        moved, valid = batch.replace(strain=shifted), torch.ones(len(batch), dtype=torch.bool)
        if settings is not None:
            result = relax(moved, potential, replace(settings, fix_volume=True))
            moved, valid = result.batch, result.valid
        variable = moved.strain.detach().clone().requires_grad_()
        moved = moved.replace(strain=variable)
        output = potential.evaluate(decode(moved), generic=generic_cells(moved))
        gradient = torch.autograd.grad(output.energy.sum(), variable)[0][:, 0]
        value = -gradient / (volume * float(torch.exp(torch.tensor(sign * strain)))) * EV_PER_A3_IN_GPA
        pressures.append(torch.where(output.valid & valid, value, torch.full_like(value, torch.nan)))
    return ((pressures[0] - pressures[1]) / (2 * strain)).detach()
