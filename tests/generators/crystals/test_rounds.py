"""Rounds of judge calls, with a judge whose answers are a formula: what is chosen, learnt, and gone on with."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from data.dataset import CrystalDataset
from data.exchanges import load_exchanges
from data.frames import from_frame, to_frame
from data.orbit_batch import OrbitBatch
from generators.conditioning import Conditions
from generators.crystals.draws import CrystalDraws
from generators.crystals.gap_look import DRAWN_GAP, FIRST_WIDTH, WIDTHS, GapLook, gap_width, log_gap_inside
from generators.crystals.hit_surrogate import HitSurrogate
from generators.crystals.judging import CrystalJudge
from generators.crystals.labelled import Labelled
from generators.crystals.rounds import Rounds, RoundSettings, shares
from generators.element_features import element_features
from generators.oracles.crystal_surrogate import CrystalSurrogate, EnsembleFit
from generators.sampling.crystal_task import CrystalTask
from generators.sampling.crystals import CrystalSamplerSettings
from generators.screening.crystal_features import crystal_features
from generators.screening.crystal_funnel import NOT_CHOSEN, KnownCrystals
from generators.wish import Interval, Wish

ENERGY = "formation_energy_per_atom"
FIT = EnsembleFit(members=2, width=32, steps=200, batch_size=128)


def truth(batch: OrbitBatch) -> torch.Tensor:
    """[B] minus the spread of the electronegativities, as if it were eV/atom."""
    x = element_features()[batch.atomic_number][..., 0]
    low, high = x.masked_fill(~batch.mask, torch.inf).amin(1), x.masked_fill(~batch.mask, -torch.inf).amax(1)
    return (low - high).double()


class FormulaJudge(CrystalJudge):
    """Answers `truth`; counts what it is asked."""

    def __init__(self, wish: Wish) -> None:
        super().__init__(wish, workers=1, device="cpu")
        self.asked: list[str] = []

    def judge(self, chosen: pd.DataFrame, folder: Path, name: str = "raremat") -> pd.DataFrame:
        path = folder / f"{name}.parquet"
        if not path.exists():
            self.asked += chosen["crystal_key"].tolist()
            folder.mkdir(parents=True, exist_ok=True)
            frame = chosen.assign(valid=True, **{ENERGY: truth(from_frame(chosen)).numpy()})
            frame.assign(hit=self.hits(frame)).to_parquet(path)
        return pd.read_parquet(path)


@pytest.fixture(scope="module")
def labelled() -> Labelled:
    exchanges = load_exchanges()
    small = (exchanges.batch.n_atoms <= 6).nonzero().squeeze(-1)
    rows = small[torch.linspace(0, len(small) - 1, 600).long()]  # the table is sorted by space group
    batch = exchanges.batch.select(rows)
    dataset = CrystalDataset(batch, {ENERGY: truth(batch)}, ("",) * len(rows), ("",) * len(rows))
    return Labelled(dataset, crystal_features(batch))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CrystalSurrogate, "fit", partial(CrystalSurrogate.fit, settings=FIT))


def test_a_surrogate_ranks_by_the_wish_and_learns_from_the_judge(labelled: Labelled) -> None:
    wish = Wish({ENERGY: Interval(None, -2.0)})
    surrogate = HitSurrogate(FormulaJudge(wish), labelled, seed=0)
    batch, energy = labelled.dataset.batch, labelled.dataset.properties[ENERGY]
    score = surrogate.log_probability(batch)
    inside = energy <= -2.0
    assert 20 < int(inside.sum()) < 300
    assert float(score[inside].median() - score[~inside].median()) > 1
    best = surrogate.best(torch.arange(300, 600), 10)
    assert (truth(best) <= -2.0).all()
    # Judged otherwise than expected: it is believed, and what was judged becomes a seed.
    wrong = best.select(torch.arange(3))
    frame = pd.DataFrame({"valid": True, ENERGY: np.full(3, 1.0)})
    surrogate.observe(pd.concat([to_frame(wrong), frame], axis=1))
    assert len(surrogate.batch) == 603
    assert (surrogate.log_probability(wrong) < HitSurrogate(surrogate.judge, labelled, 0).log_probability(wrong)).all()
    surrogate.observe(pd.concat([to_frame(wrong), frame], axis=1))  # all that was judged, again
    assert len(surrogate.batch) == 603


def test_a_modulus_that_will_not_be_measured_is_no_hit(labelled: Labelled) -> None:
    n = len(labelled.dataset)
    modulus = torch.linspace(50, 150, n, dtype=torch.float64)
    dataset = replace(labelled.dataset, properties={"bulk_modulus": modulus})
    judge = FormulaJudge(Wish({"bulk_modulus": Interval(10, None)}))
    score = HitSurrogate(judge, Labelled(dataset, labelled.features), 0).log_probability(dataset.batch)
    cubic = (dataset.batch.space_group >= 195) & ~dataset.batch.coordinate_mask.flatten(1).any(1)
    assert torch.equal(torch.isfinite(score), cubic) and bool(cubic.any()) and not bool(cubic.all())
    with pytest.raises(ValueError, match="no crystal has a label of formation_energy_per_atom"):
        HitSurrogate(FormulaJudge(Wish({ENERGY: Interval(None, 0)})), Labelled(dataset, labelled.features), 0)


def test_the_network_of_the_judge_is_asked_before_the_judge(labelled: Labelled) -> None:
    """Gaps that the surrogate knows nothing of: the network decides, as far as relaxation leaves gaps alone."""
    batch = labelled.dataset.batch
    gaps = torch.rand(len(batch), generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 6
    dataset = replace(labelled.dataset, properties={"band_gap": gaps.flip(0)})
    asked: list[int] = []

    def evaluate(part: OrbitBatch) -> SimpleNamespace:
        asked.append(len(part))
        return SimpleNamespace(values={"band_gap": truth(part).neg()})

    judge = FormulaJudge(Wish({"band_gap": Interval(1.0, 1.2)}))
    judge.measured, judge.network = Wish({"band_gap": Interval(1.0, 1.2)}), SimpleNamespace(evaluate=evaluate)  # type: ignore[assignment]
    surrogate = HitSurrogate(judge, Labelled(dataset, labelled.features), 0)
    candidates = to_frame(batch).assign(id=[f"c{i}" for i in range(len(batch))])
    score = surrogate.log_probability(batch)
    none = pd.DataFrame()
    look = GapLook(judge.network, lambda part, noise, generator: part)  # type: ignore[arg-type]
    closer, gaps = surrogate.look_closer(candidates, score, 200, look, none)
    gap = gaps[:, 0]
    seen = torch.isfinite(gap)
    assert asked == [200] == [int(seen.sum())] and bool((closer[~seen] == -torch.inf).all())
    assert torch.equal(gap[seen], truth(batch)[seen].neg())
    inside = seen & (gap > 1.0) & (gap < 1.2)
    assert float(closer[inside].min()) > float(closer[seen & ((gap < 0.8) | (gap > 1.4))].max())
    still = pd.DataFrame({"band_gap": [1.0] * 100, DRAWN_GAP: [1.01] * 99 + [np.nan]})
    sure, _ = surrogate.look_closer(candidates, score, 200, look, still)
    assert float(sure[inside].max()) > float(
        closer[inside].max()
    )  # relaxation hardly moves gaps: surer of what is inside
    assert asked == [200]  # nothing is asked about twice


def test_of_equal_gaps_the_one_that_is_the_same_in_other_geometries_comes_first(labelled: Labelled) -> None:
    """Every second crystal has another gap as soon as its geometry is redrawn."""
    batch = labelled.dataset.batch.select(torch.arange(60))
    dataset = replace(labelled.dataset, properties={"band_gap": torch.rand(len(labelled.dataset)) * 6})

    def evaluate(part: OrbitBatch) -> SimpleNamespace:
        return SimpleNamespace(values={"band_gap": torch.full((len(part),), 1.1) + part.strain[:, 5].float()})

    def redraw(part: OrbitBatch, noise: float, generator: torch.Generator) -> OrbitBatch:
        strain = part.strain.clone()
        strain[::2, 5] += 10 * noise
        return part.replace(strain=strain)

    wish = Wish({"band_gap": Interval(1.0, 1.2)})
    judge = FormulaJudge(wish)
    judge.measured, judge.network = wish, SimpleNamespace(evaluate=evaluate)  # type: ignore[assignment]
    surrogate = HitSurrogate(judge, Labelled(dataset, labelled.features), 0)
    flat = batch.replace(strain=torch.cat([batch.strain[:, :5], torch.zeros(len(batch), 1)], 1))
    candidates = to_frame(flat).assign(id=[f"c{i}" for i in range(len(flat))])
    look = GapLook(judge.network, redraw)  # type: ignore[arg-type]
    score = torch.zeros(len(batch), dtype=torch.float64)
    score[50:] = -torch.inf  # never asked about, however many are wanted
    closest, gaps = surrogate.look_closest(candidates, score, 60, look, pd.DataFrame(), 0)
    assert gaps.shape == (60, 5) and torch.isfinite(closest).tolist() == [True] * 50 + [False] * 10
    assert torch.allclose(gaps[:2].double(), torch.tensor([[1.1, 1.3, 1.3, 1.6, 1.6], [1.1] * 5]).double())
    assert float(closest[1:50:2].min()) > float(closest[:50:2].max())


def test_how_far_gaps_move_is_learnt_from_hits_and_misses() -> None:
    interval = Interval(0.9, 1.1)
    gaps = torch.ones(60, 1, dtype=torch.float64)
    stay, leave = torch.ones(60, dtype=torch.float64), torch.full((60,), 1.5, dtype=torch.float64)
    assert gap_width(gaps[:0], stay[:0], interval) == FIRST_WIDTH
    assert gap_width(gaps, stay, interval) == WIDTHS[0] and gap_width(gaps, leave, interval) == WIDTHS[-1]
    far = torch.where(
        torch.arange(60) < 50, 1.0, 100.0
    ).double()  # a few that go very far say only that they are outside
    assert gap_width(gaps, far, interval) <= FIRST_WIDTH
    mixed = torch.tensor([[1.0, 1.0], [1.0, 9.0], [1.0, torch.nan]], dtype=torch.float64)
    inside = log_gap_inside(mixed, 0.01, interval).exp()
    assert torch.allclose(inside, torch.tensor([1.0, 0.5, 1.0], dtype=torch.float64))


def rounds(model: Path, labelled: Labelled, folder: Path, task: CrystalTask | None = None, **settings: Any) -> Rounds:
    judge = FormulaJudge(Wish({ENERGY: Interval(None, -2.2)}))
    draws = CrystalDraws(
        model, CrystalSamplerSettings(steps=2), task or CrystalTask(n_atoms=(2, 6)), Conditions.nothing(1, 2), 0
    )
    given = {"rounds": 2, "similar": 150, "seeds": 30, "workers": 1, "shard_size": 8, **settings}
    return Rounds(
        draws, judge, KnownCrystals(), frozenset(), lambda: labelled, RoundSettings(**given), folder
    )  # fmt: skip


@pytest.mark.slow
def test_rounds_find_hits_never_ask_twice_and_go_on(crystal_model: Path, labelled: Labelled, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    one = rounds(crystal_model, labelled, tmp_path)
    paths, screened, judged = one.run(16, 21)
    asked = one.judge.asked  # type: ignore[attr-defined]
    assert len(asked) == len(set(asked)) == len(judged) == 21
    assert judged["round"].tolist() == [1] * 11 + [2] * 10
    assert screened.chosen["id"].tolist() == judged["id"].tolist()
    known = KnownCrystals()
    assert not any(map(known.reason, judged["crystal_key"], judged["space_group"], judged["atomic_numbers"]))
    drawn = pd.concat([pd.read_parquet(path) for path in paths])
    assert drawn["id"].is_unique
    sources = drawn["id"].str.rsplit("-", n=2).str[0].value_counts().to_dict()
    assert (sources["model"], sources["round-1-exchange"], sources["round-2-exchange"]) == (8, 4, 4)
    base = float((truth(labelled.dataset.batch) <= -2.2).double().mean())
    assert judged["hit"].mean() > base + 0.2
    last = screened.counts[-1]
    assert (last.n_out, list(last.reasons)) == (21, [NOT_CHOSEN])
    assert last.n_in - last.n_out == last.reasons[NOT_CHOSEN]
    # Killed after the second draw: the same is chosen and judged.
    (tmp_path / "rounds" / "chosen-2.parquet").unlink()
    (tmp_path / "judged" / "round-2.parquet").unlink()
    again = rounds(crystal_model, labelled, tmp_path)
    pd.testing.assert_frame_equal(again.run(16, 21)[2], judged)
    assert again.judge.asked == asked[11:]  # type: ignore[attr-defined]
    # Finished: nothing is drawn, fitted or judged.
    third = rounds(crystal_model, labelled, tmp_path)
    third.labelled = lambda: pytest.fail("the surrogate was fitted again")
    pd.testing.assert_frame_equal(third.run(16, 21)[2], judged)


@pytest.mark.slow
def test_every_source_keeps_to_the_task(crystal_model: Path, labelled: Labelled, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    task = CrystalTask(n_atoms=(2, 4), allowed_elements=frozenset({3, 8, 9, 11, 12, 17, 19, 20}), n_elements=(2, 3))
    one = rounds(crystal_model, labelled, tmp_path, task, rounds=1)
    paths, _, _ = one.run(8, 4)
    assert len(paths) == 3
    for path in paths:
        table = pd.read_parquet(path)
        assert len(table) and task.fulfilled(from_frame(table)).all()
    impossible = CrystalTask(space_groups=frozenset({199}), n_atoms=(4, 8))
    assert not (labelled.dataset.batch.space_group == 199).any()
    with pytest.raises(ValueError, match="no known crystal can fulfil the task, say screening.exchange=0"):
        rounds(crystal_model, labelled, tmp_path / "other", impossible, exchange=1.0).run(8, 4)


def test_calls_are_shared() -> None:
    assert shares(180, 9) == [20] * 9 and shares(3, 5) == [1, 1, 1, 0, 0]


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="rounds=0: must be at least 1"):
        RoundSettings(rounds=0)
    with pytest.raises(ValueError, match=r"exchange=1\.5: must lie between 0 and 1"):
        RoundSettings(exchange=1.5)
    with pytest.raises(ValueError, match="similar=-1: must not be negative"):
        RoundSettings(similar=-1)
