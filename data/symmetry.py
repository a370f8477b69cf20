"""Structure -> Crystal: find the space group (moyopy) and read off the orbits."""

from __future__ import annotations

import logging
import math
from functools import cache, lru_cache

import moyopy
import numpy as np
import torch
from numpy.typing import NDArray
from pymatgen.core import Structure

from data.crystal import Crystal
from data.lattice import lattice_to_strain
from data.wyckoff import wyckoff_table

DEFAULT_SYMPREC = 0.01


class SymmetryError(ValueError):
    """A structure that cannot be written as orbits; the message says why."""


def encode(structure: Structure, symprec: float = DEFAULT_SYMPREC) -> Crystal:
    """The crystal of an ordered structure, in the standard setting, coordinates symmetrised.

    Args:
        structure: any cell, primitive or not.
        symprec: distance tolerance of the symmetry search, Å. When the orbits cannot be read at this
            tolerance, three smaller ones are tried.

    Raises:
        SymmetryError: partial occupancy, no atoms, or no consistent symmetry at any tolerance.
    """
    if len(structure) == 0:
        raise SymmetryError("sites=0: the structure holds no atoms")
    if not structure.is_ordered:
        disordered = next(site for site in structure if not site.is_ordered)
        raise SymmetryError(
            f"species={disordered.species_string!r}: partial occupancy is not supported, "
            "order the structure first (pymatgen: OrderDisorderedStructureTransformation)"
        )
    numbers = [site.specie.Z for site in structure]
    return encode_arrays(structure.lattice.matrix, structure.frac_coords, numbers, symprec)


def encode_arrays(
    lattice: NDArray[np.float64],
    frac_coords: NDArray[np.float64],
    atomic_numbers: list[int],
    symprec: float = DEFAULT_SYMPREC,
) -> Crystal:
    """`encode` for arrays: lattice [3, 3] (rows, Å), fractional coordinates [N, 3], N atomic numbers."""
    quieten_moyo()
    cell = moyopy.Cell(np.asarray(lattice).tolist(), np.asarray(frac_coords).tolist(), list(atomic_numbers))
    reason = ""
    for tolerance in (symprec, symprec / 4, symprec / 16, 1e-5):
        try:
            dataset = moyopy.MoyoDataset(cell, symprec=tolerance, setting=moyopy.Setting.standard())
            return _read_orbits(dataset, list(atomic_numbers))
        except (SymmetryError, ValueError) as error:
            reason = str(error)
    raise SymmetryError(f"no consistent symmetry at symprec={symprec} Å or below: {reason}")


@lru_cache(maxsize=1)
def quieten_moyo() -> None:
    """Symmetry searches without warnings, once per process."""
    # It warns about operations of non-primitive cells, no loss here. A level that the user set stays.
    logger = logging.getLogger("moyo")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.ERROR)


@cache
def _readers(space_group: int) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64], int]]:
    """Per letter: first operation [3, 4], its pseudo-inverse [3, 3], primitive multiplicity."""
    table = wyckoff_table()
    start, n = int(table.position_start[space_group]), int(table.n_positions[space_group])
    result = {}
    for p in range(start, start + n):
        first = table.images(p)[0].numpy()
        inverse = np.linalg.pinv(first[:, :3])
        result[table.letter[p]] = (first, inverse, int(table.primitive_multiplicity[p]))
    return result


@cache
def lattice_translations(space_group: int) -> NDArray[np.float64]:
    """Lattice vectors of the centred lattice around the origin, in the conventional basis, [T, 3]."""
    primitive = wyckoff_table().primitive_rows[space_group].numpy()
    grid = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3, indexing="ij"), -1).reshape(-1, 3) @ primitive
    return np.asarray(grid[np.all(np.abs(grid) < 1.5 + 1e-9, axis=1)])


def bins(values: NDArray[np.float64], width: float) -> NDArray[np.int64]:
    """Integers that order ``values`` while noise far below ``width`` makes no difference.

    Plain rounding breaks ties at numbers such as 0.15485, which published coordinates like to be. These
    edges lie at no short decimal and no simple fraction.
    """
    return np.asarray(np.floor(np.asarray(values) / width - (math.sqrt(2) - 1)).astype(np.int64))


def equivalent_coordinates(
    space_group: int, letter: str, points: NDArray[np.float64], tolerance: float = 1e-4
) -> NDArray[np.float64]:
    """All free coordinates in [0, 1) that spell the same orbit, [C, 3].

    Args:
        points: [n, 3] sites of one orbit in the conventional basis, one per primitive-cell site.

    Raises:
        SymmetryError: none of the points lies on the first representative of the position.
    """
    first, inverse, _ = _readers(space_group)[letter]
    target = np.mod(points, 1.0)[:, None, :] + lattice_translations(space_group) - first[:, 3]
    solution = target @ inverse.T
    miss = np.abs(solution @ first[:, :3].T - target).max(-1)
    member, shift = np.nonzero(miss < tolerance)
    if len(member) == 0:
        raise SymmetryError(f"orbit {letter} of space group {space_group} lies off its Wyckoff position")
    table = wyckoff_table()
    free = table.free[table.index(space_group, letter)].numpy()
    wrapped = np.where(free, np.mod(solution[member, shift] + 1e-5, 1.0) - 1e-5, 0.0)
    _, unique = np.unique(bins(wrapped, 1e-5), axis=0, return_index=True)
    return np.asarray(wrapped[unique])


def read_coordinates(space_group: int, letter: str, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The lexicographically smallest of `equivalent_coordinates`, [3]."""
    return np.asarray(equivalent_coordinates(space_group, letter, points)[0])


def _read_orbits(dataset: moyopy.MoyoDataset, atomic_numbers: list[int]) -> Crystal:
    space_group = dataset.number
    lattice = np.asarray(dataset.std_cell.basis)
    primitive_lattice = np.asarray(dataset.prim_std_cell.basis)
    to_conventional = primitive_lattice @ np.linalg.inv(lattice)
    points = np.mod(np.asarray(dataset.prim_std_cell.positions) @ to_conventional, 1.0)

    input_of_primitive: dict[int, int] = {}
    for i, p in enumerate(dataset.mapping_std_prim):
        input_of_primitive.setdefault(p, i)
    orbits: dict[int, list[int]] = {}
    for p, i in sorted(input_of_primitive.items()):
        orbits.setdefault(dataset.orbits[i], []).append(p)

    readers = _readers(space_group)
    letters, numbers, coordinates = [], [], []
    for representative, members in orbits.items():
        letter = dataset.wyckoffs[representative]
        if letter not in readers:
            raise SymmetryError(f"wyckoff_letter={letter!r} is unknown in space group {space_group}")
        multiplicity = readers[letter][2]
        if multiplicity != len(members):
            raise SymmetryError(
                f"orbit {letter} of space group {space_group} has {len(members)} sites, not {multiplicity}"
            )
        u = read_coordinates(space_group, letter, points[members])
        letters.append(letter)
        numbers.append(atomic_numbers[representative])
        coordinates.append((float(u[0]), float(u[1]), float(u[2])))
    strain = lattice_to_strain(torch.tensor(space_group), torch.from_numpy(lattice))
    return Crystal(space_group, tuple(letters), tuple(numbers), tuple(coordinates), tuple(strain.tolist()))
