"""Sharpening: what is chosen becomes likelier, what is known does not, rounds are kept, and a killed run goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from data.exchanges import load_exchanges
from data.frames import from_frame
from data.orbit_batch import OrbitBatch
from data.protostructure import crystal_key, protostructure_label
from generators.checkpoints import load_checkpoint
from generators.conditioning import Conditions
from generators.crystals import sharpening_draws
from generators.crystals.datamodule import CrystalDataModule
from generators.crystals.draw_and_learn import kinds_of
from generators.crystals.draws import CrystalDraws, embedded_templates
from generators.crystals.likelihood import negative_log_likelihood
from generators.crystals.model import load_crystal_model
from generators.crystals.module import CrystalDiffusion
from generators.crystals.sharpening import Sharpening, SharpeningSettings
from generators.crystals.sharpening_draws import BALANCED, DISTANCE, FREE, LEVELS, NEAR
from generators.crystals.task_schema import SOURCES
from generators.sampling.crystal_geometry import CrystalSamplerSettings
from generators.sampling.crystal_task import CrystalTask
from generators.screening.crystal_features import crystal_features
from generators.screening.crystal_funnel import KnownCrystals
from generators.shipped import shipped
from generators.wish import Interval

SETTINGS = SharpeningSettings(
    rounds=2, draws=24, judged=2, no_template=0.2, batch_size=12, passes=2, shard_size=12, workers=1
)  # fmt: skip


def sharpening(
    taught: tuple[CrystalDataModule, CrystalDiffusion],
    folder: Path,
    log: Callable[[str], object],
    settings: SharpeningSettings = SETTINGS,
    hull: Sequence[Path] = (Path("known"),),
) -> Sharpening:
    data, module = taught
    module.start_from(load_checkpoint(shipped("crystal"), "crystal")[1])
    wish = Conditions.from_wish({"e_above_hull": Interval(-0.05, 0.03)}, [scale.name for scale in module.scales], 1)
    sampler = CrystalSamplerSettings(source=SOURCES.index("chosen"), steps=4)
    drawn = CrystalDraws(shipped("crystal"), sampler, CrystalTask(n_atoms=(1, 6)), wish, 0, templates=False)
    return Sharpening(module, data, drawn, settings, folder, hull, log)


@pytest.mark.slow
def test_rounds_draw_and_learn_and_a_killed_run_goes_on(
    taught: tuple[CrystalDataModule, CrystalDiffusion], tmp_path: Path
) -> None:
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(line)
        (tmp_path / f"state-{len(lines)}.pt").write_bytes((tmp_path / "state.pt").read_bytes())

    last = sharpening(taught, tmp_path, log).run()
    assert len(lines) == SETTINGS.rounds and lines[0].startswith("round 1/2: 24 drawn in ")
    assert " judged " in lines[0] and len(pd.read_parquet(tmp_path / "judged-00.parquet")) <= SETTINGS.judged
    at_start, learnt = (load_checkpoint(p, "crystal")[1] for p in (tmp_path / "model-00.pt", last))
    assert any(not torch.equal(at_start[name], learnt[name]) for name in at_start if name.startswith("denoiser."))
    expected, second = last.read_bytes(), pd.read_parquet(tmp_path / "drawn-01.parquet")

    # Killed in the second round: the first is not done again, and what is drawn comes out the same.
    (tmp_path / "state-1.pt").replace(tmp_path / "state.pt")
    last.unlink()
    (tmp_path / "drawn-01.parquet").unlink()
    assert sharpening(taught, tmp_path, lines.append).run().read_bytes() == expected
    assert len(lines) == 3 and lines[2].startswith("round 2/2")
    again = pd.read_parquet(tmp_path / "drawn-01.parquet")
    assert list(again["crystal_key"]) == list(second["crystal_key"])

    with pytest.raises(ValueError, match=r"draws"):
        sharpening(taught, tmp_path, lines.append, replace(SETTINGS, draws=30))
    (table := tmp_path / "hull.csv").write_text("formula,formation_energy_per_atom\nNaCl,-9\n")
    with pytest.raises(ValueError, match=r"hull"):
        sharpening(taught, tmp_path, lines.append, hull=(table,))


@pytest.mark.slow
def test_what_is_chosen_becomes_likelier_than_what_is_known(
    taught: tuple[CrystalDataModule, CrystalDiffusion], tmp_path: Path
) -> None:
    settings = replace(SETTINGS, rounds=4, anchor=0.0, learning_rate=3e-4, batch_size=24)
    teacher = sharpening(taught, tmp_path, lambda line: None, settings)
    module = teacher.module
    batch = load_exchanges().batch
    some = batch.select((batch.n_orbits <= 4).nonzero().squeeze(-1)[::40][:96])
    weight = np.where(np.arange(len(some)) % 2, 1.0, -0.5)
    plain = some.replace(coordinates=some.coordinates.float(), strain=some.strain.float())

    def bounds() -> np.ndarray:
        generator = torch.Generator().manual_seed(3)
        module.denoiser.eval()
        with torch.no_grad():
            return negative_log_likelihood(
                module.denoiser, module.strain_scale, plain, teacher.wish, SOURCES.index("chosen"), teacher.elements,
                generator,
            ).numpy()  # fmt: skip

    before = bounds()
    for number in range(settings.rounds):
        teacher._learn_weighted(number, some, torch.from_numpy(weight).float())
    gain = before - bounds()
    assert gain[weight > 0].mean() > gain[weight < 0].mean() + 0.5


def test_the_likeliest_new_ones_are_chosen_within_limits(
    taught: tuple[CrystalDataModule, CrystalDiffusion], tmp_path: Path
) -> None:
    settings = replace(
        SETTINGS, share=0.5, anion_free=1.0, per_element=1e3, per_system=0.4, per_prototype=1 - 1e-9,
        per_group=1 - 1e-9, no_template=1.0, unlikely_share=0.3, unlikely=-0.2,
    )  # fmt: skip
    teacher = sharpening(taught, tmp_path, lambda line: None, settings)
    label = "AB_cF8_225_a_b"
    drawn = pd.DataFrame(
        {
            "atomic_numbers": [
                [3, 9],
                [9, 3],
                [3, 9],
                [11, 17],
                [19, 35],
                [37, 53],
                [20, 8],
                [12, 8],
                [30, 8],
                [55, 9],
            ],
            "protostructure": [label] * 10,
            "space_group": [225] * 9 + [1],
            **{name: [0.9, 0.8, 0.95, 0.7, 0.6, 0.5, 0.99, 0.4, 0.98, 0.6] for name in LEVELS},
            BALANCED: [True] * 6 + [False, True, True, True],
            DISTANCE: [0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            FREE: [0] * 10,
        }
    )
    groups = drawn["space_group"].to_numpy()
    known, again = np.zeros(10, dtype=bool), np.zeros(10, dtype=bool)
    known[8] = True
    new = ~known
    score = teacher._score(drawn, new)
    chosen = teacher._choose(drawn, score)
    # Of five two at most are of one system; not the unbalanced nor the known one; P1 and far templates count less.
    assert chosen == [2, 0, 3, 5, 7]
    # Of the new ones the three with the lowest score: the unbalanced one, the far template, P1.
    weight = teacher._weights(groups, known, again, score, chosen)
    assert weight.tolist() == [1, 0, 1, 1, -0.2, 1, -0.2, 1, -0.5, -0.2]
    # What was drawn before has a weight of its own.
    again[6] = True
    weight = teacher._weights(groups, known, again, score, chosen)
    assert weight.tolist() == pytest.approx([1, 0, 1, 1, -0.2, 1, -0.5, 1, -0.5, -0.2])
    again[6] = False
    # Free coordinates cost, half at fifteen.
    free = drawn.assign(**{FREE: [15, 0, *[0] * 8]})
    assert teacher._score(free, new).tolist() == pytest.approx([score[0] / 2, *score[1:]])
    # Of either kind no more is unlearnt than a twentieth of what is learnt.
    teacher.settings = replace(settings, unlearnt=0.05)
    bounded = teacher._weights(groups, known, again, score, chosen)
    assert bounded.tolist() == pytest.approx([1, 0, 1, 1, -0.25 / 3, 1, -0.25 / 3, 1, -0.25, -0.25 / 3])
    # Lanthanides are counted together.
    teacher.settings = replace(settings, lanthanides=0.4)
    drawn["atomic_numbers"] = [[z, 17] for z in (57, 71, 60, 11, 64, 62, 20, 12, 30, 55)]
    chosen = teacher._choose(drawn, score)
    assert chosen == [2, 0, 3, 7, 9]
    # So are those without an anion: of five at most three.
    teacher.settings = replace(settings, anion_free=0.6)
    drawn["atomic_numbers"] = [
        [3, 12],
        [11, 12],
        [19, 12],
        [20, 12],
        [37, 17],
        [38, 12],
        [20, 8],
        [12, 8],
        [30, 8],
        [55, 9],
    ]
    assert teacher._choose(drawn, score) == [2, 0, 1, 7, 9]


def test_of_a_space_group_no_more_is_unlearnt_as_known_than_of_it_is_learnt(
    taught: tuple[CrystalDataModule, CrystalDiffusion], tmp_path: Path
) -> None:
    settings = replace(SETTINGS, unlearnt=0.5, unlikely_share=0.0)
    teacher = sharpening(taught, tmp_path, lambda line: None, settings)
    groups = np.array([62, 62, 62, 62, 62, 225, 225, 225, 1])
    known = np.array([False, True, True, True, True, False, False, True, True])
    weight = teacher._weights(groups, known, ~known, np.ones(9), [0, 5, 6])
    assert weight.tolist() == [1, -0.125, -0.125, -0.125, -0.125, 1, 1, -0.5, 0]


def test_draws_are_known_of_a_known_formula_or_drawn_before() -> None:
    salt, potassium = load_exchanges().batch.select(torch.tensor([0])).to_crystals()[0], "Cs4KRb3Na2"
    table = pd.DataFrame(
        {
            "crystal_key": ["a", "a", "b", "c", crystal_key(salt)],
            "space_group": [225, 225, 225, 225, salt.space_group],
            "atomic_numbers": [[19, 11], [19, 11], [11, 17], [19, 11], list(salt.atomic_numbers)],
            "formula": [potassium, potassium, "NaCl", "Cs4Rb3Na2Li", potassium],
        }
    )
    kinds = kinds_of(table, KnownCrystals(), {"c"})
    assert kinds.known.tolist() == [False, False, False, False, True]
    assert kinds.old_formula.tolist() == [False, False, True, False, False]
    assert kinds.again.tolist() == [False, True, False, True, False]


def test_what_was_judged_corrects_what_is_expected_of_the_next_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("_sampler", None), ("_likely", None), ("_odds", {}), ("_observed", ())):
        monkeypatch.setattr(sharpening_draws, name, value)
    wish = Conditions.from_wish(
        {"e_above_hull": Interval(-0.05, 0.03)},
        [scale.name for scale in load_crystal_model(shipped("crystal")).scales], 1,
    )  # fmt: skip
    sampler = CrystalSamplerSettings(source=SOURCES.index("chosen"), steps=4)
    draws = CrystalDraws(shipped("crystal"), sampler, CrystalTask(n_atoms=(1, 6)), wish, 0, templates=False)
    before = sharpening_draws.draw_shard(draws, 0, 12, ())
    likely = sharpening_draws._likely
    assert likely is not None
    mean, _ = likely.model.predict(crystal_features(from_frame(before)))
    judged = before.assign(formation_energy_per_atom=mean[:, 0].numpy() + 0.5)
    judged.to_parquet(tmp_path / "judged.parquet")
    after = sharpening_draws.draw_shard(draws, 0, 12, (tmp_path / "judged.parquet",))
    assert list(after["crystal_key"]) == list(before["crystal_key"])
    assert after[NEAR].sum() < 0.5 * before[NEAR].sum()

    # Where the hull is said to be lower, fewer lie near it.
    for name, value in (("_likely", None), ("_odds", {}), ("_observed", ())):
        monkeypatch.setattr(sharpening_draws, name, value)
    table = tmp_path / "hull.csv"
    before[["formula"]].assign(formation_energy_per_atom=mean[:, 0].numpy() - 1.0).to_csv(table, index=False)
    lower = sharpening_draws.draw_shard(draws, 0, 12, (), (Path("known"), table))
    assert list(lower["crystal_key"]) == list(before["crystal_key"])
    assert lower[NEAR].sum() < 0.1 * before[NEAR].sum()


def test_sketches_take_the_geometry_of_templates_and_draw_where_there_is_none() -> None:
    templates = embedded_templates()
    model = load_crystal_model(shipped("crystal"))
    sampler = model.sampler(CrystalSamplerSettings(source=SOURCES.index("chosen"), steps=2), templates)
    task = CrystalTask(n_atoms=(1, 12))
    wish = Conditions.from_wish({"e_above_hull": Interval(-0.05, 0.03)}, [scale.name for scale in model.scales], 1)
    drawn = sampler.draw(task, wish, 60, torch.Generator().manual_seed(5)).to_crystals()
    followed: list[str] = []
    follow = sampler.geometry.follow

    def watched(frame: OrbitBatch, *arguments: Any) -> OrbitBatch:
        followed.extend(protostructure_label(crystal) for crystal in frame.to_crystals())
        return follow(frame, *arguments)

    sampler.geometry.follow = watched  # type: ignore[method-assign, assignment]
    sketch, distance = sampler.sketch(task, wish, 60, torch.Generator().manual_seed(5))
    found = [protostructure_label(crystal) for crystal in sketch.to_crystals()]
    assert sorted(found) == sorted(protostructure_label(crystal) for crystal in drawn)
    assert sorted(followed) == sorted(label for label in found if label not in templates.labels)
    assert 0 < len(followed) < 60
    assert [label not in templates.labels for label in found] == distance.isinf().tolist()
    assert bool(task.fulfilled(sketch).all())


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"rounds=0: must be at least 1"):
        SharpeningSettings(rounds=0)
    with pytest.raises(ValueError, match=r"anchor=-1: must not be negative"):
        SharpeningSettings(anchor=-1)
    with pytest.raises(ValueError, match=r"unlikely_share=0.9: must lie in \[0, 1 - share\]"):
        SharpeningSettings(unlikely_share=0.9)
    with pytest.raises(ValueError, match=r"unlikely=-1: must lie in \(-1, 0\]"):
        SharpeningSettings(unlikely=-1)
    with pytest.raises(ValueError, match=r"anion_free=1.5: must lie in \(0, 1\]"):
        SharpeningSettings(anion_free=1.5)
    with pytest.raises(ValueError, match=r"ema_decay=1: must lie in \[0, 1\)"):
        SharpeningSettings(ema_decay=1)
