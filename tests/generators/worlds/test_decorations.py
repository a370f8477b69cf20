from __future__ import annotations

from pathlib import Path

import pytest
import torch

from data.decorations import load_decorations
from generators.oracles.chgnet_potential import SCALE
from generators.oracles.hull import fractions_of_batch
from generators.oracles.hull_tables import known_hull
from generators.worlds.decorations import ABOVE, MODULUS, PROTOTYPE, half_heuslers, judge_by_chgnet


def test_every_half_heusler_is_there_once() -> None:
    space = half_heuslers(torch.unique(load_decorations().batch.atomic_number)[1:].long())
    assert len(space) == 102_660 and space.distinct
    assert len(half_heuslers(torch.tensor([3, 7, 12]))) == 3  # which of three elements is in the middle


def test_chgnet_says_of_the_space_what_the_embedded_labels_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    embedded = load_decorations()
    row = torch.tensor([embedded.prototype.index(PROTOTYPE)])
    part = embedded.select(row)
    numbers = part.batch.atomic_number[:, :3]
    space = half_heuslers(numbers[0])
    found = judge_by_chgnet(space, tmp_path)
    place = space.index(numbers)
    energy = part.properties["formation_energy_per_atom"].double().numpy()
    above = known_hull().e_above_hull(fractions_of_batch(part.batch), energy, SCALE)
    assert float(found[ABOVE][place]) == pytest.approx(float(above[0]), abs=2e-3)
    modulus = float(part.properties[MODULUS][0])
    assert float(found[MODULUS][place]) == pytest.approx(modulus, rel=0.1)  # another start
    again = judge_by_chgnet(space, tmp_path)
    assert torch.equal(again[ABOVE], found[ABOVE])
