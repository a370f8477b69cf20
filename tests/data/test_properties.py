from __future__ import annotations

import math

import pytest
import torch

from data.properties import PropertySpec, known_properties, known_property


def test_units_of_the_known_properties() -> None:
    units = {name: known_property(name).unit for name in known_properties()}
    assert units["formation_energy_per_atom"] == "eV/atom"
    assert units["volume_per_atom"] == "Å^3"
    assert units["magnetization_density"] == "µB/Å^3"
    assert units["bulk_modulus"] == "GPa"
    assert units["e_above_hull"] == "eV/atom"
    assert units["band_gap"] == "eV"


def test_model_scale_is_inverted() -> None:
    x = torch.tensor([0.5, 1.0, math.e, 300.0, math.nan], dtype=torch.float64)
    for name in ("bulk_modulus", "band_gap", "my_own_column"):
        spec = known_property(name)
        assert torch.allclose(spec.from_model(spec.to_model(x)), x, equal_nan=True)
    assert known_property("bulk_modulus").to_model(x)[2] == pytest.approx(1.0)
    assert known_property("band_gap").to_model(x)[2] == pytest.approx(math.e)


def test_logarithm_of_what_has_none_is_unknown() -> None:
    assert torch.isnan(known_property("bulk_modulus").to_model(torch.tensor([0.0, -3.0]))).all()


def test_an_unknown_column_is_a_plain_property() -> None:
    assert known_property("color_index") == PropertySpec("color_index")
    assert known_property("color_index").problem(-1e9) == ""


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("band_gap", -0.1, "band_gap=-0.1: outside [0, 25] eV"),
        ("formation_energy_per_atom", 80, "formation_energy_per_atom=80: outside [-10, 10] eV/atom"),
        ("bulk_modulus", 0, "bulk_modulus=0: outside [0, 2000] GPa"),
        ("band_gap", math.inf, "band_gap=inf: is not finite"),
        ("band_gap", math.nan, ""),
        ("band_gap", 0, ""),
    ],
)
def test_impossible_labels_are_named(name: str, value: float, problem: str) -> None:
    assert known_property(name).problem(value) == problem


@pytest.mark.parametrize(
    "wrong", [{"transform": "sqrt"}, {"lower": 2, "upper": 1}, {"transform": "log"}, {"transform": "log", "lower": -1}]
)
def test_contradictory_specifications_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="of x"):
        PropertySpec("x", **wrong)  # type: ignore[arg-type]
