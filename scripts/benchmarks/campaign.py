"""Campaigns in the elpasolite world, from nothing and from labels: hits over judge calls, beside a genetic algorithm."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.campaign_tables import goodhart_table, half_line, hits_table, picture
from generators.campaign import Campaign
from generators.campaign_command import start_campaign
from generators.sampling.steering import draw_accepted
from generators.schema import CampaignConfig, LoggerConfig, TargetConfig
from generators.wish import Wish
from generators.worlds.open import open_world
from generators.worlds.scores import Score, score_samples
from generators.worlds.world import World, first_labels

NAME, HIGH, SAMPLES, SEEDS = "formation_energy_per_atom", -2.5, 10_000, 5
STARTS: dict[str, tuple[int | None, int]] = {
    "nothing": (0, 1_750),
    "200 labels": (200, 1_000),
    "all labels": (None, 750),
}
"""Labels known at the start, and judge calls of seed 0."""
REPEATED = 1_000
"""Judge calls of the other seeds: half of all is found by then."""
IMAGE = Path(__file__).resolve().parents[2] / "docs" / "images" / "campaign.png"


def genetic_hits(world: World, wish: Wish, calls: int, batch: int, seed: int, labels: int | None = 0) -> list[int]:
    """Hits after each batch of a genetic algorithm that asks the judge itself: the best 100 known are parents, uniform
    crossover, 30 % mutation of one orbit, never the same crystal twice; without labels the first batch is random."""
    generator = torch.Generator().manual_seed(seed)
    hits, known = world.hits(wish), torch.full((len(world.space),), torch.inf, dtype=torch.float64)
    elements = world.space.allowed.any(0).nonzero().squeeze(1)
    judged, found = torch.zeros(0, dtype=torch.long), []
    if labels == 0:
        judged = torch.unique(world.space.uniform(2 * batch, generator))[torch.randperm(batch, generator=generator)]
        found.append(int(hits[judged].sum()))
    else:
        rows = first_labels(world.train_index, labels, seed)
        known[world.train_index[rows]] = world.train_labels[NAME][rows]
    while len(judged) < calls:
        known[judged] = world.truth[NAME][judged]
        parents = world.space.at(torch.topk(known, 100, largest=False).indices)
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


def after(
    campaign: Campaign, world: World, wish: Wish, strength: float, steered: bool
) -> tuple[list[Score], list[float]]:
    """Scores of five times 10,000 samples of the generator that learnt from all that was judged, and the share of each
    that the surrogate, or the judge where it was asked, calls hits.

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
    drawn = [propose(SAMPLES, torch.Generator().manual_seed(2000 + s))[0] for s in range(SEEDS)]
    scores = [score_samples(world, wish, elements, known.index) for elements in drawn]
    return scores, [float(accept(elements).double().mean()) for elements in drawn]


def start(world: World, wish: Wish, name: str, seed: int, cache: Path) -> Campaign:
    """One campaign, read from ``cache`` or gone on with where it was stopped."""
    labels, budget = STARTS[name]
    budget = min(budget, REPEATED) if seed else budget
    config = CampaignConfig(
        run="campaign", steps=120, budget=budget, labels=labels, seed=seed,
        target=TargetConfig(wish={NAME: [None, HIGH]}), logger=LoggerConfig("none"),
    )  # fmt: skip
    folder = cache / f"campaign-{name.replace(' ', '-')}-{budget}-{seed}"
    campaign = start_campaign(world, wish, config, folder)
    campaign.run(lambda row: print(name, seed, row, flush=True))
    return campaign


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Needs ``--data FOLDER``; ``--seeds`` campaigns from nothing, one from each set of labels; kept in ``--cache``."""
    world = open_world("elpasolite", arguments.data, arguments.cache)
    wish = next(w for name, w in world.targets.items() if name.endswith(f"{HIGH:g}"))
    done = {name: [start(world, wish, name, seed, arguments.cache) for seed in range(arguments.seeds if name == "nothing" else 1)]
            for name in STARTS}  # fmt: skip
    existing = int(world.hits(wish).sum())
    genetic = {
        name: np.array([genetic_hits(world, wish, budget, 250, s, labels) for s in range(SEEDS)])
        for name, (labels, budget) in STARTS.items()
    }
    worth, figures = _worth({name: campaigns[0] for name, campaigns in done.items()}, world, wish)
    picture(
        IMAGE, {k: [c.rows for c in v] for k, v in done.items()}, genetic, existing, existing / len(world.space), HIGH
    )
    text = f"""## Campaigns

`python scripts/benchmark.py campaign --data FOLDER --seeds {arguments.seeds}`: world elpasolite ({len(world.space):,} crystals, {existing} of them below {HIGH} eV/atom by the
judge: {world.judge}). From nothing (no data, no trained model: 250 random crystals are judged first, then 250 in each round; seeds: {arguments.seeds}),
from 200 random DFT labels, and from all {len(world.train_index):,} (250 calls per round, one seed each). The labels given are DFT's, not the judge's: what
they hold below {HIGH} counts as found only once the judge was asked. The genetic algorithm asks the judge itself (the best 100 known as parents,
the same labels at the start, {SEEDS} seeds); random: the expectation. Mean ± standard deviation over seeds.

![Hits over judge calls](images/campaign.png)

{hits_table({k: [c.rows for c in v] for k, v in done.items()}, genetic, existing, existing / len(world.space))}

{half_line({k: [c.rows for c in v] for k, v in done.items()}, existing)}

Goodhart check: hits that the steering oracle (the surrogate) expected in a round, hits that the judge confirmed, and their ratio; seconds of a
round on one thread with other work on the machine.

{goodhart_table({k: [c.rows for c in v] for k, v in done.items()})}

Afterwards the generator has learnt from everything judged (seed 0); {SAMPLES:,} samples, {SEEDS} sampling seeds. Steered: samples that were judged a
miss, or that the surrogate calls one, are dropped. "Called hits": share of the samples that the judge, where it was asked, or the surrogate calls hits.

{worth}"""
    rows = {name: [c.rows for c in campaigns] for name, campaigns in done.items()}
    return {"markdown": text, "rounds": rows, "genetic": {k: v.tolist() for k, v in genetic.items()}, "after": figures}


def _worth(campaigns: dict[str, Campaign], world: World, wish: Wish) -> tuple[str, dict[str, list[float]]]:
    lines = [
        "| start | calls | guidance | precision | called hits | coverage | coverage, ordered |",
        "|---|---|---|---|---|---|---|",
    ]
    figures = {}
    for name, campaign in campaigns.items():
        for strength in (1.0, 1.5):
            for steered in (False, True):
                scores, called = after(campaign, world, wish, strength, steered)
                p, c, o = (
                    np.array([getattr(s, k) for s in scores]) for k in ("precision", "coverage", "spelling_coverage")
                )
                way = f"{strength:g}{', steered' if steered else ''}"
                figures[f"{name}, {way}"] = [float(x.mean()) for x in (p, c, o, np.array(called))]
                lines.append(
                    f"| {name} | {campaign.known.calls:,} | {way} | {p.mean():.2%} ± {p.std(ddof=1):.2%} | {np.mean(called):.2%} | "
                    f"{c.mean():.2%} ± {c.std(ddof=1):.2%} | {o.mean():.2%} |"
                )
    return "\n".join(lines), figures
