"""The denoiser of whole crystals: sets in, sets out; what is padded or hidden does not count."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from data.orbit_batch import OrbitBatch
from data.strain_scale import StrainScale
from data.wyckoff import wyckoff_table
from generators.crystals.noise import observe
from generators.denoiser.crystal_denoiser import CrystalCondition, CrystalDenoiser, CrystalDenoiserConfig

MakeBatch = Callable[..., OrbitBatch]
CONFIG = CrystalDenoiserConfig(width=40, depth=2, heads=2, n_radial=6, dropout=0.0)


@pytest.fixture(scope="module")
def denoiser() -> CrystalDenoiser:
    """Every weight is perturbed: layers that start at zero would hide what they will show."""
    torch.manual_seed(0)
    network = CrystalDenoiser(2, CONFIG)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    return network.eval()


@pytest.fixture
def batch(random_batch: MakeBatch) -> OrbitBatch:
    found = random_batch(24, seed=3)
    return found.select(found.n_atoms <= 60)


def condition(n: int) -> CrystalCondition:
    generator = torch.Generator().manual_seed(1)
    return CrystalCondition(
        torch.randn(n, 2, 7, generator=generator), torch.rand(n, 2, generator=generator) < 0.5,
        torch.zeros(n, 119), torch.arange(n), torch.arange(n) % 6, torch.arange(n) % 4,
    )  # fmt: skip


def outputs(
    denoiser: CrystalDenoiser, batch: OrbitBatch, hidden: tuple[Tensor, Tensor] | None = None, geometry: bool = True
) -> dict[str, Tensor]:
    """Everything that the denoiser says of ``batch``, 0 where padded."""
    scale = StrainScale(15 + torch.arange(119.0) / 10, torch.zeros(6, 6), torch.ones(6, 6))
    nothing = torch.zeros_like(batch.mask)
    position_hidden, element_hidden = hidden or (nothing, nothing)
    now = (batch.coordinates, scale.to_standard(batch, batch.strain), torch.full((len(batch),), 0.4))
    state = observe(batch, scale, denoiser.config.n_radial, position_hidden, element_hidden, now if geometry else None)
    with torch.no_grad():
        wish = denoiser.embed_condition(condition(len(batch)))
        tokens = denoiser(state, wish)
        step, strain = denoiser.geometry(tokens, state)
        mask = batch.mask[..., None]
        return {
            "number": denoiser.number_logits(wish),
            "group": denoiser.space_group_logits(wish),
            "count": denoiser.count_logits(wish, batch.space_group),
            "position": denoiser.position_logits(tokens, batch.space_group) * mask,
            "element": denoiser.element_logits(tokens, state) * mask,
            "step": step,
            "strain": strain,
        }


def assert_close(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = 2e-4) -> None:
    for name, value in one.items():
        assert torch.allclose(value, other[name], atol=tolerance, rtol=1e-3), name


def test_padding_changes_nothing(denoiser: CrystalDenoiser, batch: OrbitBatch) -> None:
    k = batch.mask.shape[1]
    wider = OrbitBatch.concatenate([batch, _one_wide(k + 4)]).select(torch.arange(len(batch)))
    assert wider.mask.shape[1] == k + 4
    found = outputs(denoiser, wider)
    cut = {name: value[:, :k] if name in ("position", "element", "step") else value for name, value in found.items()}
    assert_close(outputs(denoiser, batch), cut)


def _one_wide(k: int) -> OrbitBatch:
    return OrbitBatch(
        torch.ones(1, dtype=torch.long), torch.zeros(1, k, dtype=torch.long), torch.ones(1, k, dtype=torch.long),
        torch.zeros(1, k, 3, dtype=torch.float64), torch.zeros(1, 6, dtype=torch.float64),
        torch.ones(1, k, dtype=torch.bool),
    )  # fmt: skip


def test_the_order_of_the_orbits_is_of_no_account(denoiser: CrystalDenoiser, batch: OrbitBatch) -> None:
    k = batch.mask.shape[1]
    score = torch.rand(batch.mask.shape, generator=torch.Generator().manual_seed(0)).masked_fill(~batch.mask, 2.0)
    order = score.argsort(1)
    rows = torch.arange(len(batch))[:, None]
    moved = batch.replace(
        **{name: getattr(batch, name)[rows, order] for name in ("position", "atomic_number", "coordinates", "mask")}
    )
    assert not torch.equal(order[0], torch.arange(k)) or not torch.equal(order[1], torch.arange(k))
    before, after = outputs(denoiser, batch), outputs(denoiser, moved)
    expected = {
        name: value[rows, order] if name in ("position", "element", "step") else value for name, value in before.items()
    }
    assert_close(expected, after)


def test_a_crystal_alone_gets_the_same_answer(denoiser: CrystalDenoiser, batch: OrbitBatch) -> None:
    scale = StrainScale(15 + torch.arange(119.0) / 10, torch.zeros(6, 6), torch.ones(6, 6))

    def answer(rows: Tensor) -> tuple[Tensor, ...]:
        part = batch.select(rows)
        nothing = torch.zeros_like(part.mask)
        now = (part.coordinates, scale.to_standard(part, part.strain), torch.full((len(part),), 0.4))
        with torch.no_grad():
            state = observe(part, scale, CONFIG.n_radial, nothing, nothing, now)
            tokens = denoiser(state, denoiser.embed_condition(condition(len(batch)).select(rows)))
            return (tokens * part.mask[..., None], *denoiser.geometry(tokens, state))

    together = answer(torch.arange(len(batch)))
    for i in range(len(batch)):
        for whole, alone in zip(together, answer(torch.tensor([i])), strict=True):
            assert torch.allclose(whole[i], alone[0], atol=2e-4, rtol=1e-3)


def test_a_hidden_element_is_not_seen(denoiser: CrystalDenoiser, batch: OrbitBatch) -> None:
    nothing = torch.zeros_like(batch.mask)
    hidden = nothing.clone()
    hidden[:, 0] = True
    other = batch.atomic_number.clone()
    other[:, 0] = 92
    changed = batch.replace(atomic_number=other)
    # The standardised lattice counts from the elements' volumes: what is given is the same cell shape.
    strain = changed.strain.clone()
    assert_close(
        outputs(denoiser, batch, (nothing, hidden)),
        outputs(denoiser, changed.replace(strain=strain), (nothing, hidden)),
    )
    visible = outputs(denoiser, batch)["element"] - outputs(denoiser, changed)["element"]
    assert float(visible.abs().max()) > 1e-2


def test_an_element_that_is_shown_gains_on_other_orbits(batch: OrbitBatch) -> None:
    """With every other weight of the heads at zero: by log(1 + orbits that show it times exp(usual tie))."""
    torch.manual_seed(0)
    plain = CrystalDenoiser(2, CONFIG).eval()
    with torch.no_grad():
        for layer in (plain.element_head, plain.tie_from, plain.tie_to):
            layer.weight.zero_()
            layer.bias.zero_()
    nothing = torch.zeros_like(batch.mask)
    hidden = nothing.clone()
    hidden[:, 0] = True
    found = outputs(plain, batch, (nothing, hidden))["element"][:, 0]
    shown = torch.zeros(found.shape).scatter_add(1, batch.atomic_number, (batch.mask & ~hidden).float())
    usual = float(plain.tie_usual.exp().detach())
    assert torch.allclose(found, torch.log1p(usual * shown), atol=1e-5)
    assert float(found.max()) > 0.2


def test_a_hidden_position_is_not_seen(denoiser: CrystalDenoiser, batch: OrbitBatch) -> None:
    table = wyckoff_table()
    nothing = torch.zeros_like(batch.mask)
    hidden = nothing.clone()
    hidden[:, 0] = True
    other = batch.position.clone()
    last = table.position_start[batch.space_group] + table.n_positions[batch.space_group] - 1
    other[:, 0] = last
    changed = batch.replace(position=other)
    assert not torch.equal(other, batch.position)
    named = ("group", "count", "position", "element")
    one = outputs(denoiser, batch, (hidden, hidden), geometry=False)
    two = outputs(denoiser, changed, (hidden, hidden), geometry=False)
    assert_close({n: one[n] for n in named}, {n: two[n] for n in named})
    visible = (
        outputs(denoiser, batch, geometry=False)["element"] - outputs(denoiser, changed, geometry=False)["element"]
    )
    assert float(visible.abs().max()) > 1e-2


def test_letters_that_a_group_lacks_and_group_0_are_impossible(denoiser: CrystalDenoiser, batch: OrbitBatch) -> None:
    found = outputs(denoiser, batch)
    table = wyckoff_table()
    for i, group in enumerate(batch.space_group.tolist()):
        n = int(table.n_positions[group])
        assert bool((found["position"][i, 0, n:] < -1e8).all()) and bool((found["position"][i, 0, :n] > -1e8).all())
    assert all(bool((found[name][:, 0] < -1e8).all()) for name in ("number", "group", "count"))


def test_what_is_not_free_stays(denoiser: CrystalDenoiser, batch: OrbitBatch) -> None:
    found = outputs(denoiser, batch)
    assert bool((found["step"][~batch.coordinate_mask] == 0).all())
    assert bool((found["strain"][~batch.strain_mask] == 0).all())
    assert float(found["step"].abs().max()) > 0 and float(found["strain"].abs().max()) > 0


def test_every_part_of_a_condition_counts(denoiser: CrystalDenoiser) -> None:
    plain = CrystalCondition(
        torch.zeros(1, 2, 7), torch.zeros(1, 2, dtype=torch.bool), torch.zeros(1, 119),
        *(torch.zeros(1, dtype=torch.long) for _ in range(3)),
    )  # fmt: skip
    share = torch.zeros(1, 119)
    share[0, 8] = 1.0
    given = torch.tensor([[True, False]])
    variants = [
        replace(plain, features=torch.ones(1, 2, 7), given=given),
        replace(plain, composition=share),
        replace(plain, n_atoms=torch.tensor([7])),
        replace(plain, n_elements=torch.tensor([3])),
        replace(plain, source=torch.tensor([2])),
    ]
    with torch.no_grad():
        base = denoiser.embed_condition(plain)
        assert all(float((denoiser.embed_condition(v) - base).abs().max()) > 1e-3 for v in variants)
        ignored = replace(plain, features=torch.ones(1, 2, 7))
        assert torch.equal(denoiser.embed_condition(ignored), base)
        without = variants[0].without_properties()
        assert torch.equal(denoiser.embed_condition(without), base)


def test_one_token_stands_for_all_orbits_of_which_nothing_is_shown(
    denoiser: CrystalDenoiser, batch: OrbitBatch
) -> None:
    batch = batch.select(batch.n_orbits >= 4)
    assert len(batch) > 3
    scale = StrainScale(15 + torch.arange(119.0) / 10, torch.zeros(6, 6), torch.ones(6, 6))
    column = torch.arange(batch.mask.shape[1])
    hidden = batch.mask & (column >= 2)
    short = replace(
        batch, position=batch.position[:, :3], atomic_number=batch.atomic_number[:, :3],
        coordinates=batch.coordinates[:, :3], mask=batch.mask[:, :3],
    )  # fmt: skip
    copies = torch.stack([torch.ones(len(batch)).long()] * 2 + [batch.n_orbits - 2], 1)

    def answer(part: OrbitBatch, copies: Tensor | None) -> Tensor:
        unknown = hidden[:, : part.mask.shape[1]]
        state = observe(part, scale, CONFIG.n_radial, unknown, unknown, copies=copies)
        with torch.no_grad():
            tokens = denoiser(state, denoiser.embed_condition(condition(len(part))))
            return denoiser.position_logits(tokens, part.space_group)[:, :3]

    together, alone = answer(batch, None), answer(short, copies)
    assert torch.allclose(together, alone, atol=2e-4, rtol=1e-3)
    assert not torch.allclose(answer(short, None), alone, atol=1e-2)


def test_in_bfloat16_it_says_nearly_the_same(denoiser: CrystalDenoiser, batch: OrbitBatch) -> None:
    exact = outputs(denoiser, batch)
    quick = copy.deepcopy(denoiser)
    quick.draws_in_bfloat16 = True
    most = 0.0
    for name, value in outputs(quick, batch).items():
        assert value.dtype == exact[name].dtype
        known = exact[name] > -1e8
        off = (value - exact[name])[known]
        most = max(most, float(off.abs().max()))
        assert float(off.std()) <= 0.03 * float(exact[name][known].std())
    assert most > 0


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="width=10: must be a multiple of heads=3"):
        CrystalDenoiser(1, CrystalDenoiserConfig(width=10, heads=3))


def test_without_radial_functions_no_distance_is_seen(batch: OrbitBatch) -> None:
    torch.manual_seed(0)
    blind = CrystalDenoiser(2, replace(CONFIG, n_radial=0)).eval()
    with torch.no_grad():
        for weight in blind.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    found = outputs(blind, batch)
    assert all(bool(torch.isfinite(value).all()) for value in found.values())
    nothing = torch.zeros_like(batch.mask)
    scale = StrainScale(15 + torch.arange(119.0), torch.zeros(6, 6), torch.ones(6, 6))
    now = (batch.coordinates, scale.to_standard(batch, batch.strain), torch.full((len(batch),), 0.4))
    assert observe(batch, scale, 0, nothing, nothing, now).pairs.pull.numel() == 0
    assert observe(batch, scale, 6, nothing, nothing, now).pairs.pull.numel() > 0
