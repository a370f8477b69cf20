"""What is known of a property: its unit, its physical bounds, and the scale on which models see it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Transform = Literal["identity", "log"]
Readout = Literal["mean", "sum", "localised", "tensor"]


@dataclass(frozen=True)
class PropertySpec:
    """One property of a crystal.

    Attributes:
        name: column name, the same everywhere.
        unit: unit of the stored values; empty if dimensionless or unknown.
        description: one line.
        transform: models see the value itself or its natural logarithm.
        lower, upper: values outside are wrong labels, not rare ones; None for no bound.
        readout: how a crystal's value follows from its atoms' (`generators.structures.readout`).
        symmetry: index symmetry of a tensor, for instance ``ij=ji``.

    Raises:
        ValueError: unknown transform or read-out, bounds out of order, a logarithm of what may be negative, or a
            tensor without symmetry.
    """

    name: str
    unit: str = ""
    description: str = ""
    transform: Transform = "identity"
    lower: float | None = None
    upper: float | None = None
    readout: Readout = "mean"
    symmetry: str = ""

    def __post_init__(self) -> None:
        if self.transform not in get_args(Transform):
            known = ", ".join(get_args(Transform))
            raise ValueError(f"transform={self.transform!r} of {self.name} is unknown: use one of {known}")
        if self.readout not in get_args(Readout):
            raise ValueError(f"readout={self.readout!r} of {self.name}: use one of {', '.join(get_args(Readout))}")
        if (self.readout == "tensor") != bool(self.symmetry):
            raise ValueError(f"symmetry={self.symmetry!r} of {self.name}: tensors have one, and nothing else has")
        if self.lower is not None and self.upper is not None and self.lower >= self.upper:
            raise ValueError(f"lower={self.lower} of {self.name}: must be below upper={self.upper}")
        if self.transform == "log" and (self.lower is None or self.lower < 0):
            raise ValueError(f"lower={self.lower} of {self.name}: transform='log' needs a bound of 0 or more")

    def to_model(self, x: Tensor) -> Tensor:
        """Values on the scale that models see; NaN stays NaN, and a logarithm of 0 or less is NaN."""
        if self.transform == "log":
            return torch.where(x > 0, x, torch.nan).log()
        return x

    def from_model(self, y: Tensor) -> Tensor:
        """Inverse of `to_model`."""
        return y.exp() if self.transform == "log" else y

    def plausible(self, x: Tensor) -> Tensor:
        """Bool, same shape: finite, inside the bounds, and with a logarithm where one is taken."""
        low = -math.inf if self.lower is None else self.lower
        high = math.inf if self.upper is None else self.upper
        return torch.isfinite(self.to_model(x)) & (x >= low) & (x <= high)

    def title(self) -> str:
        """For axes: ``formation energy per atom (eV/atom)``."""
        words = self.name.replace("_", " ")
        return f"{words} ({self.unit})" if self.unit else words

    def problem(self, value: float) -> str:
        """Why ``value`` cannot be a label, or an empty string; NaN means unknown and is no problem."""
        if math.isnan(value):
            return ""
        if math.isinf(value):
            return f"{self.name}={value}: is not finite"
        low = -math.inf if self.lower is None else self.lower
        high = math.inf if self.upper is None else self.upper
        if not low <= value <= high or (self.transform == "log" and value == 0):
            return f"{self.name}={value:g}: outside [{low:g}, {high:g}] {self.unit}".rstrip()
        return ""


_KNOWN = {
    spec.name: spec
    for spec in (
        PropertySpec(
            "formation_energy_per_atom",
            "eV/atom",
            "Energy against the elements' ground states",
            "identity",
            -10,
            10,
        ),
        PropertySpec("volume_per_atom", "Å^3", "Cell volume over number of atoms", "log", 0, 1000),
        PropertySpec(
            "magnetization_density",
            "µB/Å^3",
            "Sum of absolute site moments over cell volume",
            "identity",
            0,
            2,
        ),
        PropertySpec("bulk_modulus", "GPa", "Isothermal bulk modulus at 0 K", "log", 0, 2000),
        PropertySpec("shear_modulus", "GPa", "Voigt-Reuss-Hill average", "log", 0, 2000),
        PropertySpec("e_above_hull", "eV/atom", "Energy above the convex hull of its scale", "identity", -5, 15),
        PropertySpec("band_gap", "eV", "Fundamental gap; 0 for metals", "identity", 0, 25, "localised"),
        *(
            PropertySpec(name, "", f"{title} dielectric tensor", "log", 0, None, "tensor", "ij=ji")
            for name, title in (("e_electronic", "Electronic"), ("e_total", "Total static"))
        ),
        PropertySpec("refractive_index", "", "Average electronic refractive index", "log", 0, 200),
    )
}


def known_property(name: str) -> PropertySpec:
    """The registered property, or for any other name a plain one: no transform, no bounds, no unit."""
    return _KNOWN.get(name) or PropertySpec(name)


def known_properties() -> tuple[str, ...]:
    """Names of the registered properties."""
    return tuple(_KNOWN)
