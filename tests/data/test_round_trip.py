"""Structure -> Crystal -> Structure."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from data.cells import decode
from data.crystal import Crystal
from data.orbit_batch import OrbitBatch
from data.protostructure import crystal_key
from data.symmetry import SymmetryError, encode, encode_arrays

AFLOW = [entry["snl"].structure for entry in AFLOW_PROTOTYPE_LIBRARY]
SMALL = [s for s in AFLOW if len(s) <= 8]


def mismatches(structures: list[Structure]) -> list[str]:
    crystals = [encode(s) for s in structures]
    matcher = StructureMatcher()
    decoded = decode(OrbitBatch.from_crystals(crystals)).structures()
    return [
        f"{s.composition} {c.space_group}"
        for s, c, d in zip(structures, crystals, decoded, strict=True)
        if not matcher.fit(s, d)
    ]


def test_small_aflow_prototypes_come_back() -> None:
    assert len(SMALL) > 90
    assert mismatches(SMALL) == []


@pytest.mark.slow
def test_all_288_aflow_prototypes_come_back() -> None:
    assert len(AFLOW) == 288
    assert mismatches(AFLOW) == []


@pytest.mark.slow
def test_99_percent_of_materials_project_structures_come_back() -> None:
    root = os.environ.get("RAREMAT_DATA", "~/.cache/raremat")
    path = Path(root).expanduser() / "mp" / "structures.parquet"
    if not path.is_file():
        pytest.skip(f"{path} is not there, set RAREMAT_DATA")
    import pandas as pd

    sample: Any = pd.read_parquet(path).sample(300, random_state=0)
    structures = [
        Structure(
            np.array(row.lattice).reshape(3, 3), list(row.atomic_numbers), np.array(row.frac_coords).reshape(-1, 3)
        )
        for row in sample.itertuples()
    ]
    assert len(mismatches(structures)) <= 3


def test_rocksalt_is_read_as_published() -> None:
    crystal = encode(Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5] * 3]))
    assert crystal.space_group == 225
    assert sorted(zip(crystal.letters, crystal.atomic_numbers, strict=True)) == [("a", 11), ("b", 17)]
    assert crystal.reduced_formula == "NaCl"
    assert crystal.strain[0] == pytest.approx(3 * np.log(5.64))
    assert crystal.strain[1:] == (0.0,) * 5


def test_rutile_keeps_its_free_coordinate() -> None:
    rutile = Structure.from_spacegroup(
        "P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.3053, 0.3053, 0]]
    )
    crystal = encode(rutile)
    oxygen = crystal.letters.index("f")
    u = crystal.coordinates[oxygen][0]
    assert crystal.letters.count("a") == 1
    assert min(abs(u - x) for x in (0.3053, 0.6947, 0.8053, 0.1947)) < 1e-6


@pytest.mark.parametrize("cell", [np.diag([2, 1, 1]), np.diag([1, 2, 3]), [[1, 1, 0], [0, 1, 0], [0, 1, 2]]])
def test_the_choice_of_input_cell_does_not_matter(cell: list[list[int]]) -> None:
    rng = np.random.default_rng(0)
    for structure in SMALL[::8]:
        other = structure.make_supercell(cell, in_place=False)
        other.translate_sites(range(len(other)), rng.random(3))
        first, second = encode(structure), encode(other)
        assert crystal_key(first) == crystal_key(second)


def test_no_symmetry_still_fits() -> None:
    rng = np.random.default_rng(1)
    lattice = Lattice.from_parameters(4.1, 5.2, 6.3, 81, 94, 103)
    structure = Structure(lattice, ["Li", "Fe", "O", "O", "S"], rng.random((5, 3)))
    crystal = encode(structure)
    assert (crystal.space_group, crystal.letters) == (1, ("a",) * 5)
    assert StructureMatcher().fit(structure, next(decode(OrbitBatch.from_crystals([crystal])).structures()))


def test_decoding_is_deterministic_and_does_not_depend_on_the_batch() -> None:
    crystals = [encode(s) for s in SMALL[:20]]
    whole = list(decode(OrbitBatch.from_crystals(crystals)).structures())
    for crystal, together in zip(crystals, whole, strict=True):
        alone = next(decode(OrbitBatch.from_crystals([crystal])).structures())
        assert np.allclose(alone.lattice.matrix, together.lattice.matrix)
        assert np.allclose(alone.frac_coords, together.frac_coords)
        assert alone.species == together.species
        assert together.frac_coords.min() >= 0 and together.frac_coords.max() < 1


def test_batches_survive_the_way_through_crystals_and_selection() -> None:
    batch = OrbitBatch.from_crystals([encode(s) for s in SMALL[:30]])
    again = OrbitBatch.from_crystals(batch.to_crystals())
    assert torch.equal(batch.position, again.position) and torch.equal(batch.coordinates, again.coordinates)
    halves = OrbitBatch.concatenate([batch.select(torch.arange(10)), batch.select(torch.arange(10, 30))])
    assert halves.to_crystals() == batch.to_crystals()
    assert batch.n_atoms.tolist() == decode(batch).n_atoms.tolist()


def test_partial_occupancy_is_named() -> None:
    structure = Structure(Lattice.cubic(3), [{"Fe": 0.5, "Ni": 0.5}], [[0, 0, 0]])
    with pytest.raises(SymmetryError, match="Fe:0.5.*partial occupancy"):
        encode(structure)


def test_empty_structure_is_named() -> None:
    with pytest.raises(SymmetryError, match="no atoms"):
        encode(Structure(Lattice.cubic(3), [], []))


def test_coincident_atoms_give_an_error_not_a_crystal() -> None:
    with pytest.raises(SymmetryError, match="no consistent symmetry"):
        encode_arrays(np.eye(3) * 4, np.zeros((2, 3)), [11, 17])


def test_crystals_check_themselves() -> None:
    with pytest.raises(ValueError, match="wyckoff_letter='z'"):
        Crystal(225, ("z",), (11,), ((0, 0, 0),), (5.0,) * 6)
    with pytest.raises(ValueError, match="only once"):
        Crystal(225, ("a", "a"), (11, 17), ((0, 0, 0),) * 2, (5.0,) * 6)
    with pytest.raises(ValueError, match="at least one orbit"):
        Crystal(225, (), (), (), (5.0,) * 6)
