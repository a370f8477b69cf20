"""Symmetries of the network."""

from __future__ import annotations

import pytest
import torch

from data.prototype_table import PrototypeTable
from data.prototypes import prototype_library
from generators.denoiser.orbit_denoiser import DenoiserConfig, OrbitDenoiser


@pytest.mark.parametrize("name", ["elpasolite", "quaternary_heusler", "wurtzite", "half_heusler"])
def test_equivalent_orders_permute_the_logits(name: str) -> None:
    """Elements exchanged on equivalent sites (A and B of an elpasolite) give exchanged predictions."""
    torch.manual_seed(0)
    table = PrototypeTable.build([prototype_library().get("perovskite"), prototype_library().get(name)])
    network = OrbitDenoiser(1, 2, DenoiserConfig(width=32, depth=2)).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    k = len(table.prototypes[1].letters)
    width = table.mask.shape[1]
    elements = torch.zeros(1, width, dtype=torch.long)
    elements[0, :k] = torch.tensor([11, 0, 17, 26])[:k]
    condition = torch.randn(1, 32).double()
    row = torch.tensor([1])
    double = PrototypeTable(*(
        x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x
        for x in (
            table.prototypes, table.space_group, table.site, table.leader, table.multiplicity, table.mask,
            table.distance, table.coordination,
        )
    ))  # fmt: skip
    plain = network(double, row, elements, condition)
    orders = table.prototypes[1].equivalent_orders
    assert len(orders) > 1
    for order in orders:
        index = torch.tensor([*order, *range(k, width)])
        permuted = network(double, row, elements[:, index], condition)
        assert torch.allclose(permuted, plain[:, index], atol=1e-9)


def test_inequivalent_sites_are_told_apart() -> None:
    torch.manual_seed(0)
    table = PrototypeTable.build([prototype_library().get("elpasolite")])
    network = OrbitDenoiser(1, 1, DenoiserConfig(width=32, depth=2))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    logits = network(table, torch.zeros(1, dtype=torch.long), torch.zeros(1, 4, dtype=torch.long), torch.randn(1, 32))
    assert torch.allclose(logits[0, 0], logits[0, 1], atol=1e-4)
    assert not torch.allclose(logits[0, 0], logits[0, 2], atol=1e-2)
    assert not torch.allclose(logits[0, 2], logits[0, 3], atol=1e-2)


def test_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    library = prototype_library()
    small = PrototypeTable.build([library.get("rocksalt")])
    wide = PrototypeTable.build([library.get("rocksalt"), library.get("elpasolite")])
    network = OrbitDenoiser(0, 1, DenoiserConfig(width=32, depth=2)).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    condition, row = torch.randn(1, 32), torch.zeros(1, dtype=torch.long)
    narrow_logits = network(small, row, torch.tensor([[11, 0]]), condition)
    wide_logits = network(wide, row, torch.tensor([[11, 0, 0, 0]]), condition)
    assert torch.allclose(narrow_logits[0], wide_logits[0, :2], atol=1e-4)
