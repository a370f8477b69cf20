from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from generators.campaign import Campaign, CampaignSettings, Judgements, TableJudge
from generators.denoiser.orbit_denoiser import DenoiserConfig
from generators.oracles.slot_ensemble import SlotConfig, SlotEnsemble, SlotFit, fit_slot_ensemble
from generators.sampling.likelihood import crystal_log_likelihood
from generators.teaching import LabelledPool, TeachSettings, WishFirst, weighted_scale
from generators.wish import Wish
from generators.worlds.learner import Learner, LearnerSettings
from generators.worlds.space import Space
from generators.worlds.world import World

SMALL = LearnerSettings(
    uniform=400, on_policy=200, stretches=2, steps=300, rarest=0.03,
    teach=TeachSettings(batch_size=128, warmup=10, learning_rate=4e-3),
    denoiser=DenoiserConfig(width=32, depth=2, heads=2),
    surrogate=SlotConfig(8, 32, 1, 2), fit=SlotFit(least_steps=150, weight_decay=0.01),
)  # fmt: skip


def test_a_wish_is_practised_with_the_crystals_that_fulfil_it_in_their_proportions() -> None:
    labels = torch.arange(100, dtype=torch.float64)[:, None]
    weight = torch.where(labels[:, 0] < 50, 1.0, 3.0)
    scale = weighted_scale("y", labels[:, 0], weight)
    pool = LabelledPool(torch.zeros(100, 4, dtype=torch.long), labels, weight)
    wishes = WishFirst(pool, (scale,), rarest=0.01, unconditional=0.25)
    rows, conditions, loss_weight = wishes.draw(60_000, torch.Generator().manual_seed(0))
    y, given = labels[rows, 0], conditions.given[:, 0]
    low, high = conditions.low[:, 0], conditions.high[:, 0]
    assert bool(((y >= low) & (y <= high))[given].all()) and bool((loss_weight == 1).all())
    assert float(given.double().mean()) == pytest.approx(0.75, abs=0.01)
    free = torch.bincount(rows[~given], minlength=100).double() / int((~given).sum())
    assert float(free[50:].sum()) == pytest.approx(0.75, abs=0.02)
    wide = given & torch.isinf(low) & (high > 79) & (high < 90)
    inside = y[wide] < 75
    expected = (50 + 3 * 25) / (50 + 3 * 35)
    assert float(inside.double().mean()) == pytest.approx(expected, abs=0.06)


def test_labels_in_doubt_teach_crystals_in_proportion_to_the_probability_of_a_hit() -> None:
    labels = torch.tensor([[-2.0], [-1.0], [0.0], [0.0]], dtype=torch.float64).repeat(500, 1)
    doubt = torch.tensor([[1.0], [1.0], [1.0], [0.0]], dtype=torch.float64).repeat(500, 1)
    pool = LabelledPool(torch.zeros(2000, 4, dtype=torch.long), labels, torch.ones(2000), doubt)
    generator, below, drawn = torch.Generator().manual_seed(0), torch.zeros(4), 0
    for _ in range(40):
        certain = pool.drawn(["y"], generator)
        assert certain.doubt is None and torch.equal(certain.labels[3::4], labels[3::4])
        wishes = WishFirst(certain, (weighted_scale("y", certain.labels[:, 0], certain.weight),), rarest=0.01)
        rows, conditions, _ = wishes.draw(4000, generator)
        mine = torch.isinf(conditions.low[:, 0]) & (conditions.high[:, 0] > -1.6) & (conditions.high[:, 0] < -1.4)
        below += torch.bincount(rows[mine & conditions.given[:, 0]] % 4, minlength=4)
        drawn += int((mine & conditions.given[:, 0]).sum())
    expected = torch.special.ndtr(torch.tensor([0.5, -0.5, -1.5, -torch.inf]))
    assert drawn > 2000
    torch.testing.assert_close(below / drawn, expected / expected.sum(), atol=0.04, rtol=0)


def test_doubt_of_a_logarithm_keeps_values_positive() -> None:
    labels = torch.full((4000, 1), 100.0, dtype=torch.float64)
    pool = LabelledPool(torch.zeros(4000, 4), labels, torch.ones(4000), torch.full_like(labels, 0.5))
    drawn = pool.drawn(["bulk_modulus"], torch.Generator().manual_seed(0)).labels
    assert float(drawn.min()) > 0 and float(drawn.log().std()) == pytest.approx(0.5, abs=0.02)
    assert float(drawn.log().mean()) == pytest.approx(math.log(100), abs=0.03)


def test_weighted_quantiles_are_those_of_repeated_labels() -> None:
    labels = torch.randn(300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight = torch.randint(1, 6, (300,), generator=torch.Generator().manual_seed(1))
    scale = weighted_scale("y", labels, weight.double())
    repeated = labels.repeat_interleave(weight)
    q = torch.tensor([0.05, 0.3, 0.9], dtype=torch.float64)
    assert torch.allclose(scale.quantile(q), torch.quantile(repeated, q), atol=0.05)
    assert scale.mean == pytest.approx(float(repeated.mean()))


def test_the_ensemble_does_not_tell_equivalent_orders_apart_and_learns(world: World) -> None:
    space, everything = world.space, torch.arange(len(world.space))
    elements, truth = space.at(everything), world.truth["energy"]
    ensemble = fit_slot_ensemble(
        space.table, ["energy"], elements[::2], truth[::2, None], SlotConfig(8, 32, 1, 3), SlotFit(least_steps=400)
    )
    mean, std = ensemble.predict(elements)
    swapped, _ = ensemble.predict(elements[:, [1, 0, 2, 3]])
    assert torch.allclose(mean, swapped, atol=1e-5)
    assert float((mean[1::2, 0] - truth[1::2]).abs().mean()) < 0.25 * float(truth.std())
    assert bool((std > 0).all())


def test_doubt_is_the_median_deviation_on_the_scale_that_models_see(world: World) -> None:
    mean = torch.tensor([[50.0, -1.0], [200.0, 2.0], [100.0, 0.0]], dtype=torch.float64)
    std = torch.tensor([[5.0, 0.3], [60.0, 0.4], [20.0, 9.0]], dtype=torch.float64)
    names = ["bulk_modulus", "formation_energy_per_atom"]
    ensemble = SlotEnsemble(world.space.table, names, torch.zeros(2), torch.ones(2), SlotConfig(8, 16, 1, 2))
    expected = torch.tensor([0.2, 0.4], dtype=torch.float64)
    ensemble.measure_doubt(mean, std)
    torch.testing.assert_close(ensemble.doubt, expected)
    factor = torch.tensor([[50.0, 1.0], [200.0, 1.0], [100.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(ensemble.doubted(mean), factor * expected)


def test_relaxed_crystals_are_the_crystals_at_the_corners_and_have_gradients(world: World, taught: Learner) -> None:
    ensemble = taught.surrogate
    assert ensemble is not None
    elements = world.space.at(torch.arange(20))
    corners = F.one_hot(elements, 119).float().requires_grad_(True)
    mean, std = ensemble.predict_relaxed(corners)
    exact = ensemble.predict(elements)
    assert torch.allclose(mean, exact[0], atol=1e-5) and torch.allclose(std, exact[1], atol=1e-5)
    (slope,) = torch.autograd.grad(mean.sum(), corners)
    assert bool(torch.isfinite(slope).all()) and float(slope.abs().max()) > 0


def test_the_surrogates_gradient_leads_to_hits(world: World, taught: Learner) -> None:
    (wish,) = list(world.targets.values())[:1]
    plain = taught.sampler(Wish({}))
    guided = replace(plain, tilt=taught.gradient(wish))
    rates = []
    for sampler in (plain, guided):
        index = world.space.index(sampler.draw(2000, torch.Generator().manual_seed(0)))
        rates.append(float(world.hits(wish)[index].double().mean()))
    assert rates[1] > 3 * rates[0]


@pytest.fixture(scope="module")
def taught(world: World) -> Learner:
    learner = Learner(world.space, world.properties, replace(SMALL, steps=600), seed=0)
    learner.learn(torch.arange(len(world.space)), world.truth["energy"][:, None])
    return learner


def test_a_taught_generator_draws_the_posterior(world: World, taught: Learner) -> None:
    """With every label known the answer to a wish is uniform over the crystals that fulfil it."""
    wish = next(iter(world.targets.values()))
    hits = world.hits(wish)
    p = crystal_log_likelihood(taught.sampler(wish), world.space.at(torch.arange(len(hits)))).exp()
    assert float(p[hits].sum()) > 0.8
    assert float((p[hits] > 0.3 / int(hits.sum())).double().mean()) > 0.8


def test_forbidden_elements_have_no_probability(world: World, taught: Learner) -> None:
    wish = replace(next(iter(world.targets.values())), forbidden_elements=frozenset({9}))
    assert not bool((taught.sampler(wish).draw(500, torch.Generator().manual_seed(0)) == 9).any())
    with pytest.raises(ValueError, match="allowed_elements"):
        taught.sampler(replace(wish, forbidden_elements=frozenset({3, 8, 9, 11, 13, 17})))


def campaign(world: World, folder: Path, **changes: object) -> Campaign:
    settings = replace(CampaignSettings(budget=60, batch=20, first=20, draws=300), **changes)  # type: ignore[arg-type]
    learner = Learner(world.space, world.properties, replace(SMALL, steps=60), seed=1)
    return Campaign(learner, TableJudge(world), next(iter(world.targets.values())), settings, folder)


class Killed(Exception):
    pass


@pytest.mark.slow
def test_a_killed_campaign_ends_as_an_uninterrupted_one(world: World, tmp_path: Path) -> None:
    def equal(a: Judgements, b: Judgements) -> bool:
        return torch.equal(a.index, b.index) and torch.equal(a.labels, b.labels) and torch.equal(a.round, b.round)

    whole = campaign(world, tmp_path / "whole")
    whole.run()

    def kill(row: dict[str, object]) -> None:
        if row["round"] == 1:
            raise Killed

    with pytest.raises(Killed):
        campaign(world, tmp_path / "killed").run(kill)
    again = campaign(world, tmp_path / "killed")
    again.run()
    assert equal(whole.known, again.known)
    assert whole.learner.generator is not None and again.learner.generator is not None
    for a, b in zip(
        whole.learner.generator.averaged.parameters(), again.learner.generator.averaged.parameters(), strict=True
    ):
        assert torch.equal(a, b)
    assert len(list((tmp_path / "killed").glob("round-*.pt"))) == 1


def test_a_campaign_from_nothing_beats_random(world: World, tmp_path: Path) -> None:
    known = campaign(world, tmp_path).run()
    assert known.calls == 60 and len(torch.unique(known.index)) == 60
    hits = world.hits(next(iter(world.targets.values())))[known.index].sum()
    assert int(hits) >= 12  # 6 at random, 18 exist


def test_a_campaign_stops_when_it_has_enough_or_finds_nothing_more(world: World, tmp_path: Path) -> None:
    few = campaign(world, tmp_path / "few", enough=3)
    few.run()
    assert few.rows[-1]["stop"] == "enough hits" and few.rows[-1]["hits_so_far"] >= 3 > few.rows[-2]["hits_so_far"]
    tired = campaign(world, tmp_path / "tired", patience=2, budget=180)
    tired.rows = [{"hits": 1, "finished": False}, {"hits": 0, "finished": False}]
    assert tired._stop(20, 0) == ""  # never a hit so far by what is known
    hit = world.hits(tired.wish).nonzero().squeeze(1)[:1]
    tired.known = tired.known.add(hit, world.truth["energy"][hit][:, None], 0)
    assert tired._stop(20, 0) == "no hit in 2 rounds" and tired._stop(20, 1) == ""


@pytest.mark.slow
def test_a_campaign_goes_on_from_what_another_has_learnt(world: World, tmp_path: Path) -> None:
    first = campaign(world, tmp_path / "first", budget=40)
    first.run()
    second = campaign(world, tmp_path / "second", budget=20)
    second.start_from(tmp_path / "first")
    assert second.known.calls == 0 and len(second.known.index) == 40
    again = second.run()
    assert again.calls == 20 and len(torch.unique(again.index)) == 60  # nothing is asked twice
    (row,) = second.rows
    assert row["predicted_hits"] is not None  # chosen by what was learnt, not at random
    with pytest.raises(ValueError, match="no round of a campaign"):
        second.start_from(tmp_path)
    small = replace(world, space=Space.build(world.space.table, world.space.at(torch.arange(90))))
    with pytest.raises(ValueError, match="another world"):
        campaign(small, tmp_path / "third").start_from(tmp_path / "first")


def test_settings_name_the_bad_value() -> None:
    with pytest.raises(ValueError, match="patience=0"):
        CampaignSettings(patience=0)
    with pytest.raises(ValueError, match="budget=0"):
        CampaignSettings(budget=0)
    with pytest.raises(ValueError, match="explore=2"):
        CampaignSettings(explore=2)
