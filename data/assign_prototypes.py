"""Find the prototype of crystals that came without one, and write them on its orbits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from data.crystal import Crystal
from data.dataset import CrystalDataset
from data.equivalent_orders import SAME_BASIN, Reference, polar_origins
from data.lattice import lattice_to_strain, strain_to_lattice
from data.orbit_batch import OrbitBatch
from data.protostructure import protostructure_label
from data.prototypes import Prototype, PrototypeLibrary
from data.symmetry import equivalent_coordinates
from data.wyckoff import wyckoff_table

_SAME_SHAPE = 0.5
"""Norm of the difference of the strains' shape parts (without volume)."""
_GOOD_ENOUGH = 0.05
"""Å; no better spelling is looked for below this."""


@dataclass(frozen=True)
class _Fit:
    crystal: Crystal
    miss: float


def assign_prototypes(dataset: CrystalDataset, library: PrototypeLibrary) -> tuple[CrystalDataset, PrototypeLibrary]:
    """The same crystals, each with a prototype and spelled on that prototype's orbits.

    Rows that have a prototype stay as they are. The others get the nearest prototype of their protostructure;
    where there is none, the crystal itself becomes one, named by its label.

    Returns:
        The data set, and the library with the new prototypes.
    """
    by_label: dict[str, list[Prototype]] = {}
    for prototype in library:
        by_label.setdefault(prototype.label, []).append(prototype)
    crystals, names = dataset.batch.to_crystals(), list(dataset.prototype)
    new: list[Prototype] = []
    taken = {name for p in library for name in (p.name, *p.aliases)}
    for i, crystal in enumerate(crystals):
        if names[i]:
            continue
        label = protostructure_label(crystal)
        known = by_label.setdefault(label, [])
        fits = [(p, fit) for p in known if (fit := fit_prototype(crystal, p)) is not None]
        if fits:
            prototype, best = min(fits, key=lambda pair: pair[1].miss)
            crystals[i] = best.crystal
        else:
            prototype = _as_prototype(crystal, label, taken, dataset.ids[i])
            taken.add(prototype.name)
            known.append(prototype)
            new.append(prototype)
        names[i] = prototype.name
    batch = OrbitBatch.from_crystals(crystals, dataset.batch.coordinates.dtype)
    return replace(dataset, batch=batch, prototype=tuple(names)), library.with_prototypes(new)


def _as_prototype(crystal: Crystal, label: str, taken: set[str], identifier: str) -> Prototype:
    name, count = label, 2
    while name in taken:
        name, count = f"{label}_{count}", count + 1
    return Prototype.from_crystal(name, crystal, f"row {identifier} of the data")


def fit_prototype(crystal: Crystal, prototype: Prototype) -> _Fit | None:
    """``crystal`` on the orbits of ``prototype``, in the spelling nearest to its reference.

    Returns:
        The crystal and the largest distance, Å, by which an orbit misses the reference; None where this exceeds
        what relaxes to the same structure, or the cell has another shape, or the letters differ.
    """
    if crystal.space_group != prototype.space_group or len(crystal.letters) != len(prototype.letters):
        return None
    table = wyckoff_table()
    number = torch.tensor(crystal.space_group)
    lattice = strain_to_lattice(number, torch.tensor(crystal.strain, dtype=torch.float64))
    wanted = Reference(
        prototype.space_group,
        [table.index(prototype.space_group, x) for x in prototype.letters],
        np.asarray(prototype.coordinates, dtype=np.float64),
        lattice.norm(dim=-1).numpy(),
    )
    given = replace(wanted, positions=crystal.positions, coordinates=crystal.coordinate_array())
    start = int(table.position_start[crystal.space_group])
    shape = torch.tensor(prototype.strain[1:], dtype=torch.float64)
    best: _Fit | None = None
    for affine, image in table.cosets(crystal.space_group):
        moved = [start + int(image[p - start]) for p in given.positions]
        if sorted(moved) != sorted(wanted.positions):
            continue
        matrix, shift = affine[:, :3], affine[:, 3].numpy()
        strain = lattice_to_strain(number, torch.linalg.inv(matrix).mT @ lattice)
        if float((strain[1:] - shape).norm()) > _SAME_SHAPE:
            continue
        images = [given.sites(i) @ matrix.numpy().T + shift for i in range(len(moved))]
        for origin in polar_origins(wanted, images[0][0]):
            for order, coordinates, miss in _assignments(wanted, moved, images, origin, crystal, prototype):
                if miss <= SAME_BASIN and (best is None or miss < best.miss):
                    numbers = tuple(crystal.atomic_numbers[i] for i in order)
                    spelled = Crystal(
                        crystal.space_group, prototype.letters, numbers, coordinates, tuple(strain.tolist())
                    )
                    best = _Fit(spelled, miss)
        if best is not None and best.miss < _GOOD_ENOUGH:
            break
    return best


def _assignments(
    wanted: Reference,
    moved: list[int],
    images: list[NDArray[np.float64]],
    origin: NDArray[np.float64],
    crystal: Crystal,
    prototype: Prototype,
) -> Iterator[tuple[list[int], tuple[tuple[float, float, float], ...], float]]:
    """(orbit of the crystal on each orbit of the prototype, coordinates, largest miss) per pairing of the
    elements with the slots."""
    table = wyckoff_table()
    k = len(moved)
    cost = np.full((k, k), np.inf)
    nearest = np.zeros((k, k, 3))
    for i, position in enumerate(moved):
        options = equivalent_coordinates(wanted.space_group, table.letter[position], images[i] + origin)
        for j, target in enumerate(wanted.positions):
            if target == position:
                gap = options - wanted.coordinates[j]
                gap -= np.round(gap)
                distance = np.linalg.norm(gap * wanted.axes, axis=1)
                cost[i, j] = distance.min()
                nearest[i, j] = wanted.coordinates[j] + gap[distance.argmin()]
    for pairing in _pairings(crystal, prototype):
        allowed = np.array([[pairing[z] == s for s in prototype.species] for z in crystal.atomic_numbers])
        limited = np.where(allowed & np.isfinite(cost), cost, 1e6)
        rows, columns = linear_sum_assignment(limited)
        miss = float(limited[rows, columns].max())
        order = [int(i) for i in rows[np.argsort(columns)]]
        found = tuple((float(x), float(y), float(z)) for x, y, z in (nearest[i, j] for j, i in enumerate(order)))
        yield order, found, miss


def _pairings(crystal: Crystal, prototype: Prototype) -> Iterator[Mapping[int, int]]:
    """Elements -> slots, one to one, with as many orbits each."""
    elements = list(dict.fromkeys(crystal.atomic_numbers))
    if len(elements) != prototype.n_species:
        return
    orbits = [crystal.atomic_numbers.count(z) for z in elements]
    slots = [prototype.species.count(s) for s in range(prototype.n_species)]
    for order in permutations(range(len(elements))):
        if all(slots[s] == n for s, n in zip(order, orbits, strict=True)):
            yield dict(zip(elements, order, strict=True))
