"""How likely crystals are to be hits, from predictions that are known."""

from __future__ import annotations

import pandas as pd
import torch

from data.exchanges import load_exchanges
from data.frames import to_frame
from generators.crystals.hit_odds import HitOdds, LikelyHits
from generators.crystals.judging import CrystalJudge
from generators.oracles.hull_tables import FAR_BELOW
from generators.wish import Interval, Wish

ENERGY = "formation_energy_per_atom"
CRYSTALS = load_exchanges().select(torch.arange(0, 32000, 800))


def test_energies_above_the_hull_follow_from_formation_energies() -> None:
    judge = CrystalJudge(Wish({"e_above_hull": Interval(None, 0.1)}))
    odds, batch = HitOdds(judge, (ENERGY,)), CRYSTALS.batch
    everywhere = odds.hull_energy(batch)
    assert everywhere is not None
    batch, hull = batch.select(torch.isfinite(everywhere)), everywhere[torch.isfinite(everywhere)]
    assert len(batch) > 30  # CHGNet has no reference of a few elements
    std = torch.full((len(batch), 1), 1e-4, dtype=torch.float64)
    for above, inside in ((0.05, True), (0.15, False), (FAR_BELOW - 0.05, False), (FAR_BELOW + 0.05, True)):
        probability = odds.log_probability(batch, hull[:, None] + above, std, hull).exp()
        assert torch.allclose(probability, torch.full_like(probability, float(inside)), atol=1e-6), above
    better = {"e_above_hull": torch.full((len(batch),), -0.5, dtype=torch.float64)}
    assert (odds.log_probability(batch, hull[:, None] + 9, std, hull, better) == -0.5).all()


def test_what_is_not_predicted_is_left_out() -> None:
    wish = Wish({"magnetization_density": Interval(0.1, None), "e_above_hull": Interval(None, 0.0)})
    odds = HitOdds(CrystalJudge(wish), ("magnetization_density",))
    assert list(odds.intervals) == ["magnetization_density"] and odds.hull_energy(CRYSTALS.batch) is None
    assert not HitOdds(CrystalJudge(wish), ("bulk_modulus",)).intervals


def test_nothing_real_is_far_below_the_hull() -> None:
    judge = CrystalJudge(Wish({"e_above_hull": Interval(None, 0.02)}))
    above = {"e_above_hull": [-1.0, FAR_BELOW - 0.01, -0.1, 0.01, 0.05]}
    assert judge.hits(pd.DataFrame(above).assign(valid=True)).tolist() == [False, False, True, True, False]
    deep = CrystalJudge(Wish({"e_above_hull": Interval(-2.0, -1.0)}))  # who asks for it gets it
    assert deep.hits(pd.DataFrame(above).assign(valid=True)).tolist() == [True] + [False] * 4


def test_the_embedded_surrogate_puts_stable_crystals_first() -> None:
    likely = LikelyHits(CrystalJudge(Wish({"e_above_hull": Interval(None, 0.05)})))
    score = likely.log_probability(to_frame(CRYSTALS.batch))
    stable = CRYSTALS.properties["e_above_hull"] <= 0.05
    assert bool(likely) and 5 < int(stable.sum()) < 35
    best = torch.argsort(score, descending=True)[: int(stable.sum())]
    assert float(stable[best].double().mean()) > float(stable.double().mean()) + 0.2
    gap = CrystalJudge(Wish({"band_gap": Interval(2.9, 3.1)}), network=object())  # type: ignore[arg-type]
    assert not LikelyHits(gap)
