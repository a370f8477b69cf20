"""The many spellings of one crystal, and the one that is canonical.

A coset of the Euclidean normalizer moves the origin or turns the axes so that the space group looks the
same while Wyckoff letters and coordinates change. In polar groups the origin is free along some axes. In
each orbit any equivalent site may stand for the rest. All of these are the same crystal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from data.crystal import Crystal
from data.lattice import lattice_to_strain, strain_to_lattice
from data.symmetry import bins, equivalent_coordinates
from data.wyckoff import wyckoff_table

_BIN = 1e-4


def spellings(crystal: Crystal) -> list[Crystal]:
    """One spelling per normalizer coset, identity first; orbits keep their order."""
    return [respelled(crystal, k) for k in range(len(wyckoff_table().cosets(crystal.space_group)))]


def random_spelling(crystal: Crystal, generator: np.random.Generator) -> Crystal:
    """A random coset, origin along the polar axes, representative per orbit, and orbit order."""
    table = wyckoff_table()
    coset = int(generator.integers(int(table.n_cosets[crystal.space_group])))
    origin = generator.random(3) * table.polar[crystal.space_group].numpy()
    moved = respelled(crystal, coset, origin, generator)
    order = generator.permutation(len(moved.letters))
    return Crystal(
        moved.space_group,
        tuple(moved.letters[i] for i in order),
        tuple(moved.atomic_numbers[i] for i in order),
        tuple(moved.coordinates[i] for i in order),
        moved.strain,
    )


def canonical(crystal: Crystal) -> Crystal:
    """The spelling with the smallest (letter, atomic number) list, then the smallest coordinates.

    Orbits are sorted; along polar axes the first orbit sits at 0.
    """
    return min((_settle(s) for s in spellings(crystal)), key=_rank)


def _rank(crystal: Crystal) -> tuple[object, ...]:
    chemistry = tuple(zip(crystal.letters, crystal.atomic_numbers, strict=True))
    coordinates = tuple(_order(u) for u in crystal.coordinates)
    return (chemistry, coordinates, _order(crystal.strain))


def _order(values: Sequence[float]) -> tuple[int, ...]:
    return tuple(bins(np.asarray(values), _BIN).tolist())


def _settle(crystal: Crystal) -> Crystal:
    """Sorted orbits; polar origin on the first orbit."""
    table = wyckoff_table()
    polar = table.polar[crystal.space_group].numpy()

    def sort(c: Crystal) -> Crystal:
        rows = zip(c.letters, c.atomic_numbers, c.coordinates, strict=True)
        ordered = sorted(rows, key=lambda r: (r[0], r[1], _order(r[2])))
        letters, numbers, coordinates = zip(*ordered, strict=True)
        return Crystal(c.space_group, letters, numbers, coordinates, c.strain)

    if not polar.any():
        return sort(crystal)
    lead = min(zip(crystal.letters, crystal.atomic_numbers, strict=True))
    options = []
    for i, orbit in enumerate(zip(crystal.letters, crystal.atomic_numbers, strict=True)):
        if orbit != lead:
            continue
        sites = _sites(crystal, i)
        representatives = equivalent_coordinates(crystal.space_group, crystal.letters[i], sites)
        first = table.images(crystal.positions[i])[0].numpy()
        heights = representatives * polar
        _, distinct = np.unique(bins(heights, 1e-6), axis=0, return_index=True)
        for u in heights[distinct]:
            options.append(sort(respelled(crystal, 0, -(first[:, :3] @ u) * polar)))
    return min(options, key=_rank)


def _sites(crystal: Crystal, orbit: int) -> NDArray[np.float64]:
    """Sites of one orbit, [n, 3] in the conventional basis, one per primitive-cell site."""
    operations = wyckoff_table().images(crystal.positions[orbit]).numpy()
    return np.asarray(operations[:, :, :3] @ np.asarray(crystal.coordinates[orbit]) + operations[:, :, 3])


def respelled(
    crystal: Crystal,
    coset: int,
    origin: NDArray[np.float64] | None = None,
    generator: np.random.Generator | None = None,
) -> Crystal:
    """Apply coset number ``coset``, then shift by ``origin``; take the smallest or a random site."""
    table = wyckoff_table()
    affine, image = table.cosets(crystal.space_group)[coset]
    matrix, shift = affine[:, :3].numpy(), affine[:, 3].numpy()
    if origin is not None:
        shift = shift + origin
    start = int(table.position_start[crystal.space_group])
    letters, coordinates = [], []
    for i, position in enumerate(crystal.positions):
        letter = table.letter[start + int(image[position - start])]
        moved = _sites(crystal, i) @ matrix.T + shift
        candidates = equivalent_coordinates(crystal.space_group, letter, moved)
        row = candidates[0 if generator is None else int(generator.integers(len(candidates)))]
        letters.append(letter)
        coordinates.append((float(row[0]), float(row[1]), float(row[2])))
    number = torch.tensor(crystal.space_group)
    lattice = strain_to_lattice(number, torch.tensor(crystal.strain, dtype=torch.float64))
    strain = lattice_to_strain(number, torch.linalg.inv(torch.from_numpy(matrix)).mT @ lattice)
    return Crystal(
        crystal.space_group,
        tuple(letters),
        crystal.atomic_numbers,
        tuple(coordinates),
        tuple(strain.tolist()),
    )
