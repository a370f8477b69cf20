"""Crystals with labels as they would be drawn: on a template of other elements, not relaxed."""

from __future__ import annotations

import torch

from data.crystal import Crystal
from data.dataset import CrystalDataset
from data.orbit_batch import OrbitBatch
from generators.crystals.labelled import Labelled, as_drawn
from generators.sampling.templates import Templates
from generators.screening.crystal_features import crystal_features


def wurtzite(elements: tuple[int, int], u: float, volume: float) -> Crystal:
    return Crystal(186, ("b", "b"), elements, ((0.0, 0.0, 0.0), (0.0, 0.0, u)), (volume, 0.0, 0.0, 0.0, 0.3, 0.0))


def sketched(u: float) -> tuple[Labelled, torch.Tensor, torch.Tensor]:
    """Two wurtzites, of which the second has ``u``, and a rock salt."""
    rocksalt = Crystal(225, ("a", "b"), (11, 17), ((0.0, 0.0, 0.0),) * 2, (5.2,) + (0.0,) * 5)
    batch = OrbitBatch.from_crystals([wurtzite((30, 16), 0.37, 4.4), rocksalt, wurtzite((4, 8), u, 3.3)])
    labelled = Labelled(CrystalDataset(batch, {}, ("",) * 3, ("a", "b", "c")), crystal_features(batch))
    return labelled, *as_drawn(labelled, Templates(batch, torch.zeros(3)))


def test_crystals_as_drawn_have_their_own_elements_and_the_geometry_of_others() -> None:
    labelled, features, rows = sketched(0.37)
    assert rows.tolist() == [0, 2]  # nothing else is a rock salt
    # The same geometry; the volume (there in two columns) is what three crystals say of atomic volumes.
    assert ((features - labelled.features[rows]).abs() > 1e-3).sum(1).tolist() == [2, 2]
    labelled, features, rows = sketched(0.45)
    composition = slice(0, 100)  # shares of the elements
    assert torch.equal(features[:, composition], labelled.features[rows][:, composition])
    assert bool(((features - labelled.features[rows]).abs().amax(1) > 0.1).all())


def test_without_other_elements_there_is_nothing_to_draw_on() -> None:
    batch = OrbitBatch.from_crystals([wurtzite((30, 16), 0.37, 4.4)])
    labelled = Labelled(CrystalDataset(batch, {}, ("",), ("a",)), crystal_features(batch))
    features, rows = as_drawn(labelled, Templates(batch, torch.zeros(1)))
    assert features.shape == (0, labelled.features.shape[1]) and not len(rows)
