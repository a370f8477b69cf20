from __future__ import annotations

import importlib.util
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.wyckoff import wyckoff_table

TABLE = wyckoff_table()


def standard_hall_number(space_group: int) -> int:
    """spglib's Hall number of the ITA standard setting: unique axis b, hexagonal axes, origin choice 2."""
    import spglib

    kinds: dict[int, Any] = {h: spglib.get_spacegroup_type(h) for h in range(1, 531)}
    halls = [h for h, kind in kinds.items() if kind.number == space_group]
    return next((h for h in halls if kinds[h].choice in {"2", "H", "b", "b1"}), halls[0])


def test_there_are_1731_positions_in_230_groups() -> None:
    assert len(TABLE.letter) == 1731
    assert TABLE.n_positions[1:].sum() == 1731
    assert int(TABLE.n_positions[47]) == 27  # Pmmm, the only group that runs out of the alphabet
    assert TABLE.letter[int(TABLE.position_start[47]) + 26] == "A"


@pytest.mark.parametrize(
    ("space_group", "letter", "multiplicity", "primitive", "free"),
    [
        (225, "e", 24, 6, 1),
        (227, "d", 16, 4, 0),
        (166, "h", 18, 6, 2),
        (194, "f", 4, 4, 1),
        (62, "c", 4, 4, 2),
        (1, "a", 1, 1, 3),
        (230, "h", 96, 48, 3),
    ],
)
def test_known_positions(space_group: int, letter: str, multiplicity: int, primitive: int, free: int) -> None:
    position = TABLE.index(space_group, letter)
    assert int(TABLE.multiplicity[position]) == multiplicity
    assert int(TABLE.primitive_multiplicity[position]) == primitive
    assert int(TABLE.degrees_of_freedom[position]) == free


def test_general_positions_are_the_operations_that_spglib_lists() -> None:
    import spglib

    for number in range(1, 231):
        reference: Any = spglib.get_symmetry_from_database(standard_hall_number(number))
        general = int(TABLE.position_start[number] + TABLE.n_positions[number]) - 1
        assert int(TABLE.multiplicity[general]) == len(reference["rotations"])
        primitive = TABLE.primitive_rows[number].numpy()
        to_primitive = np.linalg.inv(primitive)

        def signature(rotation: np.ndarray, shift: np.ndarray) -> tuple[int, ...]:
            inside = np.mod(np.round((shift @ to_primitive) * 24), 24)  # noqa: B023
            return (*rotation.ravel().astype(int).tolist(), *inside.astype(int).tolist())

        theirs = {signature(r, t) for r, t in zip(reference["rotations"], reference["translations"], strict=True)}
        ours = {signature(np.round(op[:, :3]), op[:, 3]) for op in TABLE.images(general).numpy()}
        assert ours == theirs, number


def test_centering_relates_the_two_multiplicities() -> None:
    cells = np.round(1 / np.abs(np.linalg.det(TABLE.primitive_rows[1:].numpy()))).astype(int)
    expected = {"P": 1, "A": 2, "C": 2, "I": 2, "R": 3, "F": 4}
    assert [expected[c] for c in TABLE.centering[1:]] == cells.tolist()
    per_position = cells[TABLE.space_group.numpy() - 1]
    assert np.array_equal(TABLE.multiplicity.numpy(), TABLE.primitive_multiplicity.numpy() * per_position)


def test_polar_axes_are_those_of_the_pyroelectric_classes() -> None:
    polar = [n for n in range(1, 231) if bool(TABLE.polar[n].any())]
    classes = [1, *range(3, 10), *range(25, 47), *range(75, 81), *range(99, 111), *range(143, 147)]
    classes += [*range(156, 162), *range(168, 174), *range(183, 187)]
    assert polar == classes
    assert TABLE.polar[1].tolist() == [True] * 3
    assert TABLE.polar[8].tolist() == [True, False, True]


@pytest.mark.parametrize(("space_group", "letter"), [(225, "z"), (0, "a"), (231, "a"), (225, "A")])
def test_what_does_not_exist_is_named(space_group: int, letter: str) -> None:
    with pytest.raises(ValueError, match=f"{letter!r}|space_group={space_group}"):
        TABLE.index(space_group, letter)


@pytest.mark.slow
def test_rebuilding_gives_the_shipped_table() -> None:
    pytest.importorskip("pyxtal")
    path = Path(__file__).parents[2] / "scripts" / "build_wyckoff_tables.py"
    spec = importlib.util.spec_from_file_location("build_wyckoff_tables", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    built = module.build()
    with (files("data.tables") / "wyckoff.npz").open("rb") as handle, np.load(handle) as shipped:
        assert set(shipped.files) == set(built)
        for name in shipped.files:
            if shipped[name].dtype.kind == "f":
                assert np.allclose(shipped[name], built[name], atol=1e-6), name
            else:
                assert np.array_equal(shipped[name], built[name]), name
