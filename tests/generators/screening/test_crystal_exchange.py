"""Ion exchange of any crystals: one element for another everywhere, the cell follows the atoms' volumes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from data.orbit_batch import OrbitBatch
from data.protostructure import protostructure_label
from generators.screening.atomic_volumes import additive_volume, atomic_volumes
from generators.screening.crystal_exchange import exchange_crystals, with_elements
from generators.screening.ion_exchange import group_neighbours, substitution_weights

ELEMENTS = (3, 8, 11, 12, 17, 20, 22, 26, 38, 56)


@pytest.fixture
def exchanged(random_batch: Callable[..., OrbitBatch]) -> tuple[OrbitBatch, OrbitBatch]:
    """Parents and their children, row by row."""
    parents = random_batch(200, seed=1, elements=ELEMENTS)
    children, row = exchange_crystals(parents, torch.Generator().manual_seed(0))
    assert len(children) > 150
    return parents.select(row), children


def test_every_element_has_one_image_and_no_two_share_one(exchanged: tuple[OrbitBatch, OrbitBatch]) -> None:
    changed = 0
    for parent, child in zip(*(batch.to_crystals() for batch in exchanged), strict=True):
        images = dict(zip(parent.atomic_numbers, child.atomic_numbers, strict=True))
        assert child.atomic_numbers == tuple(images[z] for z in parent.atomic_numbers)
        assert len(set(images.values())) == len(images)
        assert any(z != image for z, image in images.items())
        assert all(z == image or float(substitution_weights()[z, image]) > 0 for z, image in images.items())
        assert protostructure_label(parent) == protostructure_label(child)
        changed += sum(z != image for z, image in images.items()) > 1
    assert 10 < changed < len(exchanged[0])


def test_cells_scale_with_the_sum_of_the_atoms_volumes(exchanged: tuple[OrbitBatch, OrbitBatch]) -> None:
    parents, children = exchanged
    ratio = (children.strain[:, 0] - parents.strain[:, 0]).exp()
    volume = atomic_volumes()
    for i, (before, after) in enumerate(zip(parents.to_crystals(), children.to_crystals(), strict=True)):
        sums = [
            sum(float(volume[z]) * m for z, m in zip(c.atomic_numbers, c.multiplicities, strict=True))
            for c in (before, after)
        ]
        assert float(ratio[i]) == pytest.approx(sums[1] / sums[0], rel=1e-6)
    assert torch.equal(parents.strain[:, 1:], children.strain[:, 1:])
    assert torch.equal(parents.coordinates, children.coordinates)


def test_volumes_of_the_elements_are_those_of_crystals() -> None:
    volume = atomic_volumes()
    assert bool((volume > 0).all())
    assert float(volume[56]) > float(volume[20]) > float(volume[12])  # Ba, Ca, Mg


def test_the_same_elements_change_nothing(random_batch: Callable[..., OrbitBatch]) -> None:
    batch = random_batch(10, seed=2)
    same = with_elements(batch, batch.atomic_number)
    assert torch.allclose(same.strain, batch.strain)
    assert torch.allclose(additive_volume(same), additive_volume(batch))


def test_only_allowed_elements_come_in(random_batch: Callable[..., OrbitBatch]) -> None:
    parents = random_batch(100, seed=3, elements=ELEMENTS)
    allowed = (9, 12, 19, 35)
    children, row = exchange_crystals(parents, torch.Generator().manual_seed(1), elements=allowed)
    for parent, child in zip(parents.select(row).to_crystals(), children.to_crystals(), strict=True):
        assert set(child.atomic_numbers) - set(parent.atomic_numbers) <= set(allowed)
    by_group, row = exchange_crystals(parents, torch.Generator().manual_seed(1), similarity="group")
    for parent, child in zip(parents.select(row).to_crystals(), by_group.to_crystals(), strict=True):
        pairs = zip(parent.atomic_numbers, child.atomic_numbers, strict=True)
        assert all(z == image or float(group_neighbours()[z, image]) > 0 for z, image in pairs)


def test_one_element_at_a_time_if_asked(random_batch: Callable[..., OrbitBatch]) -> None:
    parents = random_batch(60, seed=4, elements=ELEMENTS)
    children, row = exchange_crystals(parents, torch.Generator().manual_seed(1), one=1.0)
    for parent, child in zip(parents.select(row).to_crystals(), children.to_crystals(), strict=True):
        pairs = set(zip(parent.atomic_numbers, child.atomic_numbers, strict=True))
        assert sum(z != image for z, image in pairs) == 1
