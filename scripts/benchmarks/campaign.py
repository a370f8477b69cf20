"""A campaign from nothing in the elpasolite world: hits over judge calls, and what the taught generator is worth then."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generators.campaign import Campaign
from generators.campaign_command import start_campaign
from generators.sampling.steering import draw_accepted
from generators.schema import CampaignConfig, LoggerConfig, TargetConfig
from generators.wish import Wish
from generators.worlds.open import open_world
from generators.worlds.scores import Score, score_samples
from generators.worlds.world import World

NAME, HIGH, SAMPLES, SEEDS = "formation_energy_per_atom", -2.5, 10_000, 5
IMAGE = Path(__file__).resolve().parents[2] / "docs" / "images" / "campaign.png"


def genetic_hits(world: World, wish: Wish, calls: int, batch: int, seed: int) -> list[int]:
    """Hits after each batch of a genetic algorithm that asks the judge itself: the best 100 judged are parents, uniform
    crossover, 30 % mutation of one orbit, never the same crystal twice; the first batch is random."""
    generator = torch.Generator().manual_seed(seed)
    truth, hits = world.truth[NAME], world.hits(wish)
    elements = world.space.allowed.any(0).nonzero().squeeze(1)
    judged = torch.unique(world.space.uniform(2 * batch, generator))[torch.randperm(batch, generator=generator)]
    found = [int(hits[judged].sum())]
    while len(judged) < calls:
        parents = world.space.at(judged[torch.argsort(truth[judged])[:100]])
        n = 20 * batch
        mother, father = (parents[torch.randint(len(parents), (n,), generator=generator)] for _ in range(2))
        child = torch.where(torch.rand(mother.shape, generator=generator) < 0.5, mother, father)
        one = torch.randint(child.shape[1], (n, 1), generator=generator)
        fresh = elements[torch.randint(len(elements), (n, 1), generator=generator)]
        child = torch.where(torch.rand(n, 1, generator=generator) < 0.3, child.scatter(1, one, fresh), child)
        index = world.space.index(child)
        new = [i for i in dict.fromkeys(index.tolist()) if i >= 0]
        fresh_index = torch.tensor(new, dtype=torch.long)
        fresh_index = fresh_index[~torch.isin(fresh_index, judged)][:batch]
        if len(fresh_index) < batch:  # converged: fill up at random
            fresh_index = torch.unique(torch.cat([fresh_index, world.space.uniform(batch, generator)]))[:batch]
        judged = torch.unique(torch.cat([judged, fresh_index]))
        found.append(int(hits[judged].sum()))
    return found


def after(campaign: Campaign, world: World, wish: Wish, strength: float, steered: bool) -> list[Score]:
    """Five times 10,000 samples of the generator that learnt from all that was judged.

    Steered: what was judged a miss, or is not judged and the surrogate calls a miss, is dropped.
    """
    learner, known = campaign.learner, campaign.known
    surrogate = learner.surrogate
    assert surrogate is not None
    label = torch.full((len(world.space),), torch.nan, dtype=torch.float64)
    label[known.index] = known.labels[:, 0]

    def accept(elements: Tensor) -> Tensor:
        seen = label[world.space.index(elements)]
        guess = surrogate.predict(elements)[0][:, 0]
        return torch.where(torch.isnan(seen), guess, seen) <= HIGH

    sampler = learner.sampler(wish, strength)
    propose = partial(draw_accepted, sampler, accept) if steered else (lambda n, g: (sampler.draw(n, g), n))
    return [
        score_samples(world, wish, propose(SAMPLES, torch.Generator().manual_seed(2000 + s))[0], known.index)
        for s in range(SEEDS)
    ]


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Needs ``--data FOLDER``; a campaign kept in ``--cache`` is read, or goes on where it was stopped."""
    world = open_world("elpasolite", arguments.data, arguments.cache)
    config = CampaignConfig(
        run="campaign",
        steps=240,
        budget=2500,
        target=TargetConfig(wish={NAME: [None, HIGH]}),
        logger=LoggerConfig("none"),
    )
    wish = next(w for name, w in world.targets.items() if name.endswith(f"{HIGH:g}"))
    campaign = start_campaign(world, wish, config, arguments.cache / "campaign-nothing-0")
    campaign.run(lambda row: print(row, flush=True))
    existing = int(world.hits(wish).sum())
    genetic = np.array([genetic_hits(world, wish, config.budget, config.batch, s) for s in range(SEEDS)])
    rows = []
    for row, ga in zip(campaign.rows, genetic.T, strict=False):
        guess = row["predicted_hits"]
        rows.append(
            f"| {row['calls']:,} | {row['hits_so_far']} | {row['hits_so_far'] / existing:.1%} | {ga.mean():.0f} ± "
            f"{ga.std(ddof=1):.0f} | {row['calls'] * existing / len(world.space):.1f} | {row['hits']} | "
            f"{'-' if guess is None else f'{guess:.0f}'} | {row['seconds']:.0f} |"
        )
    worth, figures = [], {}
    for strength in (1.0, 1.5, 2.0):
        for steered in (False, True):
            scores = after(campaign, world, wish, strength, steered)
            p, c, o = (
                np.array([getattr(s, k) for s in scores]) for k in ("precision", "coverage", "spelling_coverage")
            )
            figures[f"{strength:g}{' steered' if steered else ''}"] = [
                float(p.mean()),
                float(c.mean()),
                float(o.mean()),
            ]
            worth.append(
                f"| {strength:g}{', steered' if steered else ''} | {p.mean():.2%} ± {p.std(ddof=1):.2%} | "
                f"{c.mean():.2%} ± {c.std(ddof=1):.2%} | {o.mean():.2%} |"
            )
    _picture(campaign.rows, genetic, existing, existing / len(world.space))
    table, samples = "\n".join(rows), "\n".join(worth)
    text = f"""## A campaign from nothing

`python scripts/benchmark.py campaign --data FOLDER`: world elpasolite ({len(world.space):,} crystals, {existing} of them below {HIGH} eV/atom by the
judge: {world.judge}). No data, no trained model: {config.first} random crystals are judged first, then {config.batch} in each round;
the judge is the only teacher. One seed (0); one thread, other work on the machine, so that the seconds are upper bounds. The genetic algorithm asks
the judge itself (best 100 as parents, {SEEDS} seeds); random: the expectation. Goodhart check: hits that the surrogate expected in
a round beside hits that the judge confirmed.

![Hits over judge calls](images/campaign.png)

| calls | hits found | of all | genetic algorithm | random | hits in round | surrogate expected | s |
|---|---|---|---|---|---|---|---|
{table}

Afterwards the generator has learnt from the {campaign.known.calls:,} judged crystals; {SAMPLES:,} samples, {SEEDS} sampling seeds. Steered: samples that were
judged a miss, or that the surrogate calls one, are dropped.

| guidance | precision | coverage | coverage, ordered |
|---|---|---|---|
{samples}"""
    return {"markdown": text, "rounds": campaign.rows, "genetic": genetic.tolist(), "after": figures}


def _picture(rows: list[dict[str, Any]], genetic: np.ndarray, existing: int, share: float) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6.4, 4), constrained_layout=True)
    calls = [row["calls"] for row in rows]
    axis.plot(calls, [row["hits_so_far"] for row in rows], "o-", color="#0b6e4f", label="raremat from nothing")
    n = min(len(calls), genetic.shape[1])
    axis.errorbar(
        calls[:n], genetic.mean(0)[:n], yerr=genetic.std(0, ddof=1)[:n], fmt="s--", color="#c77d2e", capsize=2,
        label="genetic algorithm",
    )  # fmt: skip
    axis.plot(calls, [c * share for c in calls], ":", color="#777", label="random")
    axis.axhline(existing, color="#bbb", lw=1)
    axis.set(xlabel="judge calls", ylabel="hits found", title=f"all {existing} elpasolites below {HIGH} eV/atom")
    axis.legend(frameon=False)
    figure.savefig(IMAGE, dpi=110)
