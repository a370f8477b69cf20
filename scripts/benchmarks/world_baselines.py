"""Other ways to find rare crystals of a world, small honest versions; none sees the judge.

The learners get what raremat's generator gets: the same surrogate, and as many crystals labelled by it. They were
hardly tuned: the policy gradient on five settings (see there), the others, like raremat's generator, on one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generators.oracles.slot_ensemble import SlotEnsemble
from generators.screening.baselines import balanced_flags
from generators.wish import Wish
from generators.worlds.space import Space

Propose = Callable[[int, torch.Generator], Tensor]
STEPS, POLICY_STEPS, BATCH, WIDTH, LATENT = 1500, 60, 512, 192, 16
MARGIN = 0.15


class Asked(Protocol):
    """A trained proposer with knobs: temperature of its draws, and how far inside the wish the asked label lies, in
    standard deviations of the labels (not for the policy)."""

    def __call__(
        self, n: int, generator: torch.Generator, temperature: float = 1.0, margin: float = MARGIN
    ) -> Tensor: ...


class Baselines:
    """All baselines of one world under one wish.

    Args:
        space: the world's.
        surrogate: fitted on the training labels.
        wish: of one property, ``below``.
        seed: of the training.
    """

    def __init__(self, space: Space, surrogate: SlotEnsemble, wish: Wish, seed: int) -> None:
        self.space, self.surrogate, self.wish, self.seed = space, surrogate, wish, seed
        self.elements = space.allowed.any(0).nonzero().squeeze(1)
        self.code = torch.zeros(119, dtype=torch.long)
        self.code[self.elements] = torch.arange(len(self.elements))
        self.k, self.z = space.allowed.shape[0], len(self.elements)
        generator = torch.Generator().manual_seed(seed)
        pool = space.at(space.uniform(60_000, generator))
        self.labels = surrogate.predict(pool)[0][:, 0].float()
        self.center, self.spread = self.labels.mean(), self.labels.std()
        swap = torch.rand(len(pool), generator=generator) < 0.5
        orders = torch.tensor(space.table.prototypes[0].equivalent_orders)
        pool[swap] = pool[swap][:, orders[-1]]
        self.pool = self.code[pool]

    def _score(self, elements: Tensor) -> Tensor:
        return self.surrogate.log_probability(elements, self.wish)

    def _target(self) -> Tensor:
        """What is asked of the conditional models: the wish's upper end, standardised."""
        high = next(iter(self.wish.intervals.values())).high
        assert high is not None
        return (torch.tensor(high) - self.center) / self.spread

    # -- without learning ------------------------------------------------------------------------------

    def random(self) -> Propose:
        return lambda n, generator: self.space.at(self.space.uniform(n, generator))

    def balanced(self) -> Propose:
        def propose(n: int, generator: torch.Generator) -> Tensor:
            kept: list[Tensor] = []
            while sum(map(len, kept)) < n:
                drawn = self.space.at(self.space.uniform(n, generator))
                row = torch.zeros(len(drawn), dtype=torch.long)
                kept.append(drawn[torch.tensor(balanced_flags(self.space.table, row, drawn))])
            return torch.cat(kept)[:n]

        return propose

    def genetic(self) -> Propose:
        """Samples of the archive of 60 generations: all children that the surrogate expects to hit."""

        def propose(n: int, generator: torch.Generator) -> Tensor:
            people, score = self.evolve(60, generator)
            archive = people[score > -0.6931] if bool((score > -0.6931).any()) else people[-1]
            archive = archive.reshape(-1, self.k)
            return archive[torch.randint(len(archive), (n,), generator=generator)]

        return propose

    def evolve(
        self, generations: int, generator: torch.Generator, population: int = 1000, mutation: float = 0.3
    ) -> tuple[Tensor, Tensor]:
        """Every generation [G, population, K] and the surrogate's log-probability of a hit [G, population]: tournaments of
        four by that probability, uniform crossover, mutation of one orbit."""
        people = self.space.at(self.space.uniform(population, generator))
        everyone, scores = [], []
        for _ in range(generations):
            score = self._score(people)
            everyone.append(people)
            scores.append(score)
            fights = torch.randint(len(people), (2 * population, 4), generator=generator)
            winners = people[fights.gather(1, score[fights].argmax(1, keepdim=True)).squeeze(1)]
            mother, father = winners[:population], winners[population:]
            child = torch.where(torch.rand(mother.shape, generator=generator) < 0.5, mother, father)
            one = torch.randint(self.k, (population, 1), generator=generator)
            fresh = self.elements[torch.randint(self.z, (population, 1), generator=generator)]
            mutate = torch.rand(population, 1, generator=generator) < mutation
            child = torch.where(mutate, child.scatter(1, one, fresh), child)
            inside = self.space.index(child) >= 0
            people = torch.where(inside[:, None], child, mother)
        return torch.stack(everyone), torch.stack(scores)

    # -- learners --------------------------------------------------------------------------------------

    def vae(self, beta: float = 0.5) -> Asked:
        """Conditional variational autoencoder; rows with rare labels are drawn more often, as in teaching."""
        torch.manual_seed(self.seed)
        encoder = _mlp(self.k * self.z + 1, 2 * LATENT)
        decoder = _mlp(LATENT + 1, self.k * self.z)
        optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 1e-3)
        order = torch.argsort(self.labels)
        for _ in range(STEPS):
            rows = self._rare_rows(order)
            x, y = F.one_hot(self.pool[rows], self.z).flatten(1).float(), self._standard(rows)
            mean, log_variance = encoder(torch.cat([x, y], 1)).chunk(2, 1)
            latent = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
            logits = decoder(torch.cat([latent, y], 1)).unflatten(1, (self.k, self.z))
            kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
            loss = F.cross_entropy(logits.flatten(0, 1), self.pool[rows].flatten()) * self.k + beta * kl.mean()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()

        @torch.no_grad()
        def propose(n: int, generator: torch.Generator, temperature: float = 1.0, margin: float = MARGIN) -> Tensor:
            latent = torch.randn(n, LATENT, generator=generator)
            y = (self._target() - margin).expand(n, 1)
            logits = decoder(torch.cat([latent, y], 1)).reshape(n * self.k, self.z) / temperature
            drawn = torch.multinomial(logits.softmax(-1), 1, generator=generator)
            return self.elements[drawn.reshape(n, self.k)]

        return propose

    def gan(self) -> Asked:
        """Conditional GAN with a straight-through Gumbel softmax and a logistic loss."""
        torch.manual_seed(self.seed)
        maker, critic = _mlp(LATENT + 1, self.k * self.z), _mlp(self.k * self.z + 1, 1)
        make = torch.optim.Adam(maker.parameters(), 5e-4, betas=(0.5, 0.9))
        judge = torch.optim.Adam(critic.parameters(), 5e-4, betas=(0.5, 0.9))
        order = torch.argsort(self.labels)
        for _ in range(STEPS):
            rows = self._rare_rows(order)
            x, y = F.one_hot(self.pool[rows], self.z).flatten(1).float(), self._standard(rows)
            logits = maker(torch.cat([torch.randn(len(rows), LATENT), y], 1)).unflatten(1, (self.k, self.z))
            fake = F.gumbel_softmax(logits, hard=True).flatten(1)
            real_score, fake_score = critic(torch.cat([x, y], 1)), critic(torch.cat([fake.detach(), y], 1))
            loss = F.softplus(-real_score).mean() + F.softplus(fake_score).mean()
            judge.zero_grad()
            torch.autograd.backward(loss)
            judge.step()
            loss = F.softplus(-critic(torch.cat([fake, y], 1))).mean()
            make.zero_grad()
            torch.autograd.backward(loss)
            make.step()

        @torch.no_grad()
        def propose(n: int, generator: torch.Generator, temperature: float = 1.0, margin: float = MARGIN) -> Tensor:
            y = (self._target() - margin).expand(n, 1)
            logits = maker(torch.cat([torch.randn(n, LATENT, generator=generator), y], 1))
            logits = logits.reshape(n * self.k, self.z) / temperature
            drawn = torch.multinomial(logits.softmax(-1), 1, generator=generator)
            return self.elements[drawn.reshape(n, self.k)]

        return propose

    def policy_gradient(self) -> Propose:
        """Stopped early: of five settings (60, 100, 600 steps at an entropy bonus of 0.05, 300 at 0.1 and 0.2) all but the
        shortest collapsed to less than 8 % of the hits, at a precision of 100 %."""
        return self.policies((POLICY_STEPS,))[POLICY_STEPS]

    def policies(self, stops: Sequence[int], entropy: float = 0.05) -> dict[int, Asked]:
        """REINFORCE on an autoregressive policy, as it is after each of ``stops`` steps; the reward is the surrogate's
        log-probability of a hit, clipped, with an entropy bonus."""
        torch.manual_seed(self.seed)
        policies = nn.ModuleList(_mlp(max(i, 1) * self.z, self.z) for i in range(self.k))
        optimizer = torch.optim.Adam(policies.parameters(), 1e-3)
        generator = torch.Generator().manual_seed(self.seed)
        stopped: dict[int, Asked] = {}
        for step in range(1, max(stops) + 1):
            elements, log_p, spread = self._rollout(policies, BATCH, generator)
            reward = (self._score(elements).clamp(min=-40) / 40).float()
            advantage = (reward - reward.mean()) / reward.std().clamp(min=1e-3)
            loss = -(advantage.detach() * log_p).mean() - entropy * spread.mean()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            if step in stops:
                stopped[step] = self._policy(copy.deepcopy(policies))
        return stopped

    def _policy(self, policies: nn.ModuleList) -> Asked:
        @torch.no_grad()
        def propose(n: int, generator: torch.Generator, temperature: float = 1.0, margin: float = MARGIN) -> Tensor:
            return self._rollout(policies, n, generator, temperature)[0]

        return propose

    def _rollout(
        self, policies: nn.ModuleList, n: int, generator: torch.Generator, temperature: float = 1.0
    ) -> tuple[Tensor, Tensor, Tensor]:
        seen = torch.zeros(n, 0)
        drawn, log_p, spread = torch.zeros(n, 0, dtype=torch.long), torch.zeros(n), torch.zeros(n)
        for i, policy in enumerate(policies):
            logits = policy(seen if i else torch.zeros(n, self.z))
            if i and self.space.distinct:
                logits = logits.masked_fill(seen.reshape(n, i, self.z).sum(1) > 0, -1e4)
            log_q = F.log_softmax(logits / temperature, -1)
            one = torch.multinomial(log_q.exp().detach(), 1, generator=generator)
            log_p, spread = log_p + log_q.gather(1, one).squeeze(1), spread - (log_q.exp() * log_q).sum(1)
            seen = torch.cat([seen, F.one_hot(one.squeeze(1), self.z).float()], 1)
            drawn = torch.cat([drawn, one], 1)
        return self.elements[drawn], log_p, spread

    def _rare_rows(self, order: Tensor) -> Tensor:
        """Half of a batch log-uniform in the rank of the label, half uniform."""
        n = len(order)
        rank = (torch.exp(torch.rand(BATCH // 2) * torch.log(torch.tensor(float(n)))) - 1).long().clamp(max=n - 1)
        return torch.cat([order[rank], torch.randint(n, (BATCH // 2,))])

    def _standard(self, rows: Tensor) -> Tensor:
        return ((self.labels[rows] - self.center) / self.spread)[:, None]


def _mlp(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, outputs)
    )
