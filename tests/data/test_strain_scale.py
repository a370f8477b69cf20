"""Lattices on a common scale: there and back, and volumes that were planted are found again."""

from __future__ import annotations

from collections.abc import Callable

import torch

from data.lattice import FAMILIES, crystal_family
from data.orbit_batch import OrbitBatch
from data.strain_scale import StrainScale, element_fractions, fit_atomic_volumes
from data.wyckoff import wyckoff_table

MakeBatch = Callable[..., OrbitBatch]


def planted(batch: OrbitBatch) -> tuple[OrbitBatch, torch.Tensor]:
    """The same crystals with a cell that is exactly the sum of volumes per element."""
    volume = 5 + 0.4 * torch.arange(119, dtype=torch.float64)
    conventional = wyckoff_table().multiplicity[batch.position] * batch.mask
    strain = batch.strain.clone()
    strain[:, 0] = (volume[batch.atomic_number] * conventional).sum(1).log()
    return batch.replace(strain=strain), volume


def test_planted_volumes_are_found_again(random_batch: MakeBatch) -> None:
    batch, volume = planted(random_batch(400, seed=0))
    scale = StrainScale.fit(batch)
    present = torch.unique(batch.atomic_number[batch.mask])
    assert torch.allclose(scale.atomic_volume[present], volume[present], rtol=1e-4)
    absent = torch.ones(119, dtype=torch.bool)
    absent[present] = False
    assert torch.allclose(scale.atomic_volume[absent], scale.atomic_volume[present].mean())
    per_cell = (volume[batch.atomic_number] * batch.multiplicity).sum(1)
    assert torch.allclose(scale.expected_volume(batch).double(), per_cell, rtol=1e-4)
    # What is left of the volume is nothing, whatever the centring of the cell.
    standard = scale.to_standard(batch, batch.strain)
    assert float((standard[:, 0] * scale.std[crystal_family(batch.space_group), 0]).abs().max()) < 1e-3


def test_fit_of_atomic_volumes_never_gives_a_negative_one() -> None:
    fractions = torch.zeros(3, 119)
    fractions[0, 3], fractions[1, 8] = 1.0, 1.0
    fractions[2, 3] = fractions[2, 8] = 0.5
    volume = fit_atomic_volumes(fractions, torch.tensor([20.0, 0.5, 4.0]))
    assert bool((volume >= 0).all()) and float(volume[8]) < float(volume[3])


def test_standard_components_come_back(random_batch: MakeBatch) -> None:
    batch = random_batch(300, seed=1)
    scale = StrainScale.fit(batch)
    standard = scale.to_standard(batch, batch.strain)
    assert torch.allclose(scale.from_standard(batch, standard), batch.strain, atol=1e-9)
    assert bool((standard[~batch.strain_mask] == 0).all())
    family = crystal_family(batch.space_group)
    for i in range(len(FAMILIES)):
        rows = standard[family == i]
        if len(rows) < 10:  # the spread of a few may lie below the least one
            continue
        free = batch.strain_mask[family == i][0]
        assert torch.allclose(rows[:, free].mean(0), torch.zeros(1, dtype=torch.float64), atol=1e-6)
        assert torch.allclose(rows[:, free].std(0), torch.ones(1, dtype=torch.float64), atol=1e-5)


def test_a_checkpoint_holds_all_of_it(random_batch: MakeBatch) -> None:
    scale = StrainScale.fit(random_batch(100, seed=2))
    again = StrainScale(**scale.state())
    batch = random_batch(20, seed=3)
    assert torch.equal(again.to_standard(batch, batch.strain), scale.to_standard(batch, batch.strain))


def test_shares_of_elements_sum_to_one(random_batch: MakeBatch) -> None:
    batch = random_batch(50, seed=4)
    shares = element_fractions(batch)
    assert torch.allclose(shares.sum(1), torch.ones(50, dtype=torch.float64))
    for i, crystal in enumerate(batch.to_crystals()):
        for element, share in crystal.composition.fractional_composition.items():
            assert abs(float(shares[i, element.Z]) - share) < 1e-9
