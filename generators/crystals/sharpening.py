"""A model of whole crystals learns to draw without guidance and without a choice what it draws best with them.

Expert iteration (Anthony, Tian & Barber, NeurIPS 2017) with few judge calls: in each round the model draws under the
wish to be stable, the embedded surrogate chooses the likeliest new part within limits on what is common, and the
model learns these, and to draw less often what is least likely, is known or, a little, what was drawn already, beside
its training data. Prototypes and elements alone are learnt, so that draws need no geometry but that of their templates,
and a round has many. A few of what is chosen are judged, and correct the surrogate: a model that is paid by it would
else find where it errs.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.frames import from_frame
from data.orbit_batch import OrbitBatch
from generators.crystals.draw_and_learn import DrawAndLearn, Kinds, LearningSettings
from generators.crystals.judging import ABOVE
from generators.crystals.likelihood import negative_log_likelihood
from generators.crystals.sharpening_draws import BALANCED, DISTANCE, FREE, LEVELS, NEAR
from generators.judging import JudgeWorkers, judged_formation_energies, write_parquet
from generators.oracles.chgnet_potential import SCALE
from generators.oracles.hull import fractions_of_batch
from generators.oracles.hull_tables import ENERGY, FAR_BELOW
from generators.screening.element_shares import within_shares

LANTHANIDES = frozenset(range(57, 72))
"""Atomic numbers."""
ANIONS = frozenset((7, 8, 9, 16, 17, 34, 35, 53))
"""Atomic numbers of N, O, F, S, Cl, Se, Br, I."""
PAY = np.array([0.25, 0.25, 0.5])
"""Weights of these in the score. A model that is paid for lying near the hull alone ends at soft alloys, of which
everything does and hardly anything is on it (docs/crystal-trials.md)."""
FAR_TEMPLATE = 0.4
"""Distance of elements at which a score falls to a half. Of a round's choice those nearer than this move by 0.05 Å
(median) when they relax, those farther than three times as much by 0.4 Å; what is nearer is no less likely to be stable
(docs/crystal-trials.md)."""
MANY_FREE = 15.0
"""Free coordinates at which a score falls to a half: of crystals with at most three four in five keep their structure
when they relax, of those with more than 15 one in two (docs/crystal-trials.md)."""
NO_SYMMETRY = 0.5
"""Factor of the score in space group 1."""
LEAST = 0.02
"""Score below which nothing is chosen."""
BOUND_SCALE = 10.0
"""nats by which evidence bounds of what is chosen are divided, beside the loss on training data."""
JUDGE_SHARD = 32
"""Crystals of one job of the judge."""


@dataclass(frozen=True)
class SharpeningSettings(LearningSettings):
    """How much is drawn, which of it is chosen, and how it is learnt.

    Attributes:
        share: of the draws that are learnt, at most: fewer keep to the limits or are new.
        per_system, per_prototype, per_group: largest share of these with the same elements, the same protostructure, or
            the same space group.
        per_element: an element occurs in at most so many times as large a share of them as among known compounds
            (`generators.screening.element_shares`).
        lanthanides: largest share of these that hold any (of the known compounds 37 %). They are alike: where one is
            stable, all are, and each keeps to its own share.
        anion_free: largest share of these without any of `ANIONS`. Of those that hold one fewer come out near the hull,
            and without a limit they are hardly drawn any more (docs/crystal-trials.md).
        no_template: distance of elements that counts where no embedded crystal has the protostructure, and at most.
        judged: of these, at random, are relaxed by CHGNet before the next round draws; 0 for none.
        known: weight of what is known, or of the formula of a known compound, beside 1 of what is chosen; negative: it
            shall be drawn less often.
        again: weight of what an earlier round drew, or the same round before; it is not chosen.
        unlikely: weight of the others with the lowest score.
        unlikely_share: of the draws that are these.
        unlearnt: largest sum of any of these weights beside that of what is chosen; of what is known and of what was
            drawn before, in each space group. A model that unlearns more than it learns ends where nothing was seen.
    """

    rounds: int = 6
    passes: int = 3
    anchor: float = 0.5
    share: float = 0.25
    per_system: float = 0.002
    per_prototype: float = 0.02
    per_group: float = 0.1
    per_element: float = 2.0
    lanthanides: float = 0.35
    anion_free: float = 0.75
    no_template: float = 1.0
    judged: int = 300
    known: float = -0.5
    again: float = -0.5
    unlikely: float = -0.5
    unlikely_share: float = 0.125
    unlearnt: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("judged", "unlearnt"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)}: must not be negative")
        if not 0 < self.share < 1:
            raise ValueError(f"share={self.share}: must lie between 0 and 1")
        if not 0 <= self.unlikely_share <= 1 - self.share:
            raise ValueError(f"unlikely_share={self.unlikely_share}: must lie in [0, 1 - share]")
        for name in ("lanthanides", "anion_free"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: must lie in (0, 1]")
        for name in ("known", "again", "unlikely"):
            if not -1 < getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)}: must lie in (-1, 0]")


class Sharpening(DrawAndLearn[SharpeningSettings]):
    """Rounds of drawing, choosing and learning; see `DrawAndLearn`. ``judged`` with the number of the round is kept
    too."""

    def run(self) -> Path:
        """The file of the last model."""
        self.judge = JudgeWorkers(workers=self.settings.workers, device="cpu")
        with self.judge:
            return super().run()

    def _judged(self, number: int) -> Path:
        return self.folder / f"judged-{number:02d}.parquet"

    def _draw(self, number: int, pool: ProcessPoolExecutor) -> pd.DataFrame:
        self.judged = tuple(path for path in map(self._judged, range(number)) if path.exists())
        return super()._draw(number, pool)

    def _round(self, number: int, drawn: pd.DataFrame, kinds: Kinds) -> str:
        known, groups = kinds.known | kinds.old_formula, drawn["space_group"].to_numpy(np.int64)
        score = self._score(drawn, ~(known | kinds.again))
        chosen = self._choose(drawn, score)
        if not chosen:
            raise ValueError(f"draws={len(drawn)}: nothing of round {number + 1} is new and likely, draw more")
        told = self._confirm(number, drawn.iloc[chosen])
        weights = torch.from_numpy(self._weights(groups, known, kinds.again, score, chosen)).float()
        usual = self._learn_weighted(number, from_frame(drawn), weights)
        near, on, _ = (float((drawn[name] * ~known).mean()) for name in LEVELS)
        return (
            f"{known.mean():.1%} known, {kinds.again.mean():.1%} drawn before, near the hull and not known {near:.1%}, "
            f"on it and not known {on:.1%}; {len(chosen):,} chosen, {drawn[NEAR].iloc[chosen].mean():.1%} near the "
            f"hull; {told}loss on training data {usual:.2f}"
        )

    def _learn_weighted(self, number: int, drawn: OrbitBatch, weights: Tensor) -> float:
        """The mean loss on training data. ``weights``: [N] of the draws; 0 is left out."""
        used = weights.nonzero().squeeze(-1)
        learnt = float((weights[used] > 0).double().mean())

        def loss(rows: Tensor, crystals: OrbitBatch, generator: torch.Generator) -> Tensor:
            bound = negative_log_likelihood(
                self.module.denoiser, self.module.strain_scale, crystals, self.wish, self.draws.settings.source,
                self.elements, generator,
            )  # fmt: skip
            return (weights[rows] * bound).mean() / (learnt * BOUND_SCALE)

        return self._learn(number, drawn, used, loss)

    def _confirm(self, number: int, chosen: pd.DataFrame) -> str:
        """Judge some of what was chosen, for the next rounds' surrogate; what came of them, in words."""
        if not self.settings.judged:
            return ""
        rows = np.random.default_rng([self.settings.seed, number]).permutation(len(chosen))[: self.settings.judged]
        some = chosen.iloc[np.sort(rows)]
        if not self._judged(number).exists():
            batch = from_frame(some)
            frame = self.judge.judge(batch, self.folder / "judge", f"round-{number:02d}", JUDGE_SHARD)
            values = judged_formation_energies(frame)
            above = self.hull.e_above_hull(fractions_of_batch(batch), values, SCALE)
            usable = frame["valid"].to_numpy(bool) & (above >= FAR_BELOW)
            # As they were drawn, not as they relaxed: so the surrogate sees those that it is asked about.
            write_parquet(some.assign(**{ENERGY: values, ABOVE: above})[usable], self._judged(number))
        above = pd.read_parquet(self._judged(number), columns=[ABOVE])[ABOVE].to_numpy(np.float64)
        found = ", ".join(f"{(above <= level).sum() / len(some):.1%}" for level in LEVELS.values())
        expected = ", ".join(f"{some[name].mean():.1%}" for name in LEVELS)
        levels = ", ".join(f"{level:g}" for level in LEVELS.values())
        return f"of {len(some)} judged {found} at most {levels} ({expected} expected); "

    def _score(self, drawn: pd.DataFrame, new: NDArray[np.bool_]) -> NDArray[np.float64]:
        """[N]: how likely it is stable, more near a template and with few free coordinates; 0 where it is not new or
        neither neutral nor an alloy."""
        score = drawn[list(LEVELS)].to_numpy(np.float64) @ PAY * new * drawn[BALANCED].to_numpy(bool)
        score /= 1 + (drawn[DISTANCE].clip(upper=self.settings.no_template).to_numpy(np.float64) / FAR_TEMPLATE) ** 2
        score /= 1 + (drawn[FREE].to_numpy(np.float64) / MANY_FREE) ** 2
        return score * np.where(drawn["space_group"] == 1, NO_SYMMETRY, 1.0)

    def _choose(self, drawn: pd.DataFrame, score: NDArray[np.float64]) -> list[int]:
        """Rows: those with the highest score, few of one kind."""
        settings = self.settings
        wanted = max(round(settings.share * len(drawn)), 1)
        labels = list(drawn["protostructure"])
        elements = [frozenset(map(int, numbers)) for numbers in drawn["atomic_numbers"]]
        lanthanides = ["lanthanide" if LANTHANIDES & some else row for row, some in enumerate(elements)]
        anion_free = [row if ANIONS & some else "anion-free" for row, some in enumerate(elements)]
        kept = within_shares(
            torch.from_numpy(score), elements, settings.per_element, wanted,
            [
                (elements, max(round(settings.per_system * wanted), 1)),
                (labels, max(round(settings.per_prototype * wanted), 1)),
                (list(drawn["space_group"]), max(round(settings.per_group * wanted), 1)),
                (lanthanides, max(round(settings.lanthanides * wanted), 1)),
                (anion_free, max(round(settings.anion_free * wanted), 1)),
            ],
        )  # fmt: skip
        return [row for row in kept if score[row] > LEAST]

    def _weights(
        self,
        groups: NDArray[np.int64],
        known: NDArray[np.bool_],
        again: NDArray[np.bool_],
        score: NDArray[np.float64],
        chosen: list[int],
    ) -> NDArray[np.float64]:
        """[N]: how much each shall be drawn more often, or less; ``groups`` [N]: space groups."""
        settings, weight = self.settings, np.zeros(len(score))
        rows = np.flatnonzero(~(known | again))
        least = rows[np.argsort(score[rows], kind="stable")][: round(settings.unlikely_share * len(score))]
        weight[least] = max(settings.unlikely, -settings.unlearnt * len(chosen) / max(len(least), 1))
        # Where a space group is mostly known, unlearning all of that would unlearn the group.
        learnt = np.bincount(groups[chosen], minlength=groups.max() + 1)
        for some, most in ((again, settings.again), (known, settings.known)):
            number = np.bincount(groups[some], minlength=groups.max() + 1)
            each = np.maximum(most, -settings.unlearnt * learnt / np.maximum(number, 1))
            weight[some] = each[groups[some]]
        weight[chosen] = 1.0
        return weight
