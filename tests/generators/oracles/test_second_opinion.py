"""Second opinions: the three answers, known corrections, and SevenNet on known salts."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch
from pymatgen.core import Element

from data.frames import to_frame
from data.orbit_batch import OrbitBatch
from data.prototypes import prototype_library
from generators.oracles.base import OracleResult
from generators.oracles.corrections import mp2020_correction
from generators.oracles.second_opinion import second_opinion
from generators.wish import Interval, Wish

ENERGY = "formation_energy_per_atom"


def crystals(*decorations: tuple[str, str]) -> OrbitBatch:
    library = prototype_library()
    return OrbitBatch.from_crystals(
        [library.get(name).crystal([Element(x).Z for x in symbols.split()]) for name, symbols in decorations]
    )


class Fixed:
    """An oracle that says what it was told; NaN for ``reason``."""

    scale = "fixed"
    reason = "collapsed"

    def __init__(self, name: str, **values: list[float]) -> None:
        self.name = name
        self.properties = tuple(values)
        self.values = {key: torch.tensor(value, dtype=torch.float64) for key, value in values.items()}

    def evaluate(self, batch: OrbitBatch) -> OracleResult:
        main = next(iter(self.values.values()))
        reason = tuple(self.reason if math.isnan(x) else "" for x in main.tolist())
        std = {name: torch.zeros_like(main) for name in self.values}
        return OracleResult(dict(self.values), std, ~main.isnan(), reason)


def table(energies: list[float]) -> pd.DataFrame:
    frame = to_frame(crystals(*[("rocksalt", "Na Cl")] * len(energies)))
    frame[ENERGY] = energies
    return frame.set_index(pd.Index([10 * i for i in range(len(energies))]))


def test_confirmed_refuted_and_unknown() -> None:
    judge = Fixed("second", **{ENERGY: [-2.0, -0.98, -0.8, math.nan]})
    network = Fixed("net", band_gap=[2.0, 2.0, 2.0, 2.0], bulk_modulus=[10.0, math.nan, 30.0, 40.0])
    rows = table([-2.1, -1.1, -1.2, -1.3])

    def confirmed(**intervals: Interval) -> list[bool | None]:
        found = second_opinion(rows, Wish(intervals), judge, network, {ENERGY: 0.05} if ENERGY in intervals else None)
        assert list(found.index) == [0, 10, 20, 30]
        assert found["disagreement"].tolist() == pytest.approx([0.1, 0.12, 0.4, math.nan], nan_ok=True)
        assert found["reason_second"].tolist() == ["", "", "", "collapsed"]
        assert found["bulk_modulus_net"].tolist() == pytest.approx([10, math.nan, 30, 40], nan_ok=True)
        return list(found["confirmed"])

    below = Interval(None, -1.0)
    assert confirmed(**{ENERGY: below}) == [True, True, False, False]
    assert confirmed(magnetization_density=below) == [None, None, None, False]
    assert confirmed(**{ENERGY: below, "magnetization_density": below}) == [None, None, False, False]
    assert confirmed(band_gap=Interval(1.5, 2.5)) == [True, True, True, False]
    assert confirmed(bulk_modulus=Interval(20, None)) == [False, None, True, False]


def test_a_judge_that_cannot_tell_refutes_nothing() -> None:
    judge = Fixed("second", **{ENERGY: [math.nan]})
    judge.reason = "unknown element"
    found = second_opinion(table([-2.0]), Wish({ENERGY: Interval(None, -1.0)}), judge, None)
    assert found["confirmed"].tolist() == [None]


def test_a_judges_own_value_counts_before_the_networks() -> None:
    judge = Fixed("second", **{ENERGY: [-2.0, -2.0], "bulk_modulus": [50.0, math.nan]})
    network = Fixed("net", band_gap=[0.0, 0.0], bulk_modulus=[10.0, 10.0])
    found = second_opinion(table([-2.0, -2.0]), Wish({"bulk_modulus": Interval(40, None)}), judge, network)
    assert found["confirmed"].tolist() == [True, False]
    assert list(found.columns) == [
        f"{ENERGY}_second", "bulk_modulus_second", "disagreement", "reason_second",
        "band_gap_net", "bulk_modulus_net", "confirmed",
    ]  # fmt: skip


def test_a_networks_energy_is_shown_and_never_decides() -> None:
    judge = Fixed("second", **{ENERGY: [math.nan, -2.0]})
    judge.reason = "unknown element"
    network = Fixed("net", band_gap=[0.0, 0.0], bulk_modulus=[10.0, 10.0], **{ENERGY: [-0.5, -0.5]})
    found = second_opinion(table([-2.1, -2.2]), Wish({ENERGY: Interval(None, -1.0)}), judge, network)
    assert found[f"{ENERGY}_net"].tolist() == [-0.5, -0.5]
    assert found["disagreement_net"].tolist() == pytest.approx([1.6, 1.7])
    assert found["confirmed"].tolist() == [None, True]


def test_no_rows_and_no_judges() -> None:
    wish = Wish({ENERGY: Interval(None, -1.0)})
    judge = Fixed("second", **{ENERGY: [-2.0]})
    network = Fixed("net", band_gap=[0.0], bulk_modulus=[10.0])
    full = second_opinion(table([-2.0]), wish, judge, network)
    empty = second_opinion(table([-2.0]).iloc[:0], wish, judge, network)
    assert list(empty.columns) == list(full.columns)
    assert len(empty) == 0
    assert second_opinion(table([-2.0]), wish, None, None)["confirmed"].tolist() == [None]


def test_bad_arguments_are_named() -> None:
    wish, rows = Wish({ENERGY: Interval(None, -1.0)}), table([-2.0])
    judge = Fixed("second", **{ENERGY: [-2.0]})
    with pytest.raises(ValueError, match=r"tolerance\.band_gap: not in the wish"):
        second_opinion(rows, wish, judge, None, {"band_gap": 0.1})
    with pytest.raises(ValueError, match="must be 0 or more"):
        second_opinion(rows, wish, judge, None, {ENERGY: -0.1})
    with pytest.raises(ValueError, match="nothing to be compared with"):
        second_opinion(rows.drop(columns=ENERGY), wish, judge, None)
    with pytest.raises(ValueError, match="gives no band_gap"):
        second_opinion(rows, wish, None, judge)


def test_corrections_are_those_of_mp2020() -> None:
    batch = crystals(("rocksalt", "Na Cl"), ("perovskite", "Sr Ti O"), ("rocksalt", "Ni O"), ("cscl", "Ni Al"))
    expected = [-0.614 / 2, -0.687 * 3 / 5, (-0.687 - 2.541) / 2, 0.0]
    assert mp2020_correction(batch).tolist() == pytest.approx(expected, abs=1e-6)
    assert mp2020_correction(crystals(("copper", "O"))).tolist() == [0.0]


def test_sevennet_and_chgnet_agree_on_salts_once_corrected() -> None:
    pytest.importorskip("sevenn")
    from generators.oracles.judge import ChgnetJudge, JudgeSettings, SevenNetJudge

    torch.set_num_threads(1)
    settings = JudgeSettings(with_bulk_modulus=False)
    first = ChgnetJudge(settings).evaluate(crystals(("rocksalt", "Na Cl"), ("rocksalt", "Mg O"), ("cscl", "Ni Al")))
    assert first.relaxed is not None
    rows = to_frame(first.relaxed)
    rows[ENERGY] = first.values[ENERGY].numpy()
    wish = Wish({ENERGY: Interval(None, -1.9)})
    found = second_opinion(rows, wish, SevenNetJudge(settings), None)
    # Materials Project: NaCl -2.11, MgO -3.06, NiAl -0.66 eV/atom.
    assert found[f"{ENERGY}_sevennet"].tolist() == pytest.approx([-2.11, -3.06, -0.66], abs=0.06)
    assert found["disagreement"].max() < 0.1
    assert found["confirmed"].tolist() == [True, True, False]
    raw = second_opinion(rows, wish, SevenNetJudge(settings), None, corrected=False)
    assert raw["disagreement"].iloc[0] > 0.2
    assert raw["confirmed"].tolist() == [False, True, False]
