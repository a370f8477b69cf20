"""Volumes of crystals from those of their elements."""

from __future__ import annotations

import pytest
import torch

from data.decorations import load_decorations
from data.orbit_batch import OrbitBatch
from data.prototypes import prototype_library
from generators.screening.atomic_volumes import additive_volume, atomic_volumes


def test_volumes_grow_down_a_group_and_are_additive() -> None:
    volume = atomic_volumes()
    assert volume[3] < volume[11] < volume[19] < volume[37] < volume[55]  # Li to Cs
    assert volume[9] < volume[17] < volume[35] < volume[53]  # F to I
    assert (volume[1:95] > 0).all()
    batch = OrbitBatch.from_crystals([prototype_library().get("fluorite").crystal([20, 9])])
    assert additive_volume(batch).item() == pytest.approx((volume[20] + 2 * volume[9]).item() / 3)


def test_crystals_that_it_never_saw_are_as_large_as_it_says() -> None:
    decorations = load_decorations()
    rows = torch.arange(0, len(decorations.batch), 10)
    found = additive_volume(decorations.batch.select(rows))
    relaxed = decorations.properties["volume_per_atom"].double()[rows]
    assert ((found / relaxed - 1).abs()).median() < 0.15
