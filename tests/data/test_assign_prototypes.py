from __future__ import annotations

import numpy as np
import pytest
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher

from data.assign_prototypes import assign_prototypes, fit_prototype
from data.cells import decode
from data.crystal import Crystal
from data.dataset import CrystalDataset
from data.orbit_batch import OrbitBatch
from data.prototypes import PrototypeLibrary, prototype_library
from data.spellings import random_spelling

LIBRARY = prototype_library()
NAMES = (
    "rocksalt", "elpasolite", "wurtzite", "spinel", "delafossite", "caswellsilverite", "garnet", "linbo3",
    "orthorhombic_perovskite", "forsterite", "k2so4", "ligage", "half_heusler", "argyrodite", "fesi", "sigma_phase",
)  # fmt: skip


def dataset(crystals: list[Crystal], prototype: str = "") -> CrystalDataset:
    n = len(crystals)
    labels = {"band_gap": torch.arange(n, dtype=torch.float64)}
    return CrystalDataset(OrbitBatch.from_crystals(crystals), labels, (prototype,) * n, tuple(map(str, range(n))))


@pytest.mark.parametrize("name", NAMES)
def test_any_spelling_finds_its_prototype_and_comes_back_on_its_orbits(name: str) -> None:
    prototype = LIBRARY.get(name)
    elements = [3 + 11 * s for s in range(prototype.n_species)]
    crystal = prototype.crystal(elements)
    rng = np.random.default_rng(0)
    given = [random_spelling(crystal, rng) for _ in range(4)]
    found, library = assign_prototypes(dataset(given), LIBRARY)
    assert len(library) == len(LIBRARY)
    assert {LIBRARY.get(p).label for p in found.prototype} == {prototype.label}
    fit = fit_prototype(given[0], prototype)
    assert fit is not None and fit.miss < 0.01
    assert fit.crystal.letters == prototype.letters
    allowed = {tuple(crystal.atomic_numbers[i] for i in order) for order in prototype.equivalent_orders}
    assert fit.crystal.atomic_numbers in allowed
    matcher = StructureMatcher(scale=False, ltol=0.01, stol=0.02, angle_tol=0.5)
    before, after = decode(OrbitBatch.from_crystals([crystal, fit.crystal])).structures()
    assert matcher.fit(before, after)


def test_delafossites_and_ordered_rocksalt_are_told_apart() -> None:
    crystals = [LIBRARY.get("delafossite").crystal([29, 13, 8]), LIBRARY.get("caswellsilverite").crystal([3, 27, 8])]
    found, _ = assign_prototypes(dataset(crystals), LIBRARY)
    assert found.prototype == ("delafossite", "caswellsilverite")


def test_what_the_library_lacks_becomes_a_prototype_once() -> None:
    prototype = LIBRARY.get("garnet")
    small = PrototypeLibrary(tuple(p for p in LIBRARY if p.label != prototype.label))
    rng = np.random.default_rng(1)
    crystals = [
        random_spelling(prototype.crystal(z), rng) for z in ([13, 12, 14, 8], [26, 20, 14, 8], [31, 39, 31 + 1, 8])
    ]
    found, library = assign_prototypes(dataset(crystals), small)
    assert set(found.prototype) == {prototype.label}
    assert len(library) == len(small) + 1
    letters = library.get(prototype.label).letters
    assert all(c.letters == letters for c in found.batch.to_crystals())
    assert found.keys() == dataset(crystals).keys()
    assert found.properties["band_gap"].tolist() == [0, 1, 2]


def test_rows_with_a_prototype_stay_as_they_are() -> None:
    crystals = [LIBRARY.get("rocksalt").crystal([11, 17])]
    found, library = assign_prototypes(dataset(crystals, "rocksalt"), LIBRARY)
    assert found.batch.to_crystals() == crystals and library.names == LIBRARY.names


def test_another_geometry_of_the_same_label_is_no_fit() -> None:
    crystal = LIBRARY.get("molybdenite_2h").crystal([42, 16])
    fit = fit_prototype(crystal, LIBRARY.get("molybdenite_2h"))
    assert fit is not None and fit.miss == pytest.approx(0, abs=1e-6)
    assert fit_prototype(crystal, LIBRARY.get("reb2")) is None
    assert fit_prototype(crystal, LIBRARY.get("rocksalt")) is None
