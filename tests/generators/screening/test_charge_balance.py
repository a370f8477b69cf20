"""Charge balance against SMACT's own enumeration."""

from __future__ import annotations

import numpy as np
from pymatgen.core import Composition, Element
from smact.screening import smact_validity

from generators.screening.charge_balance import balanced_or_alloy, charge_balanced


def test_same_as_smact() -> None:
    rng = np.random.default_rng(0)
    answers = []
    for _ in range(300):
        n = int(rng.integers(1, 5))
        numbers = rng.choice(np.arange(1, 95), size=n, replace=False).tolist()
        counts = rng.integers(1, 7, size=n).tolist()
        composition = Composition({Element.from_Z(z): m for z, m in zip(numbers, counts, strict=True)})
        expected = smact_validity(composition, use_pauling_test=True, include_alloys=False)
        assert charge_balanced(numbers, counts) == expected, composition.formula
        answers.append(expected)
    assert 0.1 < np.mean(answers) < 0.9


def test_alloys_count_as_valid_compositions_like_smact_says() -> None:
    for formula in ("Cu3Au", "NaCl", "NaCl2", "MgZn2", "FeS", "Ni3Sn", "NiSi"):
        composition = Composition(formula)
        numbers = [int(e.Z) for e in composition]
        counts = [int(composition[e]) for e in composition]
        assert balanced_or_alloy(numbers, counts) == smact_validity(composition, include_alloys=True), formula
    assert balanced_or_alloy([29, 79], [3, 1]) and not charge_balanced([29, 79], [3, 1])
    assert not balanced_or_alloy([11, 17], [1, 2])


def test_known_answers() -> None:
    assert charge_balanced([11, 17], [4, 4])
    assert charge_balanced([26, 8], [3, 4]) == smact_validity("Fe3O4", include_alloys=False)
    assert not charge_balanced([11, 17], [1, 2])
