"""Rows -> crystals, on several processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
from pymatgen.core import DummySpecies, Structure

from data.crystal import MAX_ATOMIC_NUMBER, Crystal
from data.sources import cif, extxyz, poscar, pymatgen_json
from data.sources.rows import EncodedRow, RawRow, label_problem
from data.symmetry import SymmetryError, encode
from data.workers import start_worker, worker_context

CHUNK = 64
MAX_ORBITS = 128
_CLOSEST = 0.3  # Å; nearer sites are a mistake in the file, H-H is 0.74
_LARGEST_COORDINATE = 1e6


def encode_rows(
    rows: Iterable[RawRow], workers: int, symprec: float, max_orbits: int = MAX_ORBITS, labels: bool = True
) -> Iterator[EncodedRow]:
    """Encoded rows in the order of ``rows``; only a few chunks are in memory at a time.

    Args:
        workers: processes; with 1 or fewer everything happens in this one.
        symprec: tolerance of the symmetry search, Å.
        max_orbits: crystals with more are left out (batches are padded to the widest).
        labels: keep the labels, and leave out rows whose labels are impossible.
    """
    chunks = _chunks(rows)
    first = next(chunks, None)
    if first is None:
        return
    second = next(chunks, None)
    ready = all(row.kind in ("crystal", "unreadable") for row in first)  # nothing to parse
    if workers <= 1 or second is None or ready:
        for chunk in (first, *([second] if second else [])):
            yield from _encode_chunk(chunk, symprec, max_orbits, labels)
        for chunk in chunks:
            yield from _encode_chunk(chunk, symprec, max_orbits, labels)
        return
    with ProcessPoolExecutor(workers, mp_context=worker_context(), initializer=start_worker) as pool:
        waiting: deque[Future[list[EncodedRow]]] = deque()
        for chunk in (first, second):
            waiting.append(pool.submit(_encode_chunk, chunk, symprec, max_orbits, labels))
        for chunk in chunks:
            waiting.append(pool.submit(_encode_chunk, chunk, symprec, max_orbits, labels))
            if len(waiting) >= 4 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _chunks(rows: Iterable[RawRow]) -> Iterator[list[RawRow]]:
    source = iter(rows)
    while chunk := list(islice(source, CHUNK)):
        yield chunk


def _encode_chunk(rows: list[RawRow], symprec: float, max_orbits: int, labels: bool) -> list[EncodedRow]:
    return [encode_row(row, symprec, max_orbits, labels) for row in rows]


def encode_row(row: RawRow, symprec: float, max_orbits: int = MAX_ORBITS, labels: bool = True) -> EncodedRow:
    """One row; every failure becomes a reason."""
    properties = dict(row.properties) if labels else {}
    crystal: Crystal | None = None
    reason = ""
    try:
        if row.kind == "crystal":
            crystal = row.payload
        else:
            structure, found = parse_row(row)
            properties = {**found, **properties} if labels else {}
            check_structure(structure)
            crystal = encode(structure, symprec)
            if len(crystal.letters) > max_orbits:
                raise ValueError(f"orbits={len(crystal.letters)}: more than max_orbits={max_orbits}")
        reason = label_problem(properties)
    except ValueError as error:  # SymmetryError is one
        reason = " ".join(str(error).split()) or type(error).__name__
    except (
        ArithmeticError,
        LookupError,
        TypeError,
        AttributeError,
        AssertionError,
        np.linalg.LinAlgError,
    ) as error:
        # Third-party parsers raise these on broken input.
        reason = f"cannot be read: {type(error).__name__} {' '.join(str(error).split())}"
    if reason:
        crystal = None
    return EncodedRow(row.id, crystal, reason, properties, row.prototype)


def parse_row(row: RawRow) -> tuple[Structure, dict[str, float]]:
    """The structure of a row and the labels written beside it.

    Raises:
        ValueError: unreadable.
    """
    payload: Any = row.payload
    if row.kind == "cif":
        return cif.parse(payload), {}
    if row.kind == "poscar":
        return poscar.parse(payload), {}
    if row.kind == "extxyz":
        return extxyz.parse(payload)
    if row.kind == "json":
        return pymatgen_json.parse(payload), {}
    if row.kind == "arrays":
        return _from_arrays(*payload), {}
    raise ValueError(str(payload))


def _from_arrays(lattice: Any, frac_coords: Any, atomic_numbers: Any) -> Structure:
    cell = np.asarray(list(lattice), dtype=np.float64)
    numbers = [int(z) for z in atomic_numbers]
    if not numbers:
        raise ValueError("atomic_numbers=[]: the structure holds no atoms")
    coords = np.concatenate([np.zeros(0), *(np.atleast_1d(x) for x in frac_coords)])
    if cell.size != 9 or coords.size != 3 * len(numbers):
        raise ValueError(
            f"lattice, frac_coords: hold {cell.size} and {coords.size} numbers, 9 and {3 * len(numbers)} are needed"
        )
    bad = [z for z in numbers if not 1 <= z <= MAX_ATOMIC_NUMBER]
    if bad:
        raise ValueError(f"atomic_numbers={bad[0]}: is no element, use 1 to {MAX_ATOMIC_NUMBER}")
    return Structure(cell.reshape(3, 3), numbers, coords.reshape(-1, 3))


def check_structure(structure: Structure) -> None:
    """What `data.symmetry.encode` takes for granted.

    Raises:
        SymmetryError: no atoms, an unknown element, coordinates or cell that are not finite, a flat cell, or
            two atoms at one place.
    """
    if len(structure) == 0:
        raise SymmetryError("sites=0: the structure holds no atoms")
    for species in structure.composition:
        if isinstance(species, DummySpecies):
            raise SymmetryError(f"species={species.symbol!r}: is not an element")
    if not np.isfinite(structure.lattice.matrix).all():
        raise SymmetryError("lattice: holds a number that is not finite")
    coords = structure.frac_coords
    if not np.isfinite(coords).all() or np.abs(coords).max() > _LARGEST_COORDINATE:
        raise SymmetryError("coordinates: hold a number that is not finite")
    if structure.lattice.volume <= 1e-3 * max(structure.lattice.abc) ** 2:
        raise SymmetryError(f"lattice: is flat, its volume is {structure.lattice.volume:.3g} Å^3")
    if len(structure) > 1 and structure.is_ordered:
        distance = structure.distance_matrix + np.diag(np.full(len(structure), np.inf))
        i, j = np.unravel_index(int(distance.argmin()), distance.shape)
        if distance[i, j] < _CLOSEST:
            raise SymmetryError(f"sites {i} and {j}: lie {distance[i, j]:.2f} Å apart, closer than {_CLOSEST} Å")
