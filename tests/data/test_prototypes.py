from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Element

from data.cells import decode
from data.contact import covalent_radii, shortest_ratio
from data.orbit_batch import OrbitBatch
from data.prototypes import Prototype, PrototypeLibrary, prototype_library

LIBRARY = prototype_library()
NEEDED = (
    "rocksalt", "cscl", "zincblende", "fluorite", "cu3au", "wurtzite", "nias", "cdi2", "alb2", "half_heusler",
    "full_heusler", "inverse_heusler", "quaternary_heusler", "perovskite", "double_perovskite", "elpasolite",
    "k2ptcl6", "delafossite", "chalcopyrite", "thcr2si2", "pbfcl", "zrcusias", "spinel", "max_211", "max_312",
    "max_413", "cuau", "argyrodite", "garnet", "pyrochlore", "olivine", "nasicon", "chevrel", "stannite", "kesterite",
    "k2nif4", "brownmillerite", "laves_c14", "laves_c15", "laves_c36", "cacu5", "a15", "skutterudite", "th3p4",
    "mn5si3", "ilmenite", "corundum", "bixbyite", "scheelite", "zircon", "monazite", "apatite", "post_perovskite",
    "gdfeo3", "rutile", "anatase", "brookite", "pyrite", "marcasite", "B20", "tli", "ges", "mnp", "feb", "crb",
    "mosi2", "tisi2", "D0_19", "D0_22", "D0_23", "D0_3", "tinisi", "cdcl2",
)  # fmt: skip


@pytest.mark.parametrize("name", NEEDED)
def test_important_prototypes_are_there(name: str) -> None:
    prototype = LIBRARY.get(name)
    assert name == prototype.name or name in prototype.aliases


def test_the_288_of_aflow_come_first() -> None:
    assert len(LIBRARY) >= 370
    assert [p.source.startswith("AFLOW") for p in LIBRARY] == [i < 288 for i in range(len(LIBRARY))]
    assert all(p.source for p in LIBRARY)


def test_no_prototype_has_overlapping_atoms() -> None:
    batch = OrbitBatch.from_crystals([p.with_orbit_elements([6] * len(p.letters)) for p in LIBRARY])
    cells = decode(batch)
    spacing = shortest_ratio(cells, covalent_radii()) / (cells.volume / cells.n_atoms) ** (1 / 3)
    dimensionless = spacing * 2 * covalent_radii()[6]
    # fcc and hcp, the densest packings of equal spheres, have 2 ** (1 / 6); molecular anions far less
    assert float(dimensionless.max()) == pytest.approx(2 ** (1 / 6), rel=2e-2)
    own = [x for p, x in zip(LIBRARY, dimensionless.tolist(), strict=True) if not p.source.startswith("AFLOW")]
    assert min(own) > 0.55


@pytest.mark.parametrize(
    "name",
    ["rocksalt", "cscl", "zincblende", "half_heusler", "full_heusler", "quaternary_heusler", "perovskite", "cu3au",
     "cuau", "fluorite", "inverse_heusler", "infinite_layer", "d0_3"],
)  # fmt: skip
def test_equivalent_orders_are_exact_where_nothing_is_free(name: str) -> None:
    """Without free coordinates two decorations are one crystal exactly if their structures match."""
    prototype = LIBRARY.get(name)
    n = len(prototype.letters)
    elements = [3, 25, 52, 80][:n]
    matcher = StructureMatcher(primitive_cell=False, scale=True)
    cubic = prototype.space_group >= 195
    orders = list(permutations(range(n)))
    structures = list(
        decode(
            OrbitBatch.from_crystals([prototype.with_orbit_elements([elements[i] for i in order]) for order in orders])
        ).structures()
    )
    same = {o for o, s in zip(orders, structures, strict=True) if matcher.fit(structures[0], s)}
    assert cubic or name in ("cuau", "infinite_layer")
    assert set(prototype.equivalent_orders) == same


@pytest.mark.parametrize(
    ("name", "count"),
    [("elpasolite", 2), ("wurtzite", 2), ("spinel", 1), ("delafossite", 1), ("k2ptcl6", 1), ("nias", 1),
     ("chalcopyrite", 2), ("rutile", 1), ("zrcusias", 2)],
)  # fmt: skip
def test_equivalent_orders_with_free_coordinates(name: str, count: int) -> None:
    orders = LIBRARY.get(name).equivalent_orders
    assert len(orders) == count
    assert orders[0] == tuple(range(len(orders[0])))


def test_exchanging_a_and_b_of_an_elpasolite_is_the_same_crystal_when_x_moves_along() -> None:
    prototype = LIBRARY.get("elpasolite")
    assert prototype.equivalent_orders == ((0, 1, 2, 3), (1, 0, 2, 3))
    crystal = prototype.crystal([13, 11, 19, 9])
    x = crystal.coordinates[3][0]
    moved = [list(u) for u in crystal.coordinates]
    moved[3][0] = 0.5 - x
    shifted = replace(prototype, coordinates=tuple((u[0], u[1], u[2]) for u in moved))
    exchanged = shifted.crystal([11, 13, 19, 9])
    first, second = decode(OrbitBatch.from_crystals([crystal, exchanged])).structures()
    assert StructureMatcher(scale=False, ltol=0.01, stol=0.01, angle_tol=0.1).fit(first, second)


def test_equivalent_orders_form_a_group() -> None:
    for prototype in LIBRARY:
        if len(prototype.letters) > 8:
            continue
        orders = set(prototype.equivalent_orders)
        products = {tuple(a[i] for i in b) for a in orders for b in orders}
        assert products == orders, prototype.name


def test_rows_and_files_bring_prototypes_back(tmp_path: Path) -> None:
    LIBRARY.save(tmp_path / "library.jsonl")
    again = PrototypeLibrary.load((tmp_path / "library.jsonl").read_text(encoding="utf-8"))
    assert again.prototypes == LIBRARY.prototypes


def test_rows_without_aliases_are_read() -> None:
    row = {k: v for k, v in LIBRARY.get("rocksalt").as_row().items() if k != "aliases"}
    assert Prototype.from_row(row).aliases == ()


def test_a_prototype_is_found_by_label_and_a_typo_gets_a_hint() -> None:
    assert LIBRARY.get("ABC2D6_cF40_225_a_b_c_e").name == "elpasolite"
    assert LIBRARY.get("heusler") is LIBRARY.get("full_heusler")
    with pytest.raises(ValueError, match=r"prototype='elpasolit'.*did you mean.*elpasolite"):
        LIBRARY.get("elpasolit")


def test_a_user_adds_a_prototype_by_pointing_at_a_cif(tmp_path: Path) -> None:
    structure = next(decode(OrbitBatch.from_crystals([LIBRARY.get("garnet").crystal([13, 12, 14, 8])])).structures())
    structure.to(filename=str(tmp_path / "my_garnet.cif"))
    library = LIBRARY.with_files([tmp_path / "my_garnet.cif"])
    assert library.get("my_garnet").label == LIBRARY.get("garnet").label
    assert len(library) == len(LIBRARY) + 1


def test_bad_prototype_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing\.cif.*no such file"):
        LIBRARY.with_files([tmp_path / "nothing.cif"])
    (tmp_path / "empty.cif").write_text("")
    with pytest.raises(ValueError, match=r"empty\.cif.*empty"):
        LIBRARY.with_files([tmp_path / "empty.cif"])
    structure = next(decode(OrbitBatch.from_crystals([LIBRARY.get("rocksalt").crystal([11, 17])])).structures())
    structure[0] = {"Na": 0.5}
    structure.to(filename=str(tmp_path / "half.cif"))
    with pytest.raises(ValueError, match=r"half\.cif.*partial occupancy"):
        LIBRARY.with_files([tmp_path / "half.cif"])
    structure[0] = "Na"
    structure.to(filename=str(tmp_path / "rocksalt.cif"))
    with pytest.raises(ValueError, match="unique, repeated: rocksalt"):
        LIBRARY.with_files([tmp_path / "rocksalt.cif"])


def test_wrong_number_of_elements_is_named() -> None:
    with pytest.raises(ValueError, match="elpasolite has 4 element slots"):
        LIBRARY.get("elpasolite").crystal([1, 2])


def test_prototype_sizes() -> None:
    sizes = {name: LIBRARY.get(name).n_atoms for name in ("garnet", "elpasolite", "nd2fe14b", "corundum")}
    assert sizes == {"garnet": 80, "elpasolite": 10, "nd2fe14b": 68, "corundum": 10}
    assert np.unique([p.name for p in LIBRARY]).size == len(LIBRARY)


def test_every_prototype_knows_the_elements_of_its_reference() -> None:
    library = prototype_library()
    assert library.get("perovskite").example_elements  # CaTiO3 and TiCaO3: the formula cannot tell them apart
    assert [len(p.example_elements) >= 1 for p in library].count(False) == 0
    for name, symbols in (("fluorite", {"Ca", "F"}), ("elpasolite", {"K", "Na", "Al", "F"}), ("rutile", {"Ti", "O"})):
        prototype = library.get(name)
        for order in prototype.example_elements:
            assert {Element.from_Z(z).symbol for z in order} == symbols
            assert prototype.crystal(order).reduced_formula == prototype.example
