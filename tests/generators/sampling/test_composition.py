"""The sampler with a Bayes-optimal denoiser reproduces the exact posterior."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from data.prototype_table import PrototypeTable
from data.prototypes import prototype_library
from generators.conditioning import Conditions, PropertyScale
from generators.element_features import N_STATES
from generators.sampling.composition import CompositionSampler
from generators.wish import Interval

ELEMENTS = (3, 9, 12, 17)  # Li F Mg Cl


def table() -> PrototypeTable:
    return PrototypeTable.build([prototype_library().get("half_heusler")])


class BayesDenoiser(nn.Module):
    """Exact conditionals of ``p(x | y <= high)`` for three orbits of four elements, all different.

    The property is a fixed random number per composition; the condition's embedding is its high side.
    """

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.nothing = nn.Parameter(torch.zeros(1))
        self.states = torch.tensor(list(itertools.permutations(ELEMENTS, 3)))  # [24, 3]
        self.prior = torch.rand(len(self.states), generator=generator).double()
        self.prior /= self.prior.sum()
        self.value = torch.rand(len(self.states), generator=generator).double()

    def posterior(self, high: float) -> Tensor:
        weight = self.prior * (self.value <= high)
        return weight / weight.sum()

    def embed_conditions(self, features: Tensor, given: Tensor) -> Tensor:
        # Standardised high side back to the property; nothing given means everything is allowed.
        high = torch.where(given[:, 0], features[:, 0, 3] * self.std + self.mean, torch.tensor(torch.inf))
        return high[:, None]

    def forward(self, _: PrototypeTable, row: Tensor, elements: Tensor, condition: Tensor) -> Tensor:
        weight = self.prior[None] * (self.value[None] <= condition.expand(len(row), 1).double() + 1e-6)
        agrees = (self.states[None] == elements[:, None, :3]) | (elements[:, None, :3] == 0)
        weight = weight * agrees.all(-1)
        logits = torch.zeros(len(row), 3, N_STATES, dtype=torch.float64)
        for k in range(3):
            logits[:, k].index_add_(1, self.states[:, k], weight)
        return logits.log()


@pytest.fixture
def exact() -> tuple[BayesDenoiser, PropertyScale]:
    denoiser = BayesDenoiser()
    scale = PropertyScale.fit("y", denoiser.value)
    denoiser.mean, denoiser.std = scale.mean, scale.std  # type: ignore[assignment]
    return denoiser, scale


def sampler(exact: tuple[BayesDenoiser, PropertyScale], allowed: tuple[int, ...]) -> CompositionSampler:
    states = torch.zeros(N_STATES, dtype=torch.bool)
    states[list(allowed)] = True
    return CompositionSampler(exact[0], (exact[1],), states)  # type: ignore[arg-type]


@pytest.mark.parametrize("high", [0.3, 0.6])
def test_frequencies_equal_the_exact_posterior(exact: tuple[BayesDenoiser, PropertyScale], high: float) -> None:
    n = 20_000
    condition = Conditions.from_wish({"y": Interval(None, high)}, ["y"], 1)
    drawn = sampler(exact, ELEMENTS).draw_elements(
        table(), torch.zeros(n, dtype=torch.long), condition, torch.Generator().manual_seed(0)
    )
    match = (drawn[:, None, :3] == exact[0].states[None]).all(-1)
    assert bool(match.any(-1).all())
    counts = match.sum(0).double()
    expected = exact[0].posterior(high) * n
    impossible = expected == 0
    assert counts[impossible].sum() == 0
    seen = ~impossible
    chi_square = ((counts - expected)[seen] ** 2 / expected[seen]).sum()
    assert chi_square < 2.5 * int(seen.sum()) + 15


def test_clamped_orbits_keep_their_element(exact: tuple[BayesDenoiser, PropertyScale]) -> None:
    n = 4000
    clamp = torch.zeros(n, 3, dtype=torch.long)
    clamp[:, 1] = 9
    drawn = sampler(exact, ELEMENTS).draw_elements(
        table(),
        torch.zeros(n, dtype=torch.long),
        Conditions.nothing(1, 1),
        torch.Generator().manual_seed(0),
        clamp,
    )
    assert bool((drawn[:, 1] == 9).all())
    match = (drawn[:, None, :3] == exact[0].states[None]).all(-1)
    prior = exact[0].prior * (exact[0].states[:, 1] == 9)
    expected = prior / prior.sum() * n
    seen = expected > 0
    assert ((match.sum(0) - expected)[seen] ** 2 / expected[seen]).sum() < 30


def test_masked_elements_never_leak(exact: tuple[BayesDenoiser, PropertyScale]) -> None:
    allowed = (3, 9, 12)
    drawn = sampler(exact, allowed).draw_elements(
        table(),
        torch.zeros(2000, dtype=torch.long),
        Conditions.nothing(1, 1),
        torch.Generator().manual_seed(0),
    )
    assert set(drawn.flatten().tolist()) == set(allowed)
    assert bool((drawn.sort(-1).values.diff(dim=-1) > 0).all())  # all different
    with pytest.raises(ValueError, match="allowed_elements"):
        sampler(exact, (3, 9)).draw_elements(
            table(),
            torch.zeros(2, dtype=torch.long),
            Conditions.nothing(1, 1),
            torch.Generator().manual_seed(0),
        )
