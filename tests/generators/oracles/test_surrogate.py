"""The surrogate: symmetries, weights, calibration and probabilities with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from data.decoration import to_orbit_batch
from data.prototype_table import PrototypeTable
from data.prototypes import prototype_library
from generators.oracles.base import OracleResult
from generators.oracles.surrogate import SurrogateOracle
from generators.oracles.surrogate_module import SurrogateModule
from generators.oracles.surrogate_network import SurrogateConfig, orbit_graph
from generators.screening.baselines import random_decorations
from generators.wish import Interval

ELEMENTS = list(range(3, 33))
NAME = "formation_energy_per_atom"


def table() -> PrototypeTable:
    library = prototype_library()
    return PrototypeTable.build([library.get(name) for name in ("rocksalt", "perovskite", "elpasolite", "cscl")])


def module(members: int = 2, properties: tuple[str, ...] = (NAME,)) -> SurrogateModule:
    torch.manual_seed(0)
    n = len(properties)
    config = SurrogateConfig(width=32, depth=2, members=members, dropout=0.0)
    return SurrogateModule(table(), properties, torch.zeros(n), torch.ones(n), ELEMENTS, config)


def sample(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return random_decorations(table(), torch.arange(4), ELEMENTS, n, generator)


def test_known_coordination_numbers() -> None:
    coordination = table().coordination
    assert coordination[0, 0, 1] == 6  # rock salt
    assert coordination[3, 0, 1] == 8  # caesium chloride
    perovskite = sorted(coordination[1, :3, :3].flatten().tolist())
    assert {6.0, 12.0, 8.0, 2.0, 4.0} <= set(perovskite)  # B-O 6, A-O 12, O-B 2, O-A 4, A-B 8


def test_equivalent_decorations_get_equal_predictions() -> None:
    oracle = SurrogateOracle(module())
    row, elements = sample(40)
    plain = oracle.predict(table(), row, elements)
    for index, prototype in enumerate(table().prototypes):
        for order in prototype.equivalent_orders:
            rows = (row == index).nonzero().squeeze(-1)
            turned = elements[rows].clone()
            turned[:, : len(order)] = elements[rows][:, list(order)]
            again = oracle.predict(table(), row[rows], turned)
            assert torch.allclose(again.values[NAME], plain.values[NAME][rows], atol=1e-5)
            assert torch.allclose(again.std[NAME], plain.std[NAME][rows], atol=1e-5)


def test_batched_equals_single_and_crystals_equal_decorations() -> None:
    oracle = SurrogateOracle(module())
    row, elements = sample(12)
    together = oracle.predict(table(), row, elements).values[NAME]
    for i in range(12):
        alone = oracle.predict(table(), row[i : i + 1], elements[i : i + 1]).values[NAME]
        assert float(alone) == pytest.approx(float(together[i]), abs=1e-5)
    crystals = to_orbit_batch(table(), row, elements)
    result = oracle.evaluate(crystals)
    assert bool(result.valid.all())
    assert torch.allclose(result.values[NAME], together, atol=1e-5)


def test_unknown_prototypes_are_invalid_with_a_reason() -> None:
    batch = to_orbit_batch(
        PrototypeTable.build([prototype_library().get("wurtzite")]), torch.tensor([0]), torch.tensor([[30, 16]])
    )
    result = SurrogateOracle(module()).evaluate(batch)
    assert result.valid.tolist() == [False]
    assert result.reason == ("unknown prototype",)


def test_weights_are_shares_of_atoms() -> None:
    graph = orbit_graph(table(), torch.tensor([1, 2]), torch.tensor([[20, 22, 8, 0], [11, 13, 19, 9]]))
    assert graph.crystal.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert sorted(graph.weight[:3].tolist()) == pytest.approx([0.2, 0.2, 0.6])
    assert graph.weight[3:].tolist() == pytest.approx([0.1, 0.1, 0.2, 0.6])
    assert graph.edge_index.shape[1] == 9 + 16


@pytest.mark.slow
def test_an_atomic_mean_is_learned() -> None:
    """Property = mean over atoms of a number per element: errors far below its spread on unseen decorations."""
    number = torch.randn(119, generator=torch.Generator().manual_seed(4))
    weight = table().multiplicity.float() / table().multiplicity.sum(-1, keepdim=True)

    def truth(row: torch.Tensor, elements: torch.Tensor) -> torch.Tensor:
        return (number[elements] * weight[row]).sum(-1)

    row, elements = sample(3000)
    labels = truth(row, elements)[:, None].double()
    network = module(members=1)
    network.log = lambda *_, **__: None  # type: ignore[method-assign]
    optimizer = torch.optim.AdamW(network.members.parameters(), lr=3e-3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, 300)
    for step in range(300):
        index = torch.randint(3000, (256,), generator=torch.Generator().manual_seed(step))
        batch = {"prototype": row[index], "elements": elements[index], "labels": labels[index]}
        loss = network.training_step(batch, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    unseen_row, unseen = sample(500, seed=9)
    guess = SurrogateOracle(network).predict(table(), unseen_row, unseen).values[NAME]
    target = truth(unseen_row, unseen).double()
    assert float((guess - target).abs().mean()) < 0.1 * float(target.std())


def test_unknown_labels_give_no_gradient() -> None:
    network = module(members=1, properties=(NAME, "volume_per_atom"))
    network.log = lambda *_, **__: None  # type: ignore[method-assign]
    row, elements = sample(64)
    labels = torch.rand(64, 2, generator=torch.Generator().manual_seed(1)).double() + 10 * torch.tensor([0.0, 1.0])
    labels[:, 1] = torch.nan
    network.training_step({"prototype": row, "elements": elements, "labels": labels}, 0).backward()
    last = network.members[0].readout[-1]  # type: ignore[index, union-attr]
    gradient = last.weight.grad.abs().sum(1)  # type: ignore[union-attr]
    assert gradient[0] > 0
    assert gradient[2] > 0
    assert gradient[1] == 0
    assert gradient[3] == 0


def test_temperature_calibrates_a_wrong_standard_deviation() -> None:
    """Errors three times larger than stated: after calibration 68 and 90 % lie where they should."""
    network = module(members=1)
    logged: dict[str, float] = {}
    network.log = lambda name, value, **_: logged.__setitem__(name, float(value))  # type: ignore[method-assign]
    generator = torch.Generator().manual_seed(0)
    std = 0.1 + torch.rand(20_000, 1, generator=generator)
    error = 3 * std * torch.randn(20_000, 1, generator=generator)
    network._held_out.append((torch.zeros(20_000, 1), std, error))
    network.on_validation_epoch_end()
    assert float(network.temperature) == pytest.approx(3.0, rel=0.03)
    network._held_out.append((torch.zeros(20_000, 1), std * network.temperature, error))
    network.on_test_epoch_end()
    assert logged[f"test/coverage_68/{NAME}"] == pytest.approx(0.683, abs=0.015)
    assert logged[f"test/coverage_90/{NAME}"] == pytest.approx(0.90, abs=0.015)


@pytest.mark.parametrize(
    ("low", "high"), [(None, -2.0), (0.5, None), (-0.3, 0.4), (3.0, 3.5), (-60.0, -59.0), (None, 50.0)]
)
def test_hit_probability_is_the_normal_one(low: float | None, high: float | None) -> None:
    mean, std = torch.tensor([0.0, -2.5, 0.7]).double(), torch.tensor([1.0, 0.2, 0.5]).double()
    result = OracleResult({NAME: mean}, {NAME: std}, torch.ones(3, dtype=torch.bool), ("",) * 3)
    got = SurrogateOracle(module()).log_hit_probability(result, {NAME: Interval(low, high)}).numpy()
    a = np.full(3, -math.inf) if low is None else (low - mean.numpy()) / std.numpy()
    b = np.full(3, math.inf) if high is None else (high - mean.numpy()) / std.numpy()
    flip = a > 0
    lower, upper = np.where(flip, -b, a), np.where(flip, -a, b)
    exact = norm.logcdf(upper) + np.log1p(-np.exp(norm.logcdf(lower) - norm.logcdf(upper)))
    assert np.allclose(got, exact, rtol=1e-6, atol=1e-9)


def test_out_of_domain_is_flagged() -> None:
    oracle = SurrogateOracle(module())
    wide = PrototypeTable.build([*table().prototypes, prototype_library().get("wurtzite")])
    width = wide.mask.shape[1]
    elements = torch.zeros(3, width, dtype=torch.long)
    elements[:, :2] = torch.tensor([[11, 17], [11, 92], [30, 16]])
    assert oracle.out_of_domain(wide, torch.tensor([0, 0, 4]), elements).tolist() == [False, True, True]
