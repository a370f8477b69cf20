"""A small world whose truth is known exactly: 180 elpasolites of six elements."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from data.prototype_table import PrototypeTable
from data.prototypes import prototype_library
from generators.conditioning import Conditions, PropertyScale
from generators.denoiser.orbit_denoiser import DenoiserConfig, OrbitDenoiser
from generators.sampling.space import SpaceSampler
from generators.wish import Interval, Wish
from generators.worlds.space import Space
from generators.worlds.world import World, below

ELEMENTS = (3, 8, 9, 11, 13, 17)


def energy(elements: Tensor) -> Tensor:
    """Additive, symmetric in the first two orbits: every crystal has another value."""
    z = elements.double()
    return (z[:, 0] + z[:, 1]) * 0.05 + z[:, 0] * z[:, 1] * 0.003 - 0.21 * z[:, 2] + 0.013 * (z[:, 3] - 9.1) ** 2


@pytest.fixture(scope="session")
def space() -> Space:
    table = PrototypeTable.build([prototype_library().get("elpasolite")])
    four = torch.cartesian_prod(*[torch.tensor(ELEMENTS)] * 4)
    ordered = four.sort(1).values
    return Space.build(table, four[(ordered[:, 1:] != ordered[:, :-1]).all(1)])


@pytest.fixture(scope="session")
def world(space: Space) -> World:
    truth = energy(space.at(torch.arange(len(space))))
    rare = float(torch.quantile(truth, 0.1))
    learnt = torch.arange(0, len(space), 3)
    return World("toy", space, {"energy": truth}, learnt, {"energy": truth[learnt]}, below("energy", rare), "itself")


@pytest.fixture
def sampler(space: Space) -> SpaceSampler:
    torch.manual_seed(3)
    denoiser = OrbitDenoiser(1, 1, DenoiserConfig(width=16, depth=1, heads=2)).eval()
    torch.nn.init.normal_(denoiser.final.weight, std=0.3)
    torch.nn.init.normal_(denoiser.head.weight, std=0.6)
    scale = PropertyScale.fit("energy", energy(space.at(torch.arange(len(space)))))
    condition = Conditions.from_wish(Wish({"energy": Interval(None, -1.0)}).intervals, ["energy"], 1)
    return SpaceSampler(denoiser, (scale,), space.table, space.allowed, space.distinct, condition)
