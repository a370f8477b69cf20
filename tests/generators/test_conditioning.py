"""Interval conditions: fair weights, ranks and features."""

from __future__ import annotations

import math

import pytest
import torch

from generators.conditioning import (
    Conditions,
    PropertyScale,
    condition_features,
    random_conditions,
)
from generators.wish import Interval


def uniform_labels(n: int) -> torch.Tensor:
    return torch.rand(n, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_cdf_and_quantile_are_inverse_and_right() -> None:
    labels = uniform_labels(20_000)[:, 0]
    scale = PropertyScale.fit("y", labels)
    for q in (0.001, 0.01, 0.3, 0.5, 0.99):
        value = float(scale.quantile(torch.tensor([q])))
        assert value == pytest.approx(q, abs=0.01)
        assert float(scale.cdf(torch.tensor([value]))) == pytest.approx(q, abs=1e-6)
        assert float((labels <= value).double().mean()) == pytest.approx(q, abs=2e-4)
    assert float(scale.cdf(torch.tensor([-5.0]))) == 0
    assert float(scale.cdf(torch.tensor([5.0]))) == 1


def test_scale_survives_its_state() -> None:
    scale = PropertyScale.fit("y", uniform_labels(1000)[:, 0])
    again = PropertyScale.from_state(scale.state())
    x = torch.linspace(-1, 2, 50)
    assert torch.equal(scale.cdf(x), again.cdf(x))


@pytest.mark.parametrize("labels", [torch.ones(50), torch.rand(5)])
def test_scale_needs_labels_that_vary(labels: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="y: "):
        PropertyScale.fit("y", labels)


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_inside_an_interval_every_label_counts_the_same(kind: int) -> None:
    """Weighted by the fair weight, labels are uniform inside the interval that is shown."""
    n = 400_000
    labels = uniform_labels(n)
    scale = PropertyScale.fit("y", labels[:, 0])
    kinds = tuple(float(k == kind) for k in range(3))
    conditions, weight = random_conditions(
        labels, [scale], torch.Generator().manual_seed(1), unconditional=0.0, kinds=kinds, narrowest=0.05
    )
    y, low, high = labels[:, 0], conditions.low[:, 0], conditions.high[:, 0]
    assert bool(((y >= low) & (y <= high)).all())
    if kind == 0:
        chosen, share = (high > 0.28) & (high < 0.32), y / 0.3
    elif kind == 1:
        chosen, share = (low > 0.68) & (low < 0.72), (y - 0.7) / 0.3
    else:
        width = high - low
        chosen = (width > 0.2) & (width < 0.4) & (low > 0.05) & (high < 0.95)
        share = (y - low) / width
    inside = chosen & (share > 0) & (share < 1)
    assert int(inside.sum()) > 2000
    bins = (share[inside] * 5).long().clamp(0, 4)
    mass = torch.zeros(5, dtype=torch.float64).index_add(0, bins, weight[inside])
    error = torch.zeros(5, dtype=torch.float64).index_add(0, bins, weight[inside] ** 2).sqrt()
    assert bool(((mass - mass.mean()).abs() < 5 * error + 0.02 * mass.mean()).all()), mass / mass.mean()


def test_one_sided_weights_have_mean_one() -> None:
    labels = uniform_labels(200_000)
    scale = PropertyScale.fit("y", labels[:, 0])
    _, weight = random_conditions(
        labels, [scale], torch.Generator().manual_seed(1), unconditional=0.0, kinds=(1.0, 0.0, 0.0)
    )
    assert float(weight.mean()) == pytest.approx(1.0, abs=0.01)


def test_unknown_labels_are_never_shown() -> None:
    labels = torch.rand(5000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels[::2, 1] = torch.nan
    scales = [PropertyScale.fit("a", labels[:, 0]), PropertyScale.fit("b", labels[:, 1])]
    conditions, weight = random_conditions(labels, scales, torch.Generator().manual_seed(1), 0.2)
    assert not conditions.given[::2, 1].any()
    assert float((~conditions.given.any(-1)).double().mean()) == pytest.approx(0.2, abs=0.02)
    assert bool((conditions.given.sum(-1) == 2).any())
    assert bool(torch.isfinite(weight).all())
    assert bool(torch.isfinite(condition_features(conditions, scales)).all())


def test_features_of_a_wish() -> None:
    scale = PropertyScale.fit("y", uniform_labels(10_000)[:, 0])
    wish = Conditions.from_wish({"y": Interval(None, 0.01)}, ["y"], 2)
    features = condition_features(wish, [scale])[0, 0]
    assert features[0] == 0 and features[1] == 1
    assert float(features[3]) == pytest.approx((0.01 - scale.mean) / scale.std, abs=1e-4)
    assert float(features[6]) == pytest.approx(math.log(0.01) / 3, abs=0.02)
    nothing = condition_features(Conditions.nothing(2, 1), [scale])
    assert bool((nothing == 0).all())
