"""Features of a surrogate: the crystal counts, not how it is written."""

from __future__ import annotations

import torch

from data.crystal import Crystal
from data.exchanges import load_exchanges
from data.orbit_batch import OrbitBatch
from generators.element_features import N_STATES
from generators.screening.crystal_features import N_RADIAL, crystal_features

STRAIN = (4.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def cesium_chloride(first: int, second: int) -> Crystal:
    return Crystal(221, ("a", "b"), (first, second), ((0.0, 0.0, 0.0),) * 2, STRAIN)


def test_shares_and_neighbours_of_cesium_chloride() -> None:
    x = crystal_features(OrbitBatch.from_crystals([cesium_chloride(55, 17)]))
    assert float(x[0, 55]) == float(x[0, 17]) == 0.5 and float(x[0, :N_STATES].sum()) == 1.0
    # Volume per atom v: 8 neighbours at sqrt(3)/2 (2 v)^(1/3) and 6 at (2 v)^(1/3).
    distance = torch.tensor([3**0.5 / 2, 1.0, 2**0.5, 11**0.5 / 2, 3**0.5, 2.0, 19**0.5 / 2]) * 2 ** (1 / 3)
    count = torch.tensor([8.0, 6.0, 12.0, 24.0, 8.0, 6.0, 24.0])
    grid = torch.linspace(0.25, 2.35, N_RADIAL)
    spacing = grid[1] - grid[0]
    inside = distance < 2.35 + spacing
    expected = (count * inside) @ torch.exp(-0.5 * ((distance[:, None] - grid) / spacing) ** 2)
    torch.testing.assert_close(x[0, -6 * N_RADIAL : -5 * N_RADIAL], expected, rtol=1e-3, atol=1e-3)


def test_the_order_of_orbits_the_origin_and_the_padding_do_not_matter() -> None:
    one, other = cesium_chloride(55, 17), cesium_chloride(17, 55)
    large = load_exchanges().batch.select(torch.arange(1))
    alone = crystal_features(OrbitBatch.from_crystals([one]))
    together = crystal_features(OrbitBatch.concatenate([large, OrbitBatch.from_crystals([other, one])]))
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(together[2:], alone, rtol=1e-4, atol=1e-4)
    assert (together[0] - alone[0]).abs().max() > 0.1


def test_no_crystals_have_no_features() -> None:
    batch = OrbitBatch.from_crystals([cesium_chloride(55, 17)])
    none = crystal_features(batch.select(torch.arange(0)))
    assert none.shape == (0, crystal_features(batch).shape[1])
