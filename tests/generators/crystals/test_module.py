"""The module of whole crystals: losses that can be computed by hand, and a model file that gives the model back."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from data.orbit_batch import OrbitBatch
from data.strain_scale import StrainScale
from generators.checkpoints import load_checkpoint, save_checkpoint
from generators.conditioning import Conditions, PropertyScale
from generators.crystals.model import CrystalModel, load_crystal_model
from generators.crystals.module import CrystalDiffusion, TaskShares
from generators.denoiser.crystal_denoiser import CrystalDenoiserConfig
from generators.sampling.crystal_geometry import CrystalSamplerSettings
from generators.sampling.crystal_task import CrystalTask
from generators.sampling.crystals import CrystalSampler

ELEMENTS = (3, 8, 12, 17, 22, 26, 38, 56)


@pytest.fixture
def batch(random_batch: Callable[..., OrbitBatch]) -> dict[str, Any]:
    crystals = random_batch(64, seed=1, elements=ELEMENTS)
    generator = torch.Generator().manual_seed(0)
    return {
        "crystals": crystals,
        "labels": torch.rand(64, 2, generator=generator, dtype=torch.float64),
        "source": 1 + torch.arange(64) % 3,
    }


def make(crystals: OrbitBatch, depth: int = 1) -> CrystalDiffusion:
    torch.manual_seed(0)
    labels = torch.linspace(0, 1, 50, dtype=torch.float64)
    return CrystalDiffusion(
        [PropertyScale.fit("a", labels), PropertyScale.fit("b", labels)], StrainScale.fit(crystals), ELEMENTS,
        CrystalDenoiserConfig(width=20, depth=depth, heads=2, n_radial=4, dropout=0.0),
    )  # fmt: skip


def test_an_untrained_model_has_the_losses_of_ignorance(batch: dict[str, Any]) -> None:
    """What is 0 misses by its own square: at most 2 for standardised lattices (data and noise of variance 1)."""
    module = make(batch["crystals"]).eval()
    lattice, coordinates = [], []
    for seed in range(40):
        total, terms = module.losses(batch, torch.Generator().manual_seed(seed), module.denoiser)
        assert bool(torch.isfinite(total))
        lattice.append(float(terms["lattice"]))
        coordinates.append(float(terms["coordinates"]))
        assert float(terms["elements"]) > 0.5 * math.log(len(ELEMENTS))
    assert 0.4 < sum(lattice) / 40 < 2.2
    assert 0 < sum(coordinates) / 40 < 1.0


def test_a_model_of_fewer_parts_of_the_data_takes_the_new_one_for_any(batch: dict[str, Any]) -> None:
    config, state = make(batch["crystals"]).export()
    old = state | {"denoiser.source.weight": state["denoiser.source.weight"][:-1]}
    weight = CrystalModel.from_export(config, old).denoiser.source.weight
    assert torch.equal(weight[-1], weight[0]) and len(weight) == len(state["denoiser.source.weight"])


def test_every_weight_has_a_gradient_in_the_smallest_batch(batch: dict[str, Any]) -> None:
    """With several processes one weight without a gradient stops them all, waiting for each other."""
    module = make(batch["crystals"], depth=2).train()
    one = {"crystals": batch["crystals"].select(torch.tensor([5])), **{k: batch[k][5:6] for k in ("labels", "source")}}
    seen = set()
    for seed in range(12):
        module.zero_grad(set_to_none=True)
        total, terms = module.losses(one, torch.Generator().manual_seed(seed), module.denoiser)
        total.backward()
        seen.add(bool(terms["coordinates"] == 0))
        assert not [name for name, weight in module.denoiser.named_parameters() if weight.grad is None], seed
    assert seen == {True, False}


@pytest.mark.parametrize(
    ("tasks", "learnt"),
    [
        (TaskShares(prototype=0, elements=0), {"coordinates", "lattice"}),
        (TaskShares(prototype=0, elements=1), {"elements"}),
        (TaskShares(prototype=1, elements=0), {"elements", "positions"}),
    ],
)
def test_a_crystal_serves_the_tasks_it_is_meant_for(batch: dict[str, Any], tasks: TaskShares, learnt: set[str]) -> None:
    module = make(batch["crystals"])
    _, terms = module.losses(batch, torch.Generator().manual_seed(0), module.denoiser, tasks)
    always = {"n_elements", "space_group", "count"}
    assert {name for name, value in terms.items() if value > 0} == learnt | always


def test_gradients_are_clipped_for_the_fused_optimizer_too(batch: dict[str, Any]) -> None:
    module = make(batch["crystals"])
    (1e3 * module.losses(batch, torch.Generator().manual_seed(0), module.denoiser)[0]).backward()
    gradients = [weight.grad for weight in module.denoiser.parameters() if weight.grad is not None]
    before = torch.cat([g.flatten() for g in gradients])
    module.configure_gradient_clipping(None, 2.0)
    after = torch.cat([g.flatten() for g in gradients])
    assert before.norm() > 2 and after.norm() == pytest.approx(2.0)
    torch.testing.assert_close(after, before * 2 / before.norm())


def test_training_lowers_what_can_be_learnt(batch: dict[str, Any]) -> None:
    module = make(batch["crystals"])
    optimizer = torch.optim.AdamW(module.denoiser.parameters(), lr=1e-2)

    def mean() -> dict[str, float]:
        module.eval()
        with torch.no_grad():
            found = [module.losses(batch, torch.Generator().manual_seed(s), module.denoiser)[1] for s in range(8)]
        module.train()
        return {name: sum(float(f[name]) for f in found) / 8 for name in found[0]}

    before = mean()
    for step in range(60):
        total, _ = module.losses(batch, torch.Generator().manual_seed(1000 + step), module.denoiser)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    after = mean()
    # Coordinates and lattices of random crystals are noise, there is nothing to learn about them.
    learnt = ("space_group", "count", "positions", "elements")
    assert all(after[name] < before[name] for name in learnt), (before, after)


def test_what_draws_elements_stays_while_the_geometry_is_learnt(batch: dict[str, Any], tmp_path: Path) -> None:
    module = make(batch["crystals"])
    with torch.no_grad():
        for weight in module.averaged.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
            weight.copy_(weight.half().float())  # files hold half precision
    save_checkpoint(tmp_path / "before.pt", "crystal", *module.export())
    module.learn_geometry()

    def mean() -> dict[str, float]:
        with torch.no_grad():
            found = [module.losses(batch, torch.Generator().manual_seed(s), module.denoiser)[1] for s in range(8)]
        return {name: sum(float(f[name]) for f in found) / 8 for name in found[0]}

    before = mean()
    assert set(before) == {"coordinates", "lattice"}
    optimizer = torch.optim.AdamW(module.denoiser.parameters(), lr=3e-3)
    for step in range(60):
        total, _ = module.losses(batch, torch.Generator().manual_seed(1000 + step), module.denoiser)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert mean()["lattice"] < 0.9 * before["lattice"]
    module.averaged.load_state_dict(module.denoiser.state_dict())
    save_checkpoint(tmp_path / "after.pt", "crystal", *module.export())
    drawn = []
    for name in ("before", "after"):
        model = load_crystal_model(tmp_path / f"{name}.pt")
        model.denoiser.draws_in_bfloat16 = model.geometry.draws_in_bfloat16 = False
        sampler = model.sampler(CrystalSamplerSettings(steps=3))
        nothing = Conditions.nothing(1, 2)
        drawn.append(sampler.draw(CrystalTask(), nothing, 40, torch.Generator().manual_seed(0)))
        learnt = model.geometry
    assert torch.equal(drawn[0].position, drawn[1].position)
    assert torch.equal(drawn[0].atomic_number, drawn[1].atomic_number)
    assert not torch.allclose(drawn[0].strain, drawn[1].strain)
    for name, value in module.averaged.named_modules():
        if isinstance(value, torch.nn.Linear) and name.startswith("blocks"):
            assert torch.allclose(value.weight, learnt.get_submodule(name).weight, atol=2e-3), name


def test_the_noise_follows_from_the_generator(batch: dict[str, Any]) -> None:
    module = make(batch["crystals"]).eval()
    one, two, other = (
        module.losses(batch, torch.Generator().manual_seed(s), module.denoiser)[0] for s in (1, 1, 2)
    )  # fmt: skip
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_a_model_file_gives_the_model_back(batch: dict[str, Any], tmp_path: Path) -> None:
    module = make(batch["crystals"]).eval()
    with torch.no_grad():
        for weight in module.averaged.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
            weight.copy_(weight.half().float())  # files hold half precision
    save_checkpoint(tmp_path / "model.pt", "crystal", *module.export())
    again = CrystalModel.from_export(*load_checkpoint(tmp_path / "model.pt", "crystal"))
    assert again.known_elements == module.known_elements and [s.name for s in again.scales] == ["a", "b"]
    for name, weight in module.averaged.state_dict().items():
        assert torch.equal(weight, again.denoiser.state_dict()[name]), name
    settings = CrystalSamplerSettings(steps=3)
    before = CrystalSampler(
        module.averaged.eval(), module.scales, module.strain_scale, module.known_elements, settings
    )  # fmt: skip
    samples = [
        sampler.draw(CrystalTask(), Conditions.nothing(1, 2), 12, torch.Generator().manual_seed(0))
        for sampler in (before, again.sampler(settings))
    ]
    assert torch.equal(samples[0].coordinates, samples[1].coordinates)
    assert torch.equal(samples[0].strain, samples[1].strain)
    assert torch.equal(samples[0].atomic_number, samples[1].atomic_number)
