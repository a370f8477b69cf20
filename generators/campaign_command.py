"""``raremat-campaign``: from configuration to a campaign, its files, its figure and its W&B run."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from generators.campaign import Campaign, CampaignSettings, TableJudge
from generators.judging import write_parquet
from generators.manifest import claim_folder, write_json
from generators.report.campaign import write_campaign_report
from generators.schema import CampaignConfig
from generators.screening.pareto import non_dominated, objectives
from generators.wandb_logging import wandb_mode
from generators.wish import Wish, parse_wish
from generators.worlds.learner import Learner, LearnerSettings
from generators.worlds.open import open_world
from generators.worlds.scores import score_samples
from generators.worlds.world import World, first_labels

MAY_DIFFER = ("logger.", "cache")


def campaign_command(config: CampaignConfig, plain: dict[str, Any], folder: Path) -> str:
    """Run or resume; returns what the terminal shows.

    Raises:
        ValueError: no wish, or one that the world cannot judge.
    """
    if not isinstance(config.target.wish, dict) or not config.target.wish:
        raise ValueError(f"target.wish={config.target.wish}: write one, such as 'target.wish={{NAME: [null, -2.5]}}'")
    world = open_world(config.world, Path(config.tables) if config.tables else None, Path(config.cache))
    wish = parse_wish(
        config.target.wish, world.properties, None, config.target.allowed_elements, config.target.forbidden_elements
    )
    claim_folder(folder, plain, {}, MAY_DIFFER)
    campaign = start_campaign(world, wish, config, folder)
    with _Log(config, folder, wish) as log:
        campaign.run(log.round)
        summary = summarise(campaign, world, wish, config.samples)
        log.finish(summary)
    write_json(folder / "summary.json", summary)
    judged = judged_table(campaign, world, wish)
    write_parquet(judged, folder / "judged.parquet")
    write_campaign_report(folder, summary, judged)
    lines = [f"wish: {wish.describe()}", f"{'calls':>7s}{'hits':>7s}{'random':>8s}{'by surrogate':>14s}"]
    for row in campaign.rows:
        random = row["calls"] * summary["share_of_hits"]
        guess = "-" if row["predicted_hits"] is None else f"{row['hits'] / max(row['predicted_hits'], 1e-9):.2f}"
        lines.append(f"{row['calls']:7d}{row['hits_so_far']:7d}{random:8.1f}{guess:>14s}")
    lines.append(f"stopped: {campaign.rows[-1]['stop']}")
    lines.append("by surrogate: confirmed hits over hits that the surrogate expected in that round (Goodhart check)")
    return "\n".join(lines)


def start_campaign(world: World, wish: Wish, config: CampaignConfig, folder: Path) -> Campaign:
    """The campaign of a configuration, nothing judged yet."""
    settings = CampaignSettings(
        config.budget, config.batch, config.first, config.explore, config.draws, config.per_system, config.seed,
        config.enough, config.patience,
    )  # fmt: skip
    learning = replace(LearnerSettings(), steps=config.steps, stretches=2, uniform=30_000, on_policy=4_000)
    learner = Learner(world.space, world.properties, learning, config.seed)
    start = None
    if config.labels != 0:
        rows = first_labels(world.train_index, config.labels, config.seed)
        index = world.train_index[rows]
        start = (index, torch.stack([world.train_labels[name][rows] for name in world.properties], 1))
    campaign = Campaign(learner, TableJudge(world), wish, settings, folder, start)
    if config.start is not None:
        campaign.start_from(Path(config.start))
    return campaign


def summarise(campaign: Campaign, world: World, wish: Wish, samples: int) -> dict[str, Any]:
    """Figures of a finished campaign; all crystals of the world that hit are known, so coverage can be told."""
    hits = world.hits(wish)
    judged = campaign.known.index[campaign.known.round >= 0]
    summary: dict[str, Any] = {
        "wish": wish.describe(),
        "judge": world.judge,
        "calls": campaign.known.calls,
        "hits": int(hits[judged].sum()),
        "existing_hits": int(hits.sum()),
        "share_of_hits": float(hits.sum()) / len(hits),
        "rounds": campaign.rows,
    }
    if samples and campaign.learner.generator is not None:
        generator = torch.Generator().manual_seed(campaign.settings.seed)
        drawn = campaign.learner.sampler(wish).draw(samples, generator)
        summary["samples"] = score_samples(world, wish, drawn).as_row()
    return summary


def judged_table(campaign: Campaign, world: World, wish: Wish) -> pd.DataFrame:
    """Everything judged, in the order of judging: elements per orbit, values, round, hit; where several properties are
    wished for, also ``pareto``: a hit that no other beats in all of them."""
    known = campaign.known
    elements: Tensor = world.space.at(known.index)
    frame = pd.DataFrame({"round": known.round.numpy(), "elements": list(elements.numpy().astype(np.int16))})
    for p, name in enumerate(world.properties):
        frame[name] = known.labels[:, p].numpy()
    values = dict(zip(world.properties, known.labels.T, strict=True))
    hit = wish.hits(values)
    frame["hit"] = hit.numpy()
    if len(wish.intervals) > 1:
        front = non_dominated(objectives(wish, values).masked_fill(~hit[:, None], torch.nan))
        frame["pareto"] = front.numpy()
    return frame


class _Log:
    """One W&B run per campaign (offline unless logged in); nothing with logger=none or csv."""

    def __init__(self, config: CampaignConfig, folder: Path, wish: Wish) -> None:
        self._session: Any = None
        if config.logger.name == "wandb":
            import wandb

            os.environ.setdefault("WANDB_SILENT", "true")
            mode: Any = wandb_mode()
            self._session = wandb.init(
                project=config.logger.project, name=config.run, dir=str(folder), mode=mode, job_type="campaign",
                config={"wish": wish.describe()}, settings=wandb.Settings(console="off"),
            )  # fmt: skip

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *error: object) -> None:
        if self._session is not None:
            self._session.finish()

    def round(self, row: dict[str, Any]) -> None:
        """One line and one step."""
        text = f"round {row['round']}: {row['calls']} calls, {row['hits_so_far']} hits, {row['seconds']:.0f} s"
        print(text, flush=True)
        if self._session is not None:
            self._session.log({k: v for k, v in row.items() if isinstance(v, (int, float))}, step=row["calls"])

    def finish(self, summary: dict[str, Any]) -> None:
        """The end."""
        if self._session is not None:
            self._session.summary.update({k: summary[k] for k in ("calls", "hits", "existing_hits")})
