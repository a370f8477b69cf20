"""A campaign: generate, choose, judge, learn, and again, under a budget of judge calls.

Every round is a file; a campaign that was killed goes on with the same command and ends as if it had not been.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from generators.checkpoints import load_checkpoint, save_checkpoint
from generators.oracles.hit_probability import log_hit_probability
from generators.screening.capped import capped
from generators.wish import Wish
from generators.worlds.learner import Learner
from generators.worlds.learner_state import learner_state, restore_learner
from generators.worlds.world import World

log = logging.getLogger(__name__)


class CampaignJudge(Protocol):
    """Who answers in a campaign. Attributes: properties: in the order of the columns of `judge`."""

    properties: tuple[str, ...]

    def judge(self, index: Tensor) -> Tensor:
        """[n, P] values of crystals of the space; NaN where the judge fails."""
        ...


class TableJudge:
    """The judge of a world whose truth is known everywhere."""

    def __init__(self, world: World) -> None:
        self.properties = world.properties
        self._table = torch.stack([world.truth[name] for name in world.properties], 1)

    def judge(self, index: Tensor) -> Tensor:
        """Looked up."""
        return self._table[index]


@dataclass(frozen=True)
class CampaignSettings:
    """How a campaign spends its calls.

    Attributes:
        budget: judge calls in all.
        batch: calls per round.
        first: random crystals judged before anything is known (only without labels).
        explore: share of a round that ranks by one random member of the ensemble (Thompson sampling) instead of the
            probability of a hit.
        draws: proposals of the generator per round.
        per_system: at most this share of a round from one chemical system of the two most abundant orbits (diversity).
        seed: of every draw.
        enough: stop when so many hits are found; None for never.
        patience: stop after so many rounds without a hit, once there was one; None for never.
    """

    budget: int = 3_000
    batch: int = 250
    first: int = 250
    explore: float = 0.2
    draws: int = 6_000
    per_system: float = 0.15
    seed: int = 0
    enough: int | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        for name in ("budget", "batch", "first", "draws", "enough", "patience"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        for name in ("explore", "per_system"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: must lie between 0 and 1")


GIVEN, BEFORE = -1, -2


@dataclass(frozen=True, eq=False)
class Judgements:
    """All that is known: crystals [n], labels [n, P] and the round that judged each.

    `GIVEN` is a label given at the start, which is not the judge's; `BEFORE` the judge's answer in an earlier campaign.
    """

    index: Tensor
    labels: Tensor
    round: Tensor

    def add(self, index: Tensor, labels: Tensor, round_: int) -> Judgements:
        """With one more round; a label given at the start makes way for the judge's own."""
        keep = ~torch.isin(self.index, index)
        return Judgements(
            torch.cat([self.index[keep], index]), torch.cat([self.labels[keep], labels]),
            torch.cat([self.round[keep], torch.full((len(index),), round_)]),
        )  # fmt: skip

    @property
    def calls(self) -> int:
        """Judge calls spent."""
        return int((self.round >= 0).sum())


class Campaign:
    """One campaign for one wish in one space; all state of a round is in ``folder``."""

    def __init__(
        self, learner: Learner, judge: CampaignJudge, wish: Wish, settings: CampaignSettings, folder: Path,
        start: tuple[Tensor, Tensor] | None = None,
    ) -> None:  # fmt: skip
        self.learner, self.judge, self.wish, self.settings, self.folder = learner, judge, wish, settings, folder
        width = len(judge.properties)
        index, labels = start or (torch.zeros(0, dtype=torch.long), torch.zeros(0, width, dtype=torch.float64))
        self.known = Judgements(index, labels, torch.full((len(index),), GIVEN))
        self.rows: list[dict[str, Any]] = []

    def run(self, progress: Callable[[dict[str, Any]], object] | None = None) -> Judgements:
        """Until a stop rule holds (`CampaignSettings`) or nothing new is proposed; then the models have learnt from
        everything."""
        self._resume()
        while not (self.rows and self.rows[-1]["finished"]):
            row = self._round(len(self.rows))
            self.rows.append(row)
            self._save()
            if progress is not None:
                progress(row)
        return self.known

    def _round(self, number: int) -> dict[str, Any]:
        settings, start = self.settings, time.perf_counter()
        generator = torch.Generator().manual_seed(settings.seed * 7919 + number)
        left = settings.budget - self.known.calls
        predicted = None
        if len(self.known.index) == 0:
            chosen = torch.unique(self.learner.space.uniform(2 * settings.first, generator))
            chosen = chosen[torch.randperm(len(chosen), generator=generator)][: min(settings.first, left)]
        else:
            self.learner.learn(self.known.index, self.known.labels, number)
            chosen, predicted = self._choose(min(settings.batch, left), generator)
        values = self.judge.judge(chosen)
        self.known = self.known.add(chosen, values, number)
        hits = self._hits(values)
        stop = self._stop(len(chosen), int(hits.sum()))
        finished = bool(stop)
        if finished and len(self.known.index):
            self.learner.learn(self.known.index, self.known.labels, number + 1)
        return {
            "round": number,
            "calls": self.known.calls,
            "judged": len(chosen),
            "hits": int(hits.sum()),
            "hits_so_far": int(self._hits(self.known.labels[self.known.round >= 0]).sum()),
            "predicted_hits": None if predicted is None else round(float(predicted.sum()), 1),
            "seconds": round(time.perf_counter() - start, 1),
            "finished": finished,
            "stop": stop,
        }

    def _stop(self, judged: int, hits: int) -> str:
        """Why the campaign ends with a round of so many calls and hits; empty if it goes on."""
        settings = self.settings
        found = int(self._hits(self.known.labels[self.known.round >= 0]).sum())
        if judged == 0:
            return "nothing new was proposed"
        if self.known.calls >= settings.budget:
            return "the budget is spent"
        if settings.enough is not None and found >= settings.enough:
            return "enough hits"
        recent = [hits, *(row["hits"] for row in reversed(self.rows))][: settings.patience]
        if settings.patience is not None and found and len(recent) == settings.patience and not any(recent):
            return f"no hit in {settings.patience} rounds"
        return ""

    def _hits(self, labels: Tensor) -> Tensor:
        return self.wish.hits(dict(zip(self.judge.properties, labels.T, strict=True)))

    def _choose(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Crystals to judge next, and the surrogate's probability that each hits."""
        learner, settings = self.learner, self.settings
        assert learner.surrogate is not None
        drawn = learner.space.index(learner.sampler(self.wish).draw(settings.draws, generator))
        candidates = torch.unique(torch.cat([drawn[drawn >= 0], learner.visited]))
        candidates = candidates[~torch.isin(candidates, self.known.index[self.known.round != GIVEN])]
        elements = learner.space.at(candidates)
        score = learner.surrogate.log_probability(elements, self.wish)
        member = int(torch.randint(learner.surrogate.config.members, (1,), generator=generator))
        opinion, _ = learner.surrogate.member(elements, member)
        thompson = log_hit_probability(opinion, 0.1 * learner.surrogate.doubted(opinion), learner.properties, self.wish)
        explored = round(settings.explore * n)
        limit = max(int(settings.per_system * n), 1)
        kinds = [(self._systems(elements).tolist(), limit)]
        best = capped(score, kinds, n - explored)
        chosen = torch.tensor(capped(thompson, kinds, n, best), dtype=torch.long)
        return candidates[chosen], score[chosen].exp()

    def _systems(self, elements: Tensor) -> Tensor:
        """[B] the elements on the two orbits with most atoms, as one number."""
        most = self.learner.space.table.multiplicity[0].argsort(descending=True, stable=True)[:2]
        return elements[:, most[0]] * 119 + elements[:, most[1]]

    # -- files -----------------------------------------------------------------------------------------

    def _save(self) -> None:
        config, state = learner_state(self.learner)
        known = self.known
        state |= {"known.index": known.index, "known.labels": known.labels, "known.round": known.round}
        number = len(self.rows) - 1
        plain = {"rows": self.rows, "learner": config, "crystals": len(self.learner.space)}
        save_checkpoint(self._path(number), "campaign", plain, state)
        if number > 0:
            self._path(number - 1).unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"round-{number:04d}.pt"

    def start_from(self, folder: Path) -> None:
        """Take the models of another campaign in this space and all that it knew; nothing is asked of the judge twice.

        Raises:
            ValueError: no round of a campaign is there, or it was of another space or other properties.
        """
        found = last_round(folder)
        if found is None:
            raise ValueError(f"start={folder}: holds no round of a campaign")
        config, state = load_checkpoint(found, "campaign")
        index = state["known.index"]
        if config.get("crystals") != len(self.learner.space):
            raise ValueError(f"start={folder}: that campaign was in another world")
        restore_learner(self.learner, config["learner"], state)
        earlier = torch.where(state["known.round"] == GIVEN, GIVEN, BEFORE)
        self.known = Judgements(index, state["known.labels"], earlier)

    def _resume(self) -> None:
        found = last_round(self.folder)
        if found is None:
            return
        config, state = load_checkpoint(found, "campaign")
        self.rows = list(config["rows"])
        self.known = Judgements(state["known.index"], state["known.labels"], state["known.round"])
        restore_learner(self.learner, config["learner"], state)
        log.warning("going on from %s: %s", found, json.dumps(self.rows[-1]))


def last_round(folder: Path) -> Path | None:
    """The file of the last finished round; None if there is none."""
    return max(folder.glob("round-*.pt"), default=None)
