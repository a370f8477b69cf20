"""Energy above the convex hull: many queries at once, on one energy scale.

The lower hull at a composition is the largest of the planes that lie below all reference compounds; each plane
is a set of chemical potentials. Planes of a chemical system come from Qhull (Barber et al., ACM Trans. Math. Softw.
22, 469 (1996)) and are kept; systems of more than six elements are solved one composition at a time as the
equivalent linear programme. `pymatgen.analysis.phase_diagram.PhaseDiagram` gives the same numbers (tested), ten
times slower.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pymatgen.core import Composition, Element
from scipy.optimize import linprog
from scipy.spatial import ConvexHull, QhullError

from data.orbit_batch import OrbitBatch

N_ELEMENTS = 119
MAX_QHULL_ELEMENTS = 6
SAME_COMPOSITION = 1e-6
_MAX_SYSTEMS = 4096

Fractions = NDArray[np.float64]
"""[N, 119] share of each element, by atomic number; rows sum to 1."""


def fractions_of(compositions: Iterable[Composition | Mapping[Any, float] | str]) -> Fractions:
    """Element shares of formulas or compositions. Raises ValueError for what is not a formula."""
    rows = []
    for formula in compositions:
        row = np.zeros(N_ELEMENTS)
        try:
            for species, amount in Composition(formula).items():
                if not 1 <= species.Z < N_ELEMENTS:
                    raise ValueError(f"{species} is not an element")
                row[species.Z] += amount
        except (ValueError, TypeError) as error:
            raise ValueError(f"formula={formula!r}: not a chemical formula ({error})") from None
        if row.sum() <= 0:
            raise ValueError(f"formula={formula!r}: has no atoms")
        rows.append(row / row.sum())
    return np.array(rows).reshape(-1, N_ELEMENTS)


def fractions_of_batch(batch: OrbitBatch) -> Fractions:
    """Element shares of crystals."""
    counts = torch.zeros(len(batch), N_ELEMENTS, dtype=torch.float64)
    counts.scatter_add_(1, batch.atomic_number.cpu(), batch.multiplicity.double().cpu())
    return (counts / counts.sum(1, keepdim=True)).numpy()


@dataclass(frozen=True, eq=False)
class _System:
    """Compounds of one chemical system: shares [n, m] of its m elements, energies [n] and rows [n] of the hull."""

    shares: NDArray[np.float64]
    energy: NDArray[np.float64]
    rows: NDArray[np.int64]


class Hull:
    """Lower convex hull of formation energies on one energy scale.

    Pure elements are at 0 by definition of a formation energy and need not be given; references above 0 never
    lie on the hull. Of several entries of one composition the lowest counts.

    Args:
        fractions: [N, 119] shares of the reference compounds (`fractions_of`).
        energy: [N] formation energies, eV/atom.
        scale: which potential or functional with which corrections, for instance ``CHGNet 0.3.0``.
        names: N names for decompositions; the default is their formulas.
        elements: atomic numbers that the references cover; default those that occur.

    Raises:
        ValueError: energies that are not finite, or lengths that differ.
    """

    def __init__(
        self,
        fractions: Fractions,
        energy: NDArray[np.float64],
        scale: str,
        names: Sequence[str] | None = None,
        elements: Iterable[int] | None = None,
    ) -> None:
        if len(fractions) != len(energy) or (names is not None and len(names) != len(energy)):
            raise ValueError(f"energy: {len(energy)} values for {len(fractions)} references")
        if not np.isfinite(energy).all():
            raise ValueError(f"energy of reference {int(np.flatnonzero(~np.isfinite(energy))[0])}: must be finite")
        self.scale = scale
        present = np.flatnonzero((fractions > 0).any(0)).tolist() if elements is None else sorted(elements)
        self.elements = frozenset(int(z) for z in present)
        pure = np.eye(N_ELEMENTS)[present]
        self.fractions = np.concatenate([pure, fractions])
        self.energy = np.concatenate([np.zeros(len(pure)), np.asarray(energy, dtype=np.float64)])
        self._names = None if names is None else [*(Element.from_Z(z).symbol for z in present), *names]
        self._rows: dict[tuple[int, ...], list[int]] = {}
        kept: set[bytes] = set()
        rounded = np.round(self.fractions, 6)
        for i in np.argsort(self.energy, kind="stable").tolist():
            key = rounded[i].tobytes()
            if key not in kept and self.energy[i] <= 0:
                kept.add(key)
                self._rows.setdefault(_elements(self.fractions[i]), []).append(i)
        self._system = lru_cache(maxsize=_MAX_SYSTEMS)(self._make_system)
        self._planes = lru_cache(maxsize=_MAX_SYSTEMS)(self._make_planes)

    def __len__(self) -> int:
        """Distinct compositions that take part."""
        return sum(len(rows) for rows in self._rows.values())

    # -- queries ----------------------------------------------------------------------------------------

    def hull_energy(self, fractions: Fractions) -> NDArray[np.float64]:
        """[N] eV/atom of the most stable mixture at each composition; NaN where an element has no reference."""
        result = np.full(len(fractions), np.nan)
        for on, rows in self._by_system(fractions).items():
            shares = fractions[rows][:, list(on)]
            planes = self._planes(on)
            if planes is not None:
                result[rows] = (shares @ planes.T).max(1)
            else:
                system = self._system(on)
                result[rows] = [_mixture(system, share)[0] for share in shares]
        return result

    def e_above_hull(self, fractions: Fractions, energy: NDArray[np.float64], scale: str) -> NDArray[np.float64]:
        """[N] eV/atom above the hull of the references (below 0: more stable than all of them).

        Raises:
            ValueError: energies on another scale than the references.
        """
        self._same_scale(scale)
        return np.asarray(energy, dtype=np.float64) - self.hull_energy(fractions)

    def decomposition_energy(
        self, fractions: Fractions, energy: NDArray[np.float64], scale: str
    ) -> NDArray[np.float64]:
        """[N] eV/atom relative to the best mixture of *other* compositions.

        Equal to the energy above the hull for unstable compounds; for stable ones it is negative, the depth by
        which they are stable (Bartel et al., npj Comput. Mater. 6, 97 (2020)).
        """
        self._same_scale(scale)
        result = np.full(len(fractions), np.nan)
        for on, rows in self._by_system(fractions).items():
            system = self._system(on)
            for row in rows:
                share = fractions[row, list(on)]
                other = np.abs(system.shares - share).max(1) > SAME_COMPOSITION
                rest = _System(system.shares[other], system.energy[other], system.rows[other])
                if len(on) > 1:
                    result[row] = energy[row] - _mixture(rest, share)[0]
        return result

    def decomposition(self, fractions: Fractions) -> list[dict[str, float]]:
        """Per composition the competing compounds with their shares of the atoms; empty if unknown."""
        result: list[dict[str, float]] = [{} for _ in fractions]
        for on, rows in self._by_system(fractions).items():
            system = self._system(on)
            for row in rows:
                amounts = _mixture(system, fractions[row, list(on)])[1]
                parts = np.flatnonzero(amounts > 1e-6)
                result[row] = {self._name(int(system.rows[p])): float(amounts[p]) for p in parts}
        return result

    def _name(self, row: int) -> str:
        return _formula(self.fractions[row]) if self._names is None else self._names[row]

    # -- chemical systems -------------------------------------------------------------------------------

    def _by_system(self, fractions: Fractions) -> dict[tuple[int, ...], list[int]]:
        groups: dict[tuple[int, ...], list[int]] = {}
        for row, share in enumerate(fractions):
            on = _elements(share)
            if self.elements.issuperset(on):
                groups.setdefault(on, []).append(row)
        return groups

    def _make_system(self, on: tuple[int, ...]) -> _System:
        subsets = (s for n in range(1, len(on) + 1) for s in combinations(on, n))
        rows = np.array([row for subset in subsets for row in self._rows.get(subset, ())], dtype=np.int64)
        return _System(self.fractions[rows][:, list(on)], self.energy[rows], rows)

    def _make_planes(self, on: tuple[int, ...]) -> NDArray[np.float64] | None:
        """[F, m] chemical potentials (eV/atom) of the facets; None if the system is too large for them."""
        system, m = self._system(on), len(on)
        flat = np.zeros((1, m))
        if not (system.energy < -1e-9).any():
            return flat
        if m == 1:
            return flat + system.energy.min()
        if m > MAX_QHULL_ELEMENTS:
            return None
        top = np.append(np.full(m - 1, 1 / m), 1.0)  # closes the hull from above
        points = np.column_stack([system.shares[:, 1:], system.energy])
        try:
            equations = ConvexHull(np.concatenate([points, top[None]])).equations
        except QhullError:
            return None
        lower = equations[equations[:, -2] < -1e-9]
        first = -lower[:, -1:] / lower[:, -2:-1]
        return np.column_stack([first, first - lower[:, :-2] / lower[:, -2:-1]])

    def _same_scale(self, scale: str) -> None:
        if scale != self.scale:
            raise ValueError(
                f"scale={scale!r}: the hull's energies are on {self.scale!r}, two scales never meet in one hull"
            )


def _mixture(system: _System, share: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Lowest energy (eV/atom) of a mixture with element shares [m], and the shares [n] of its compounds."""
    solution = linprog(system.energy, A_eq=system.shares.T, b_eq=share, method="highs")
    if solution.status != 0:
        raise RuntimeError(f"hull: {solution.message}")
    return float(solution.fun), np.asarray(solution.x)


def _elements(share: NDArray[np.float64]) -> tuple[int, ...]:
    return tuple(np.flatnonzero(share > 0).tolist())


def _formula(share: NDArray[np.float64]) -> str:
    amounts = {Element.from_Z(z).symbol: round(float(share[z]), 6) for z in _elements(share)}
    return str(Composition(Composition(amounts).get_integer_formula_and_factor(max_denominator=100)[0]).reduced_formula)
