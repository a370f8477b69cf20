from __future__ import annotations

import pytest
from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY

from data.crystal import Crystal
from data.protostructure import crystal_key, crystal_of_key, label_of, protostructure_label
from data.prototypes import prototype_library

NO_STRAIN = (5.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("elpasolite", "ABC2D6_cF40_225_a_b_c_e"),
        ("rocksalt", "AB_cF8_225_a_b"),
        ("perovskite", "ABC3_cP5_221_a_b_c"),
        ("spinel", "AB2C4_cF56_227_a_d_e"),
        ("diamond", "A_cF8_227_a"),
        ("corundum", "A2B3_hR10_167_c_e"),
        ("orthorhombic_perovskite", "ABC3_oP20_62_a_c_cd"),
    ],
)
def test_known_labels(name: str, label: str) -> None:
    assert prototype_library().get(name).label == label


def test_labels_agree_with_aflow_on_pearson_symbol_and_space_group() -> None:
    """Four AFLOW entries carry a tag of a lower symmetry than their own coordinates have."""
    different = []
    for entry, prototype in zip(AFLOW_PROTOTYPE_LIBRARY, prototype_library(), strict=False):
        theirs, ours = entry["tags"]["aflow"].split("_")[1:3], prototype.label.split("_")[1:3]
        if theirs != ours:
            different.append((entry["tags"]["aflow"], prototype.label))
    assert different == [
        ("AB3_tI16_140_b_ah", "AB3_tP4_123_a_ce"),
        ("AB4_oC20_41_a_2b", "AB4_oC20_68_a_i"),
        ("AB_oP8_33_a_a", "AB_oP8_62_c_c"),
        ("A2B_oC12_38_de_ab", "AB2_oC12_63_c_g"),
    ]


def test_label_does_not_depend_on_origin_order_or_names() -> None:
    expected = label_of(225, ("a", "b", "c", "e"), ("Na", "Al", "K", "F"))
    assert label_of(225, ("e", "c", "a", "b"), (9, 19, 13, 11)) == expected
    assert label_of(216, ("a", "c"), (0, 1)) == label_of(216, ("b", "d"), ("x", "y"))


def test_key_is_one_for_exchanged_origins_and_two_for_exchanged_roles() -> None:
    def half_heusler(a: int, b: int, c: int) -> Crystal:
        return Crystal(216, ("a", "b", "c"), (a, b, c), ((0.0, 0.0, 0.0),) * 3, NO_STRAIN)

    assert crystal_key(half_heusler(12, 33, 47)) == crystal_key(half_heusler(33, 12, 47))
    assert crystal_key(half_heusler(12, 33, 47)) != crystal_key(half_heusler(12, 47, 33))
    assert protostructure_label(half_heusler(12, 33, 47)) == protostructure_label(half_heusler(12, 47, 33))


def test_key_names_group_letters_and_elements() -> None:
    crystal = Crystal(225, ("b", "a"), (17, 11), ((0.0, 0.0, 0.0),) * 2, NO_STRAIN)
    assert crystal_key(crystal) == "225|a:Na b:Cl"


def test_a_key_gives_sites_and_elements_back() -> None:
    crystal = Crystal(62, ("c", "a", "c", "d"), (38, 22, 8, 8), ((0.1, 0.0, 0.2),) * 4, NO_STRAIN)
    again = crystal_of_key(crystal_key(crystal))
    assert crystal_key(again) == crystal_key(crystal)
    assert protostructure_label(again) == protostructure_label(crystal)
    assert again.reduced_formula == crystal.reduced_formula
    assert not again.coordinate_array().any()
