"""Masked diffusion against exact sums over a small space."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from generators.diffusion.masked import (
    corrupt,
    guided_logits,
    hidden_counts,
    negative_bound,
    reveal_order,
    sample_states,
)
from generators.diffusion.times import EARLIEST, LATEST, NEAR_SHARE, low_discrepancy_times, near_data

K, S = 3, 4


@pytest.fixture
def joint() -> torch.Tensor:
    """A random joint distribution over K tokens of S states."""
    return (
        torch.rand([S] * K, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        .softmax(0)
        .div(S ** (K - 1))
    )


def conditional(joint: torch.Tensor, x: tuple[int, ...], hidden: tuple[bool, ...]) -> torch.Tensor:
    """Exact log p(token k | visible) [K, S] by summing the joint."""
    index = [slice(None) if h else slice(x[k], x[k] + 1) for k, h in enumerate(hidden)]
    visible = joint[tuple(index)]
    rows = []
    for k in range(K):
        marginal = visible.sum([d for d in range(K) if d != k])
        row = torch.zeros(S, dtype=torch.float64)
        if hidden[k]:
            row = marginal
        else:
            row[x[k]] = marginal.sum()
        rows.append((row / row.sum()).log())
    return torch.stack(rows)


def test_bound_of_the_exact_model_is_the_exact_likelihood(joint: torch.Tensor) -> None:
    joint = joint / joint.sum()
    for x in [(0, 1, 2), (3, 3, 0)]:
        total = 0.0
        for hidden in itertools.product([False, True], repeat=K):
            m = sum(hidden)
            if m == 0:
                continue
            probability = 1 / K / math.comb(K, m)  # the count is uniform, the set given the count too
            bound = negative_bound(
                conditional(joint, x, hidden)[None],
                torch.tensor([x]),
                torch.tensor([hidden]),
                torch.ones(1, K, dtype=torch.bool),
            )
            total += probability * float(bound)
        assert total == pytest.approx(-float(joint[x].log()), abs=1e-10)


def test_hidden_counts_are_uniform() -> None:
    t = low_discrepancy_times(3000, torch.Generator().manual_seed(0))
    counts = torch.bincount(hidden_counts(torch.full((3000,), K), t), minlength=K + 1)
    assert counts[0] == 0
    assert (counts[1:] - 1000).abs().max() <= 1


def test_low_discrepancy_times_are_stratified() -> None:
    t = low_discrepancy_times(64, torch.Generator().manual_seed(1))
    assert bool(((t > 0) & (t <= 1)).all())
    assert torch.bincount((t * 64).clamp(max=63.999).long(), minlength=64).max() <= 2
    gaps = t.sort().values.diff()
    assert torch.allclose(gaps, torch.full_like(gaps, 1 / 64), atol=1e-6)


def test_corrupt_hides_existing_tokens_uniformly() -> None:
    mask = torch.tensor([True, True, True, False]).repeat(6000, 1)
    hidden = corrupt(mask, torch.full((6000,), 0.5), torch.Generator().manual_seed(0))
    assert not hidden[:, 3].any()
    assert bool((hidden.sum(-1) == 2).all())
    share = hidden.double().mean(0)[:3]
    assert torch.allclose(share, torch.full_like(share, 2 / 3), atol=0.03)


def test_reveal_order_is_a_uniform_permutation() -> None:
    mask = torch.tensor([True, True, False, True]).repeat(6000, 1)
    order = reveal_order(mask, torch.Generator().manual_seed(0))
    assert bool((order[:, 2] == -1).all())
    assert bool((order[:, [0, 1, 3]].sort(-1).values == torch.arange(3)).all())
    codes = order[:, 0] * 9 + order[:, 1] * 3 + order[:, 3]
    counts = torch.unique(codes, return_counts=True)[1].double()
    assert len(counts) == 6
    assert ((counts - 1000) ** 2 / 1000).sum() < 20.5  # chi-square, 5 degrees of freedom, p = 0.001


def test_sample_states_follow_the_softmax_and_respect_masks() -> None:
    logits = torch.tensor([0.0, 1.0, -torch.inf, 2.0]).repeat(40_000, 1)
    drawn = sample_states(logits, torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn, minlength=4).double()
    expected = logits[0].softmax(0).double() * 40_000
    assert counts[2] == 0
    keep = expected > 0
    assert ((counts - expected)[keep] ** 2 / expected[keep]).sum() < 13.8  # 2 degrees of freedom, p = 0.001
    with pytest.raises(ValueError, match="temperature"):
        sample_states(logits, torch.Generator(), temperature=0.0)


def test_guidance_is_the_stated_power_of_the_likelihood_ratio() -> None:
    conditional_logits = torch.tensor([[0.3, 1.0, -0.5]], dtype=torch.float64)
    unconditional_logits = torch.tensor([[0.0, 0.2, 0.4]], dtype=torch.float64)
    plain = guided_logits(conditional_logits, unconditional_logits, 1.0).softmax(-1)
    assert torch.allclose(plain, conditional_logits.softmax(-1))
    none = guided_logits(conditional_logits, unconditional_logits, 0.0).softmax(-1)
    assert torch.allclose(none, unconditional_logits.softmax(-1))
    strong = guided_logits(conditional_logits, unconditional_logits, 3.0).softmax(-1)
    exact = conditional_logits.softmax(-1) ** 3 / unconditional_logits.softmax(-1) ** 2
    assert torch.allclose(strong, exact / exact.sum())


def test_times_near_the_data_are_uniform_in_their_logarithm() -> None:
    n = 200_000
    generator = torch.Generator().manual_seed(0)
    t = near_data(low_discrepancy_times(n, generator), generator)
    assert float(t.min()) >= EARLIEST * (1 - 1e-6) and float(t.max()) <= 1
    below = [float((t <= edge).double().mean()) for edge in (0.02, 0.1, LATEST, 0.7)]
    expected = [
        NEAR_SHARE * min(math.log(edge / EARLIEST) / math.log(LATEST / EARLIEST), 1) + (1 - NEAR_SHARE) * edge
        for edge in (0.02, 0.1, LATEST, 0.7)
    ]
    assert below == pytest.approx(expected, abs=0.005)
