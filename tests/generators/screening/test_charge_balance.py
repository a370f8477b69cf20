"""Charge balance against SMACT's own enumeration."""

from __future__ import annotations

import numpy as np
from pymatgen.core import Composition, Element
from smact.screening import smact_validity

from generators.screening.charge_balance import charge_balanced


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


def test_known_answers() -> None:
    assert charge_balanced([11, 17], [4, 4])
    assert charge_balanced([26, 8], [3, 4]) == smact_validity("Fe3O4", include_alloys=False)
    assert not charge_balanced([11, 17], [1, 2])
