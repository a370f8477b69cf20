"""The evidence bound of a drawn crystal: an average over what is hidden, and exact where nothing can be left open."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from data.exchanges import load_exchanges
from data.wyckoff import wyckoff_table
from generators.conditioning import Conditions, condition_features
from generators.crystals.datamodule import trimmed
from generators.crystals.likelihood import divergence_from_guided, negative_log_likelihood
from generators.crystals.model import load_crystal_model
from generators.crystals.noise import observe
from generators.denoiser.crystal_denoiser import CrystalCondition
from generators.shipped import shipped
from generators.wish import Interval

SOURCE = 5


@torch.no_grad()
def test_the_bound_of_a_crystal_of_one_orbit_is_its_likelihood() -> None:
    model = load_crystal_model(shipped("crystal"))
    model.denoiser.draws_in_bfloat16 = False
    batch = load_exchanges().batch
    some = batch.select((batch.n_orbits <= 2).nonzero().squeeze(-1)[:40])
    some = some.replace(coordinates=some.coordinates.float(), strain=some.strain.float())
    one = some.replace(mask=some.mask & (torch.arange(some.mask.shape[1]) == 0))
    names = [scale.name for scale in model.scales]
    wish = Conditions.from_wish({"e_above_hull": Interval(-0.05, 0.03)}, names, 1)
    features = condition_features(wish, model.scales)
    elements = torch.ones(119, dtype=torch.bool)

    def bound(seed: int) -> torch.Tensor:
        return negative_log_likelihood(
            model.denoiser, model.strain_scale, one, (features, wish.given), SOURCE, elements,
            torch.Generator().manual_seed(seed),
        )  # fmt: skip

    first = bound(0)
    assert torch.allclose(first, bound(1), atol=1e-4)  # one token: nothing is left to chance

    n = len(one)
    zero = torch.zeros(n, dtype=torch.long)

    def asked(numbers: torch.Tensor) -> torch.Tensor:
        return model.denoiser.embed_condition(
            CrystalCondition(
                features.expand(n, -1, -1), wish.given.expand(n, -1), torch.zeros(n, 119), zero, numbers, zero + SOURCE
            )
        )

    rows = torch.arange(n)
    c = asked(one.n_elements)
    start = torch.tensor([crystal.positions[0] for crystal in one.to_crystals()])
    total = F.log_softmax(model.denoiser.number_logits(asked(zero)), -1)[rows, one.n_elements]
    total += F.log_softmax(model.denoiser.space_group_logits(c), -1)[rows, one.space_group]
    total += F.log_softmax(model.denoiser.count_logits(c, one.space_group), -1)[rows, 1]
    hidden = observe(one, model.strain_scale, model.denoiser.config.n_radial, one.mask, one.mask)
    letters = F.log_softmax(model.denoiser.position_logits(model.denoiser(hidden, c), one.space_group)[:, 0], -1)
    total += letters[rows, start - wyckoff_table().position_start[one.space_group]]
    shown = observe(one, model.strain_scale, model.denoiser.config.n_radial, ~one.mask & False, one.mask)
    total += F.log_softmax(model.denoiser.element_logits(model.denoiser(shown, c), shown)[:, 0], -1)[
        rows, one.atomic_number[:, 0]
    ]
    assert torch.allclose(-total, first, atol=1e-3)


@torch.no_grad()
def test_the_divergence_from_what_is_said_with_guidance() -> None:
    model = load_crystal_model(shipped("crystal"))
    model.denoiser.draws_in_bfloat16 = False
    batch = load_exchanges().batch
    some = trimmed(batch.select((batch.n_orbits <= 4).nonzero().squeeze(-1)[:40]))
    some = some.replace(coordinates=some.coordinates.float(), strain=some.strain.float())
    wish = Conditions.from_wish({"e_above_hull": Interval(-0.05, 0.03)}, [scale.name for scale in model.scales], 1)
    asked = (condition_features(wish, model.scales), wish.given)
    given = (model.strain_scale, some, asked, SOURCE, torch.ones(119, dtype=torch.bool))

    def divergence(guidance: float, asks: tuple[torch.Tensor, torch.Tensor] = asked) -> torch.Tensor:
        return divergence_from_guided(
            model.denoiser, model.denoiser, guidance, *given[:2], asks, *given[3:], torch.Generator().manual_seed(0)
        )[0]

    assert torch.allclose(divergence(1.0), torch.zeros(40), atol=1e-5)
    once, twice, thrice = (float(divergence(g).mean()) for g in (1.5, 2.0, 3.0))
    assert 0 < once < twice < thrice
    # Without a wish there is nothing to guide by.
    nothing = (torch.zeros_like(asked[0]), torch.zeros_like(asked[1]))
    assert torch.allclose(divergence(3.0, nothing), torch.zeros(40), atol=1e-4)
    # The bound beside it is that of the same states.
    _, bound = divergence_from_guided(
        model.denoiser, model.denoiser, 2.0, *given, torch.Generator().manual_seed(3)
    )  # fmt: skip
    assert torch.equal(bound, negative_log_likelihood(model.denoiser, *given, torch.Generator().manual_seed(3)))
