"""The whole loop with the shipped models, small: candidates, resume, reproducibility, hard constraints."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from data.cells import element
from data.decorations import load_decorations
from generators.build import load_generator
from generators.generate import Generation
from generators.generate_settings import GenerateSettings
from generators.manifest import write_json
from generators.oracles.surrogate import SurrogateOracle
from generators.outcome import Answer
from generators.shipped import shipped
from generators.wish import Interval, Wish, parse_elements

NAME = "formation_energy_per_atom"
PROTOTYPES = ("cscl", "half_heusler", "perovskite")
WISH = Wish(
    {NAME: Interval(None, -1.0)},
    forbidden_elements=parse_elements(["F", "Be"], "forbidden_elements"),
)


@pytest.fixture(scope="module")
def parts():  # type: ignore[no-untyped-def]
    torch.set_num_threads(1)
    return load_generator(None), SurrogateOracle.load(shipped("surrogate")), load_decorations()


def generate(parts, folder: Path, **settings) -> Answer:  # type: ignore[no-untyped-def]
    module, surrogate, training = parts
    values = {"judge_calls": 8, "pool": 60, "shard_size": 128, "prototypes": PROTOTYPES, "workers": 1, **settings}
    result = Generation(module, surrogate, training, WISH, GenerateSettings(**values), folder).run()
    write_json(folder / "summary.json", result.summary)
    return result


@pytest.mark.slow
def test_candidates_resume_and_repeat(parts, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    first = generate(parts, tmp_path / "a", baselines=True, baseline_pool=60)
    table = first.candidates
    assert set(table["prototype"]) <= set(PROTOTYPES)
    used = {element(int(z)).symbol for row in table["atomic_numbers"] for z in row}
    assert not used & {"F", "Be"}
    assert table["crystal_key"].is_unique
    known = set(parts[2].keys())
    assert not known & set(table["crystal_key"])
    assert (table["hit"] == (table[NAME] <= -1.0)).all()
    assert first.summary["raremat"]["judge_calls"] == 8
    assert first.summary["raremat"]["hits"] == int(table["hit"].sum())
    funnel = first.summary["funnel"]
    for stage, following in itertools.pairwise(funnel):
        assert stage["in"] - stage["out"] == sum(stage["reasons"].values())
        assert stage["out"] >= following["in"]
    assert json.loads((tmp_path / "a" / "summary.json").read_text())["unique_novel"] == 8

    # A killed run: some shards are there, others are not.
    for path in [*(tmp_path / "a" / "judged").glob("random-*"), *(tmp_path / "a" / "proposals").glob("raremat-*")]:
        path.unlink()
    again = generate(parts, tmp_path / "a", baselines=True, baseline_pool=60)
    _same(first.candidates, again.candidates)
    for source in first.judged:
        _same(first.judged[source], again.judged[source])


def _same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    assert list(one["atomic_numbers"].map(tuple)) == list(other["atomic_numbers"].map(tuple))
    a, b = one[NAME].to_numpy(dtype=float), other[NAME].to_numpy(dtype=float)
    assert np.allclose(a, b, atol=1e-4, equal_nan=True)


@pytest.mark.slow
def test_another_seed_gives_other_candidates(parts, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    settings = {"judge_calls": 1, "pool": 40}
    one = generate(parts, tmp_path / "a", seed=0, **settings)
    generate(parts, tmp_path / "b", seed=1, **settings)
    a = pd.read_parquet(next((tmp_path / "a" / "proposals").glob("raremat-*")))
    b = pd.read_parquet(next((tmp_path / "b" / "proposals").glob("raremat-*")))
    assert len(one.candidates) <= 1
    assert a["elements"].map(tuple).tolist() != b["elements"].map(tuple).tolist()


def test_constraints_that_cannot_be_met_are_refused(parts, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    module, surrogate, training = parts
    unknown = Wish({NAME: Interval(None, -1.0)}, allowed_elements=parse_elements(["U", "O", "Na"], "allowed_elements"))
    with pytest.raises(ValueError, match="allowed_elements=U: the model was not trained on it"):
        Generation(module, surrogate, training, unknown, GenerateSettings(), tmp_path)
    few = Wish({NAME: Interval(None, -1.0)}, allowed_elements=parse_elements(["Na", "O"], "allowed_elements"))
    with pytest.raises(ValueError, match="2 elements are left, a chosen prototype needs"):
        Generation(module, surrogate, training, few, GenerateSettings(prototypes=("perovskite",)), tmp_path)
