from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from data.decoration import canonical_elements, decoration_codes
from data.prototype_table import PrototypeTable
from data.prototypes import prototype_library
from generators.screening.baselines import random_decorations


def table(*names: str) -> PrototypeTable:
    return PrototypeTable.build([prototype_library().get(name) for name in names])


def draw(prototypes: PrototypeTable, elements: list[int], n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return random_decorations(prototypes, torch.arange(len(prototypes)), elements, n, generator)


def test_every_decoration_is_equally_likely() -> None:
    elements = [3, 8, 26, 29, 50]
    _, drawn = draw(table("half_heusler"), elements, 24_000)
    rows = [tuple(x) for x in drawn[:, :3].tolist()]
    counts = [rows.count(order) for order in permutations(elements, 3)]
    assert sum(counts) == 24_000
    assert chisquare(counts).pvalue > 1e-3


def test_every_distinct_crystal_is_equally_likely() -> None:
    """A prototype with equivalent sites must not favour crystals that can be written in more ways."""
    prototypes = table("elpasolite")
    row, drawn = draw(prototypes, [3, 8, 26, 29, 50], 24_000, seed=1)
    _, counts = np.unique(decoration_codes(prototypes, row, drawn), return_counts=True)
    assert len(counts) == 5 * 4 * 3 * 2 // 2
    assert chisquare(counts).pvalue > 1e-3


def test_prototypes_are_equally_likely() -> None:
    row, _ = draw(table("rocksalt", "perovskite", "spinel"), list(range(3, 20)), 9000)
    assert chisquare(np.bincount(row.numpy())).pvalue > 1e-3


def test_slots_differ_orbits_of_one_slot_agree_and_padding_is_empty() -> None:
    prototypes = table("rocksalt", "argyrodite", "garnet")
    row, drawn = draw(prototypes, list(range(3, 40)), 2000)
    for prototype, elements in zip([prototypes.prototypes[i] for i in row.tolist()], drawn.tolist(), strict=True):
        n = len(prototype.letters)
        by_slot = {slot: {elements[i] for i in range(n) if prototype.species[i] == slot} for slot in prototype.species}
        assert all(len(x) == 1 for x in by_slot.values())
        assert len(set.union(*by_slot.values())) == prototype.n_species
        assert not any(elements[n:])


def test_codes_are_equal_exactly_for_equivalent_decorations() -> None:
    prototypes = table("elpasolite", "rocksalt")
    row = torch.tensor([0, 0, 0, 1, 1])
    elements = torch.tensor([[13, 11, 19, 9], [11, 13, 19, 9], [13, 11, 9, 19], [11, 17, 0, 0], [17, 11, 0, 0]])
    codes = decoration_codes(prototypes, row, elements)
    assert codes[0] == codes[1] != codes[2]
    assert codes[3] == codes[4]
    assert canonical_elements(prototypes, row, elements).tolist()[0] == [11, 13, 19, 9]


def test_the_same_seed_draws_the_same() -> None:
    first, second = draw(table("spinel"), [3, 8, 26, 29], 50), draw(table("spinel"), [3, 8, 26, 29], 50)
    assert torch.equal(first[1], second[1])


def test_too_few_elements_are_named() -> None:
    with pytest.raises(ValueError, match=r"elements: 3 given.*4 different"):
        draw(table("elpasolite"), [3, 8, 26], 1)
