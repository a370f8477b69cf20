"""Ion exchange against what a chemist would do."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from pymatgen.core import Element

from data.decoration import dataset_decorations, decoration_codes, to_orbit_batch
from data.decorations import load_decorations
from data.protostructure import crystal_key, protostructure_label
from data.prototype_table import PrototypeTable
from data.prototypes import prototype_library
from generators.screening.ion_exchange import (
    elements_from_key,
    exchanged,
    group_neighbours,
    known_decorations,
    substitution_weights,
)


def z(symbol: str) -> int:
    return int(Element(symbol).Z)


@pytest.fixture(scope="module")
def table() -> PrototypeTable:
    return PrototypeTable.build([prototype_library().get(x) for x in ("rocksalt", "perovskite", "elpasolite", "pbfcl")])


def test_neighbours_are_the_chemist_s() -> None:
    groups = group_neighbours()
    assert groups[z("K")].nonzero().ravel().tolist() == [z("Na"), z("Rb")]
    assert groups[z("Nd")].nonzero().ravel().tolist() == [z("Ce"), z("Pr"), z("Pm"), z("Sm")]
    assert torch.equal(groups, groups.T)
    weights = substitution_weights()
    assert weights.diagonal().sum() == 0
    assert weights[z("Na")].topk(2).indices.tolist() == [z("K"), z("Li")]
    assert weights[z("La"), z("Nd")] > 10 * weights[z("La"), z("Cs")]


def test_keys_are_read_back_as_the_decorations_they_came_from(table: PrototypeTable) -> None:
    dataset = load_decorations()
    inside = torch.tensor([name in ("rocksalt", "perovskite", "elpasolite") for name in dataset.prototype])
    dataset = dataset.select(inside.nonzero().ravel()[:300])
    crystals = dataset.batch.to_crystals()
    compounds = pd.DataFrame(
        {
            "protostructure": [protostructure_label(c) for c in crystals],
            "crystal_key": [crystal_key(c) for c in crystals],
        }
    )
    row, elements, index = known_decorations(table, torch.arange(len(table)), compounds)
    assert index.tolist() == list(range(len(dataset)))
    expected = decoration_codes(table, *dataset_decorations(dataset, table))
    assert (decoration_codes(table, row, elements) == expected).all()


def test_a_letter_that_occurs_twice_still_gives_a_decoration(table: PrototypeTable) -> None:
    row = table.names.index("pbfcl")
    crystal = table.prototypes[row].crystal([82, 9, 17])
    found = elements_from_key(table, row, crystal_key(crystal))
    assert found is not None and sorted(found) == [9, 17, 82]
    again = to_orbit_batch(table, torch.tensor([row]), torch.tensor([[*found, *[0] * (4 - len(found))]]))
    assert protostructure_label(again.to_crystals()[0]) == protostructure_label(crystal)
    assert elements_from_key(table, row, "225|a:Na b:Cl") is None


@pytest.mark.parametrize("similarity", ["probability", "group"])
def test_children_resemble_their_parent(table: PrototypeTable, similarity: str) -> None:
    parent = (torch.tensor([1]), torch.tensor([[z("Sr"), z("Ti"), z("O"), 0]]))
    allowed = [z(x) for x in ("Ca", "Sr", "Ba", "Ti", "Zr", "Hf", "O", "S", "Xe")]
    orders = {p: table.prototypes[1].letters.index(p) for p in table.prototypes[1].letters}
    assert len(orders) == 3
    row, elements = exchanged(table, parent, allowed, 500, torch.Generator().manual_seed(0), similarity)
    assert (row == 1).all() and elements.shape == (500, table.mask.shape[1])
    assert not (elements[:, :3] == parent[1][0, :3]).all(1).any()
    assert set(elements[:, :3].ravel().tolist()) <= set(allowed)
    similar = substitution_weights() if similarity == "probability" else group_neighbours()
    for before, column in zip(parent[1][0, :3].tolist(), elements[:, :3].T, strict=True):
        new = column[column != before]
        assert len(new) and (similar[before, new] > 0).all()


def test_forbidden_elements_are_replaced_and_hopeless_wishes_are_told(table: PrototypeTable) -> None:
    parent = (torch.tensor([0]), torch.tensor([[z("Na"), z("Cl"), 0, 0]]))
    _, elements = exchanged(table, parent, [z("K"), z("Rb"), z("Cl")], 50, torch.Generator().manual_seed(0))
    assert set(elements[:, :2].ravel().tolist()) <= {z("K"), z("Rb"), z("Cl")}
    with pytest.raises(ValueError, match="do not resemble"):
        exchanged(table, parent, [z("Xe"), z("He")], 5, torch.Generator().manual_seed(0), "group")
    nothing = (torch.zeros(0, dtype=torch.long), torch.zeros(0, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="no known compound"):
        exchanged(table, nothing, [11, 17], 5, torch.Generator())
