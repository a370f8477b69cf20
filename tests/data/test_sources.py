"""Every format that can be read, and everything that can be wrong with it."""

from __future__ import annotations

import gzip
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure

from data.cells import decode
from data.contact import atomic_radii, shortest_ratio
from data.dataset import CrystalDataset
from data.frames import to_frame
from data.prototypes import prototype_library
from data.sources import Rejected, Source, read_crystals, write_rejected
from data.sources.tables import TableColumns

SERIAL = Source(workers=1)
KEYS = {"nacl": "225|a:Na b:Cl", "srtio3": "221|a:Sr b:Ti d:O", "tio2": "136|a:Ti f:O"}


def structures() -> dict[str, Structure]:
    return {
        "nacl": Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0] * 3, [0.5] * 3]),
        "srtio3": Structure.from_spacegroup(
            "Pm-3m", Lattice.cubic(3.905), ["Sr", "Ti", "O"], [[0] * 3, [0.5] * 3, [0.5, 0.5, 0]]
        ),
        "tio2": Structure.from_spacegroup(
            "P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0] * 3, [0.3053, 0.3053, 0]]
        ),
    }


def read(path: Path, source: Source = SERIAL) -> tuple[CrystalDataset, dict[str, str]]:
    data, rejected = read_crystals(path, source)
    return data, {r.id: r.reason for r in rejected}


def keys_by_id(data: CrystalDataset) -> dict[str, str]:
    from data.protostructure import crystal_key

    same = {crystal_key(c): name for name, c in zip(data.ids, data.batch.to_crystals(), strict=True)}
    return {name: key for key, name in same.items()}


@pytest.fixture
def expected(tmp_path: Path) -> dict[str, str]:
    from data.protostructure import crystal_key
    from data.symmetry import encode

    return {name: crystal_key(encode(s)) for name, s in structures().items()}


def test_the_reference_keys_are_right(expected: dict[str, str]) -> None:
    assert expected["nacl"] == KEYS["nacl"]
    assert expected["tio2"] == KEYS["tio2"]


# -- formats ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".cif", ".vasp", ".json", ".cif.gz"])
def test_folder_of_structure_files(tmp_path: Path, expected: dict[str, str], suffix: str) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "notes.txt").write_text("not a structure")
    for name, structure in structures().items():
        target = tmp_path / "deep" / f"{name}{suffix.removesuffix('.gz')}"
        structure.to(filename=str(target), fmt="poscar" if suffix == ".vasp" else "")
        if suffix.endswith(".gz"):
            target.with_name(target.name + ".gz").write_bytes(gzip.compress(target.read_bytes()))
            target.unlink()
    data, rejected = read(tmp_path)
    assert rejected == {}
    assert keys_by_id(data) == {f"deep/{name}": key for name, key in expected.items()}


@pytest.mark.parametrize("name", ["POSCAR", "CONTCAR", "POSCAR_nacl", "nacl.poscar", "nacl.vasp"])
def test_names_of_poscars(tmp_path: Path, name: str) -> None:
    structures()["nacl"].to(filename=str(tmp_path / name), fmt="poscar")
    assert read(tmp_path / name)[0].keys() == [KEYS["nacl"]]


def test_extxyz_frames_with_labels(tmp_path: Path, expected: dict[str, str]) -> None:
    from ase.io import write
    from pymatgen.io.ase import AseAtomsAdaptor

    frames = []
    for i, structure in enumerate(structures().values()):
        atoms = AseAtomsAdaptor.get_atoms(structure, msonable=False)
        atoms.info = {"band_gap": float(i), "name": "x"}
        frames.append(atoms)
    write(tmp_path / "set.extxyz", frames)
    data, rejected = read(tmp_path / "set.extxyz")
    assert rejected == {}
    assert keys_by_id(data) == {f"set#{i}": key for i, key in enumerate(expected.values())}
    assert data.properties["band_gap"].tolist() == [0, 1, 2]


def test_pymatgen_json_in_all_its_shapes(tmp_path: Path, expected: dict[str, str]) -> None:
    plain = {name: s.as_dict() for name, s in structures().items()}
    entries = {name: {"structure": d, "band_gap": 1.5, "ok": True} for name, d in plain.items()}
    shapes = {
        "list": list(entries.values()),
        "mapping": entries,
        "table": {
            "index": [4, 5, 6],
            "columns": ["structure", "band_gap"],
            "data": [[d, 1.5] for d in plain.values()],
        },
    }
    for name, content in shapes.items():
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content))
        data, rejected = read(path)
        assert rejected == {}
        assert sorted(data.keys()) == sorted(expected.values())
        assert data.properties["band_gap"].tolist() == [1.5] * 3
        assert list(data.properties) == ["band_gap"]
    (tmp_path / "lines.jsonl").write_text("\n".join(json.dumps(x) for x in shapes["list"]))
    assert sorted(read(tmp_path / "lines.jsonl")[0].keys()) == sorted(expected.values())
    (tmp_path / "one.json").write_text(json.dumps(plain["nacl"]))
    assert read(tmp_path / "one.json")[0].keys() == [KEYS["nacl"]]


def test_json_never_imports_what_it_names(tmp_path: Path) -> None:
    content = {**structures()["nacl"].as_dict(), "@module": "os", "@class": "system"}
    (tmp_path / "one.json").write_text(json.dumps(content))
    assert read(tmp_path / "one.json")[0].keys() == [KEYS["nacl"]]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("text", ["cif", "poscar", "json"])
def test_table_with_a_structure_column(tmp_path: Path, expected: dict[str, str], suffix: str, text: str) -> None:
    frame = pd.DataFrame(
        {
            "material_id": list(structures()),
            "structure": [s.to(fmt=text) for s in structures().values()],
            "my_hardness": [1.0, np.nan, 3.0],
            "comment": ["a", "b", "c"],
            "checked": [True, False, True],
        }
    )
    path = tmp_path / f"table{suffix}"
    frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path)
    data, rejected = read(path)
    assert rejected == {}
    assert keys_by_id(data) == expected
    assert list(data.properties) == ["my_hardness"]
    assert np.array_equal(data.properties["my_hardness"].numpy(), [1, np.nan, 3], equal_nan=True)


def test_table_of_arrays(tmp_path: Path, expected: dict[str, str]) -> None:
    frame = pd.DataFrame(
        [
            {
                "id": name,
                "lattice": s.lattice.matrix.ravel(),
                "frac_coords": s.frac_coords.ravel(),
                "atomic_numbers": list(s.atomic_numbers),
            }
            for name, s in structures().items()
        ]
    )
    frame.to_parquet(tmp_path / "arrays.parquet")
    assert keys_by_id(read(tmp_path / "arrays.parquet")[0]) == expected


def test_table_of_our_own_crystals(tmp_path: Path) -> None:
    structures()["tio2"].to(filename=str(tmp_path / "tio2.cif"))
    first, _ = read(tmp_path / "tio2.cif")
    for suffix in (".csv", ".parquet"):
        frame = to_frame(first.batch).assign(prototype="rutile", band_gap=3.0)
        path = tmp_path / f"own{suffix}"
        frame.to_csv(path) if suffix == ".csv" else frame.to_parquet(path)
        again, rejected = read(path)
        assert rejected == {} and again.keys() == first.keys() and again.prototype == ("rutile",)
        assert again.properties["band_gap"].tolist() == [3.0]


@pytest.mark.parametrize("elements", [["Al Na K F", "Sc-Na-Rb-Cl"], ['["Al","Na","K","F"]', "21,11,37,17"]])
def test_table_of_prototype_and_elements(tmp_path: Path, elements: list[str]) -> None:
    pd.DataFrame(
        {"prototype": ["elpasolite", "double_perovskite"], "elements": elements, "formation_energy_per_atom": [-3, -2]}
    ).to_csv(tmp_path / "table.csv", index=False)
    data, rejected = read(tmp_path / "table.csv")
    assert rejected == {}
    assert data.prototype == ("elpasolite", "elpasolite")
    assert data.batch.atomic_number.tolist() == [[13, 11, 19, 9], [21, 11, 37, 17]]
    assert data.properties["formation_energy_per_atom"].tolist() == [-3, -2]
    assert shortest_ratio(decode(data.batch), atomic_radii()).tolist() == pytest.approx([1, 1])


def test_table_with_one_column_per_site_and_known_volume(tmp_path: Path) -> None:
    pd.DataFrame({"A": ["Na"], "B": ["Cl"], "volume_per_atom": [22.0]}).to_parquet(tmp_path / "table.parquet")
    columns = TableColumns(prototype="rocksalt", elements=("A", "B"))
    data, _ = read(tmp_path / "table.parquet", Source(columns))
    cells = decode(data.batch)
    assert float(cells.volume / cells.n_atoms) == pytest.approx(22.0)
    assert list(data.properties) == ["volume_per_atom"]


def test_a_cif_with_several_crystals(tmp_path: Path, expected: dict[str, str]) -> None:
    blocks = [s.to(fmt="cif") for s in structures().values()]
    (tmp_path / "many.cif").write_text("data_global\n_publ_author 'x'\n" + "\n".join(blocks))
    data, rejected = read(tmp_path / "many.cif")
    assert rejected == {}
    assert sorted(data.keys()) == sorted(expected.values())
    assert len(set(data.ids)) == 3


@pytest.mark.slow
def test_processes_change_nothing(tmp_path: Path) -> None:
    frame = pd.DataFrame({"cif": [s.to(fmt="cif") for s in structures().values()] * 50})
    frame.loc[7, "cif"] = "nonsense"
    frame.to_parquet(tmp_path / "table.parquet")
    done: list[int] = []
    alone, bad_alone = read_crystals(tmp_path / "table.parquet", SERIAL)
    pair, bad_pair = read_crystals(tmp_path / "table.parquet", Source(workers=2), progress=done.append)
    assert alone.keys() == pair.keys() and alone.ids == pair.ids and bad_alone == bad_pair
    assert [r.id for r in bad_pair] == ["7"] and sum(done) == 150


# -- bad rows among good ones ----------------------------------------------------------------------------


def spoiled() -> dict[str, tuple[str, str]]:
    """name -> (CIF, what the reason must say)."""
    good = structures()["nacl"]
    half = good.copy()
    half[0] = {"Na": 0.5}
    cif = good.to(fmt="cif")
    close = Structure(Lattice.cubic(4), ["Na", "Cl"], [[0, 0, 0], [0.02, 0, 0]])
    return {
        "partial": (half.to(fmt="cif"), "partial occupancy"),
        "unknown_element": (cif.replace("Na", "Xx"), "Xx"),
        "not_a_number": (cif.replace("0.50000000", "nan"), "not finite|NaN"),
        "overlap": (close.to(fmt="cif"), "0.08 Å apart"),
        "empty": ("", "empty"),
        "nonsense": ("hello world", "."),
        "truncated": (cif[: len(cif) // 2], "cut short"),
        "flat": (re.sub("_cell_length_c.*", "_cell_length_c   0.0", cif), "."),
    }


@pytest.mark.parametrize("where", ["folder", "csv", "parquet"])
def test_bad_rows_are_set_aside_with_their_reason(tmp_path: Path, where: str) -> None:
    rows = {name: text for name, (text, _) in spoiled().items()}
    rows["good"] = structures()["tio2"].to(fmt="cif")
    if where == "folder":
        for name, text in rows.items():
            (tmp_path / f"{name}.cif").write_text(text)
        path = tmp_path
    else:
        path = tmp_path / f"table.{where}"
        frame = pd.DataFrame({"id": list(rows), "cif": list(rows.values())})
        frame.to_csv(path, index=False) if where == "csv" else frame.to_parquet(path)
    data, rejected = read(path)
    assert data.ids == ("good",)
    assert set(rejected) == set(spoiled())
    for name, (_, says) in spoiled().items():
        assert re.search(says, rejected[name]), (name, rejected[name])
        assert "\n" not in rejected[name] and len(rejected[name]) < 300


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("band_gap", -3.0, "band_gap=-3: outside"),
        ("band_gap", "n/a", "band_gap='n/a': is not a number"),
        ("band_gap", np.inf, "not finite"),
        ("id", "a", "id='a': occurred before"),
        ("elements", "Na Xx", "elements='Xx': is not an element"),
        ("elements", "Na", "rocksalt has 2 element slots"),
        ("elements", "Na Cl O", "rocksalt has 2 element slots"),
        ("prototype", "rocksolt", "did you mean rocksalt"),
    ],
)
def test_bad_cells_of_a_decoration_table(tmp_path: Path, column: str, value: object, says: str) -> None:
    frame: Any = pd.DataFrame(
        {
            "id": ["a", "b", "c"],
            "prototype": ["rocksalt"] * 3,
            "elements": ["Na Cl", "K Br", "Li F"],
            "band_gap": pd.Series([8.5, 7.0, 13.0], dtype=object),
        }
    )
    frame[column] = [value if i == 1 else x for i, x in enumerate(frame[column])]
    frame.to_csv(tmp_path / "table.csv", index=False)
    data, rejected = read(tmp_path / "table.csv")
    assert len(data) == 2 and len(rejected) == 1
    assert says in next(iter(rejected.values()))


def test_bad_arrays(tmp_path: Path) -> None:
    good = structures()["nacl"]
    lattice, coords, numbers = good.lattice.matrix.ravel(), good.frac_coords.ravel(), list(good.atomic_numbers)
    hole = coords.copy()
    hole[4] = np.nan
    rows = [
        ("good", lattice, coords, numbers),
        ("nan", lattice, hole, numbers),
        ("short", lattice[:8], coords, numbers),
        ("missing", lattice, coords[:-3], numbers),
        ("alien", lattice, coords, [250, *numbers[1:]]),
        ("zero", lattice * 0, coords, numbers),
        ("empty", lattice, coords[:0], []),
        ("none", None, coords, numbers),
    ]
    frame = pd.DataFrame(rows, columns=["id", "lattice", "frac_coords", "atomic_numbers"])
    frame.to_parquet(tmp_path / "arrays.parquet")
    data, rejected = read(tmp_path / "arrays.parquet")
    assert data.ids == ("good",)
    says = {"nan": "not finite", "short": "8 and", "missing": "numbers", "alien": "250", "zero": "flat",
            "empty": "no atoms", "none": "not lists"}  # fmt: skip
    assert set(rejected) == set(says)
    assert all(says[name] in reason for name, reason in rejected.items()), rejected


def test_bad_extxyz_frames(tmp_path: Path) -> None:
    good = '2\nLattice="4 0 0 0 4 0 0 0 4" pbc="T T T" Properties=species:S:1:pos:R:3\nCs 0 0 0\nCl 2 2 2\n'
    frames = [
        good,
        "2\nProperties=species:S:1:pos:R:3\nCs 0 0 0\nCl 2 2 2\n",
        good.replace("Cl 2 2 2", "Xx 2 2 2"),
        good.replace("Cl 2 2 2", "Cl 2 2"),
        good,
        "what is this",
    ]
    (tmp_path / "set.xyz").write_text("".join(frames))
    data, rejected = read(tmp_path / "set.xyz")
    assert data.ids == ("set#0", "set#4")
    assert set(rejected) == {"set#1", "set#2", "set#3", "set#5"}
    assert "lattice" in rejected["set#1"]
    assert "not a number of atoms" in rejected["set#5"]


def test_a_poscar_without_elements_is_not_guessed(tmp_path: Path) -> None:
    lines = structures()["nacl"].to(fmt="poscar").splitlines()
    anonymous = ["x", *lines[1:5], *lines[6:8], *(" ".join(line.split()[:3]) for line in lines[8:])]
    (tmp_path / "POSCAR").write_text("\n".join(anonymous) + "\n")
    with pytest.raises(ValueError, match="does not name its elements"):
        read(tmp_path / "POSCAR")


def test_crystals_with_too_many_orbits_are_set_aside(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(3) / 3] * 3, indexing="ij"), -1).reshape(-1, 3)
    loose = Structure(Lattice.cubic(9), ["Si"] * 27, grid + 0.05 * rng.random((27, 3)))
    loose.to(filename=str(tmp_path / "loose.cif"))
    structures()["nacl"].to(filename=str(tmp_path / "nacl.cif"))
    data, rejected = read(tmp_path, Source(workers=1, max_orbits=20))
    assert data.ids == ("nacl",)
    assert rejected == {"loose": "orbits=27: more than max_orbits=20"}


# -- sources of no use -----------------------------------------------------------------------------------


def table(**columns: list[str]) -> Callable[[Path], None]:
    return lambda path: pd.DataFrame(columns).to_csv(path, index=False)


NACL = {"prototype": ["rocksalt"], "elements": ["Na Cl"]}


@pytest.mark.parametrize(
    ("name", "make", "columns", "says"),
    [
        ("gone.cif", None, {}, "no such file or folder"),
        ("a.docx", lambda p: p.write_text("x"), {}, "unknown format"),
        ("a.cif", lambda p: p.write_text(""), {}, "the file is empty"),
        ("a.cif", lambda p: p.write_text("data_x\n"), {}, "no atom sites"),
        ("a.cif", lambda p: p.write_bytes(b"\xff\xfe\x00\x81"), {}, "cannot be read as text"),
        ("a.cif.gz", lambda p: p.write_bytes(b"not gzip"), {}, "cannot be read as text"),
        ("a.json", lambda p: p.write_text("{"), {}, "not valid JSON"),
        ("a.json", lambda p: p.write_text("3"), {}, "neither structures"),
        ("a.json", lambda p: p.write_text("[]"), {}, "there are none"),
        ("a.parquet", lambda p: p.write_bytes(b"PAR1 truncated"), {}, "cannot be read as parquet"),
        ("a.csv", lambda p: p.write_text(""), {}, "cannot be read as csv"),
        ("a.csv", lambda p: p.write_text("cif,band_gap\n"), {}, "no rows"),
        ("a.csv", table(formula=["NaCl"]), {}, "no column holds crystals.*it|has formula"),
        ("a.csv", table(**NACL), {"structure": "cif"}, "structure='cif': no such column"),
        ("a.csv", table(**NACL), {"identifier": "nr"}, "identifier='nr': no such column"),
        ("a.csv", table(**NACL), {"properties": ("band_gap",)}, "properties='band_gap': no such column"),
        ("a.csv", table(**NACL, note=["x"]), {"properties": ("note",)}, "properties='note'.*not numeric"),
        ("a.csv", table(**NACL), {"prototype": "rocksolt"}, "did you mean rocksalt"),
        ("a.csv", table(**NACL), {"prototype": "rocksalt", "elements": ("A", "B")}, "elements='A': no such column"),
        ("a.csv", table(prototype=["rocksalt"], elements=["Na Qq"]), {}, "none of 1 rows.*Qq"),
    ],
)
def test_sources_of_no_use_are_one_line(
    tmp_path: Path, name: str, make: Callable[[Path], object] | None, columns: dict[str, object], says: str
) -> None:
    if make is not None:
        make(tmp_path / name)
    with pytest.raises(ValueError, match=says) as caught:
        read(tmp_path / name, Source(TableColumns(**columns), workers=1))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no structure file"):
        read(tmp_path)


def test_rejected_rows_are_written_whole(tmp_path: Path) -> None:
    write_rejected([Rejected("a", "no atoms"), Rejected("b", "id='b': occurred before")], tmp_path / "rejected.parquet")
    frame = pd.read_parquet(tmp_path / "rejected.parquet")
    assert frame.to_dict("list") == {"id": ["a", "b"], "reason": ["no atoms", "id='b': occurred before"]}
    assert [p.name for p in tmp_path.iterdir()] == ["rejected.parquet"]
    write_rejected([], tmp_path / "rejected.parquet")
    assert list(pd.read_parquet(tmp_path / "rejected.parquet").columns) == ["id", "reason"]


def test_nothing_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    logging.getLogger("moyo").setLevel(logging.ERROR)
    for name, structure in structures().items():
        structure.make_supercell([2, 1, 1], in_place=False).to(filename=str(tmp_path / f"{name}.cif"))
    read(tmp_path)
    assert [r.getMessage() for r in caplog.records if r.name.startswith("moyo")] == []


def test_the_library_can_be_the_users_own(tmp_path: Path) -> None:
    structures()["tio2"].to(filename=str(tmp_path / "mine.cif"))
    library = prototype_library().with_files([tmp_path / "mine.cif"])
    pd.DataFrame({"prototype": ["mine"], "elements": ["Sn O"]}).to_csv(tmp_path / "table.csv", index=False)
    data, _ = read_crystals(tmp_path / "table.csv", SERIAL, library)
    assert data.prototype == ("mine",) and data.keys() == ["136|a:Sn f:O"]
