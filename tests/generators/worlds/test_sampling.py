"""Samplers against exact probabilities on an enumerable space."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
import torch
from torch import Tensor

from generators.denoiser.orbit_denoiser import HIDDEN
from generators.sampling.gradient_guidance import GradientTilt, spread
from generators.sampling.likelihood import crystal_log_likelihood, log_likelihood
from generators.sampling.space import SpaceSampler
from generators.sampling.steering import draw_accepted, effective_share, steer, systematic
from generators.sampling.strength import (
    choose_for_precision,
    choose_strength,
    recalibrate,
    spread_rows,
    veto_for_precision,
)
from generators.worlds.space import Space

N = 40_000


def every(space: Space) -> Tensor:
    return space.at(torch.arange(len(space)))


def total_variation(space: Space, drawn: Tensor, exact: Tensor) -> float:
    counts = torch.bincount(space.index(drawn), minlength=len(space)).double()
    return float((counts / counts.sum() - exact).abs().sum() / 2)


def noise(exact: Tensor, n: int) -> float:
    """Total variation that n perfect draws have on average, and a half more."""
    return 1.5 * float((exact * (1 - exact) / n).sqrt().sum()) * 0.4


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_likelihood_sums_to_one_and_equals_the_sum_over_orders(
    space: Space, sampler: SpaceSampler, guidance: float
) -> None:
    sampler = replace(sampler, guidance=guidance, temperature=0.8)
    elements = every(space)
    assert float(crystal_log_likelihood(sampler, elements).exp().sum()) == pytest.approx(1, abs=1e-5)
    one = elements[17:18]
    total = 0.0
    for order in permutations(range(4)):
        visible, p = torch.full_like(one, HIDDEN), 1.0
        for orbit in order:
            p *= float(sampler.log_probabilities(visible)[0, orbit, one[0, orbit]].exp())
            visible[0, orbit] = one[0, orbit]
        total += p / 24
    assert float(log_likelihood(sampler, one).exp()) == pytest.approx(total, rel=1e-5)


def test_draws_have_the_exact_frequencies(space: Space, sampler: SpaceSampler) -> None:
    exact = crystal_log_likelihood(sampler, every(space)).exp()
    drawn = sampler.draw(N, torch.Generator().manual_seed(0))
    assert total_variation(space, drawn, exact) < noise(exact, N)
    assert total_variation(space, drawn, torch.full_like(exact, 1 / len(exact))) > 2 * noise(exact, N)


def reward(elements: Tensor) -> Tensor:
    return 2.0 * (elements == 9).any(1) + 1.5 * (elements[:, 3] == 17) - 0.1 * elements[:, 2]


def test_steering_reaches_the_exact_posterior(space: Space, sampler: SpaceSampler) -> None:
    prior = crystal_log_likelihood(sampler, every(space))
    tilted = prior + reward(every(space))
    exact = torch.softmax(tilted, 0)
    steered = steer(sampler, reward, N, torch.Generator().manual_seed(1), resample_below=0.9)
    assert total_variation(space, steered.elements, exact) < 2 * noise(exact, N)
    assert total_variation(space, steered.elements, prior.exp()) > 4 * noise(exact, N)
    assert steered.log_normalizer == pytest.approx(float(torch.logsumexp(tilted, 0)), abs=0.03)
    assert bool(((steered.effective > 0) & (steered.effective <= 1)).all())


def test_gradients_of_a_sum_over_orbits_tilt_exactly_in_the_last_step(space: Space, sampler: SpaceSampler) -> None:
    weight = torch.randn(4, 119, generator=torch.Generator().manual_seed(5))
    tilt = GradientTilt(lambda x: (x * weight).sum((1, 2)))
    tilted, elements = replace(sampler, tilt=tilt), every(space)
    for orbit in range(4):
        context = elements.clone()
        context[:, orbit] = HIDDEN
        plain = sampler.log_probabilities(context)[:, orbit]
        exact = torch.log_softmax(plain + weight[orbit].double(), -1)
        found = tilted.log_probabilities(context)[:, orbit]
        assert torch.allclose(found.exp(), exact.exp(), atol=1e-5)
        assert float((found.exp() - plain.exp()).abs().max()) > 0.01


def test_the_spread_of_what_is_open_is_exact_for_a_sum_over_orbits() -> None:
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(4, 119, generator=generator)
    p = torch.rand(5, 4, 119, generator=generator).softmax(-1).requires_grad_(True)
    found = spread((p * weight).sum((1, 2))[:, None], p)
    mean = (p * weight).sum(-1)
    exact = ((p * weight**2).sum(-1) - mean**2).sum(-1).sqrt()
    assert torch.allclose(found[:, 0], exact, rtol=1e-4)


def test_gradient_guidance_draws_more_of_what_is_rewarded(space: Space, sampler: SpaceSampler) -> None:
    """Close to the posterior where the reward is a sum: closer than what is not guided."""
    weight = torch.zeros(4, 119)
    weight[3, 17], weight[2] = 1.5, -0.1 * torch.arange(119)
    tilt = GradientTilt(lambda x: (x * weight).sum((1, 2)))
    drawn = replace(sampler, tilt=tilt).draw(N, torch.Generator().manual_seed(6))
    prior = crystal_log_likelihood(sampler, every(space))
    sums = 1.5 * (every(space)[:, 3] == 17) - 0.1 * every(space)[:, 2]
    exact = torch.softmax(prior + sums, 0)
    away = total_variation(space, drawn, exact)
    assert away < 0.5 * float((prior.exp() - exact).abs().sum() / 2)


def test_corrected_guidance_draws_the_guided_joint(space: Space, sampler: SpaceSampler) -> None:
    """A path's target is the product over its steps of p_u (p_c / p_u)^s; the frequencies are its sum over orders."""
    guided = replace(sampler, guidance=2.0)
    elements = every(space)
    mass = torch.zeros(len(elements), dtype=torch.float64)
    for spelling in (elements, elements[:, [1, 0, 2, 3]]):
        for order in permutations(range(4)):
            visible, log_p = torch.full_like(spelling, HIDDEN), torch.zeros(len(spelling), dtype=torch.float64)
            for orbit in order:
                log_p += guided.guided(visible)[:, orbit].gather(1, spelling[:, orbit, None]).squeeze(1).double()
                visible[:, orbit] = spelling[:, orbit]
            mass += log_p.exp()
    exact = mass / mass.sum()
    generator = torch.Generator().manual_seed(2)
    corrected = steer(guided, lambda x: torch.zeros(len(x)), N, generator, correct_guidance=True)
    plain = guided.draw(N, generator)
    assert total_variation(space, corrected.elements, exact) < 2 * noise(exact, N)
    assert total_variation(space, plain, exact) > total_variation(space, corrected.elements, exact)


def test_acceptance_is_exact_and_gives_up(space: Space, sampler: SpaceSampler) -> None:
    exact = crystal_log_likelihood(sampler, every(space)).exp() * (every(space) == 9).any(1)
    kept, drawn = draw_accepted(sampler, lambda x: (x == 9).any(1), N, torch.Generator().manual_seed(3))
    assert len(kept) == N <= drawn
    assert total_variation(space, kept, exact / exact.sum()) < noise(exact / exact.sum(), N)
    none, tried = draw_accepted(sampler, lambda x: (x == 99).any(1), 100, torch.Generator().manual_seed(3))
    assert len(none) == 0 and tried == 2000


def test_resampling_counts_follow_the_weights() -> None:
    weight = torch.tensor([0.5, 0.25, 0.25, 0.0], dtype=torch.float64)
    assert sorted(systematic(weight.log(), torch.Generator().manual_seed(0)).tolist()) == [0, 0, 1, 2]
    assert effective_share(torch.zeros(5, dtype=torch.float64)) == pytest.approx(1)
    assert effective_share(torch.tensor([0.0, -1e9], dtype=torch.float64)) == pytest.approx(0.5)


def test_steering_needs_particles(sampler: SpaceSampler) -> None:
    with pytest.raises(ValueError, match="n=1"):
        steer(sampler, reward, 1, torch.Generator())


def test_strength_is_chosen_for_different_hits(space: Space, sampler: SpaceSampler) -> None:
    def identify(x: Tensor) -> Tensor:
        return space.index(x)

    def probability(x: Tensor) -> Tensor:
        return (x[:, 2] == 17).double()

    strength, expected = choose_strength(sampler, identify, probability, 60, torch.Generator().manual_seed(0))
    assert expected[strength] == max(expected.values())
    again = replace(sampler, guidance=strength).draw(180, torch.Generator().manual_seed(5))
    assert 0 < expected[strength] <= min(60, len(torch.unique(space.index(again))) + 30)


def test_the_least_veto_that_expects_the_precision() -> None:
    chance = torch.tensor([0.2, 1.0, 0.6, 0.6, 0.9, 0.1])
    assert veto_for_precision(chance, 0.5) == pytest.approx(0.1)  # (1 + 0.9 + 0.6 + 0.6 + 0.2 + 0.1) / 6 = 0.567
    assert veto_for_precision(chance, 0.6) == pytest.approx(0.2)
    assert veto_for_precision(chance, 0.77) == pytest.approx(0.6)  # 3.1 / 4, both of the equal draws
    assert veto_for_precision(chance, 0.8) == pytest.approx(0.9)  # one of the equal draws alone would do
    with pytest.raises(ValueError, match="ask for less"):
        veto_for_precision(chance[:1], 0.5)


def test_vetoed_draws_hit_as_often_as_expected() -> None:
    """Calibrated probabilities: hits among the kept draws are what was asked for."""
    generator = torch.Generator().manual_seed(0)
    chance = torch.rand(200_000, generator=generator)
    hit = torch.rand(200_000, generator=generator) < chance
    t = veto_for_precision(chance, 0.8)
    assert t == pytest.approx(0.6, abs=0.01)
    assert float(hit[chance >= t].double().mean()) == pytest.approx(0.8, abs=0.01)


def test_a_few_answers_of_the_judge_correct_the_probabilities() -> None:
    generator = torch.Generator().manual_seed(0)
    odds = 3 * torch.randn(50_000, generator=generator, dtype=torch.float64)
    hit = torch.rand(50_000, generator=generator) < torch.sigmoid(2 * odds + 1)
    timid = torch.sigmoid(odds)  # as a surrogate whose deviations are too wide says
    asked = spread_rows(timid, 200)
    assert len(asked) == 200 and bool(((timid[asked] > 0.02) & (timid[asked] < 0.98)).all())
    better = recalibrate(timid[asked], hit[asked])(timid)

    def off(chance: torch.Tensor) -> float:
        return float((chance - torch.sigmoid(2 * odds + 1)).abs().mean())

    assert off(better) < 0.5 * off(timid)
    assert float(hit[better >= veto_for_precision(better, 0.95)].double().mean()) == pytest.approx(0.95, abs=0.02)
    few = recalibrate(timid[:1], hit[:1])(torch.tensor([0.0, 0.5, 1.0]))
    assert few[0] == 0 and few[2] == 1 and 0.3 < float(few[1]) < 0.7  # one answer changes little


def test_strength_and_veto_are_chosen_together(space: Space, sampler: SpaceSampler) -> None:
    def identify(x: Tensor) -> Tensor:
        return space.index(x)

    def probability(x: Tensor) -> Tensor:
        return torch.where(x[:, 2] == 17, 0.9, 0.3)

    generator = torch.Generator().manual_seed(0)
    strength, least, expected = choose_for_precision(sampler, identify, probability, 200, 0.85, generator)
    assert least == pytest.approx(0.9)  # with the draws of 0.3 the precision is missed
    assert expected[strength] == max(expected.values())
    crystals = int((space.at(torch.arange(len(space)))[:, 2] == 17).sum())
    assert 0 < expected[strength] <= 0.9 * crystals  # each crystal counts once, however often it is drawn
    everything = choose_for_precision(sampler, identify, probability, 200, 0.25, generator)
    assert everything[1] == pytest.approx(0.3) and everything[2][everything[0]] > expected[strength]
    with pytest.raises(ValueError, match=r"precision=0\.95: no strength"):
        choose_for_precision(sampler, identify, probability, 200, 0.95, generator)
