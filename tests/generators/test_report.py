"""What a run leaves: tables, structures, the report, W&B."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from data.cells import decode
from data.dataset import CrystalDataset
from data.frames import to_frame
from data.orbit_batch import OrbitBatch
from data.prototypes import prototype_library
from generators.export import file_stem, write_candidates
from generators.outcome import Answer
from generators.report.figures import wilson
from generators.report.html import render
from generators.wish import Interval, Wish

NAME = "formation_energy_per_atom"


@pytest.fixture
def answer() -> Answer:
    library = prototype_library()
    crystals = [
        library.get("rocksalt").crystal([11, 17]),
        library.get("perovskite").crystal([38, 22, 8]),
        library.get("elpasolite").crystal([11, 13, 19, 9]),
        library.get("wurtzite").crystal([30, 16]),
    ]
    batch = OrbitBatch.from_crystals(crystals)
    n = len(batch)
    table = to_frame(batch).assign(
        id=[f"raremat-{i:05d}" for i in range(1, n + 1)],
        rank=range(1, n + 1),
        formula=[c.reduced_formula for c in crystals],
        prototype=["rocksalt", "perovskite", "<script>alert(1)</script>", "wurtzite"],
        hit=[True, True, True, False],
        charge_balanced=True,
        valid=True,
        e_above_hull=[0.0123, 0.1, 0.2, -0.0456],
        confirmed=pd.array([True, False, None, None], dtype="boolean"),
        disagreement=[0.011, 0.022, np.nan, 0.033],
        disagreement_cgcnn=[0.111, 0.222, 0.333, 0.444],
        **{NAME: [-2.1, -3.4, -3.3, -1.0], f"{NAME}_surrogate": [-2.0, -3.5, -3.2, -2.5]},
        **{f"{NAME}_surrogate_std": [0.1] * 4},
    )
    sources = {}
    for name, hits in (("raremat", 3), ("surrogate_screening", 2), ("random_charge_balanced", 1), ("random", 0)):
        sources[name] = {
            "judge_calls": 4, "hits": hits, "hits_per_call": hits / 4, "proposals": 1000,
            "distinct_prototypes_in_hits": hits,
        }  # fmt: skip
    summary = {
        "wish": {NAME: [None, -2.0]},
        "random_hit_rate_in_training_data": 0.0123,
        **sources,
        "second_opinion": {
            "judged": 4,
            "hits": 3,
            "confirmed": 1,
            "refuted": 1,
            "unknown": 2,
            "hits_confirmed": 1,
            "hits_refuted": 1,
            "mean_disagreement": 0.022,
            "mean_disagreement_cgcnn": 0.28,
            "judges": "SevenNet, CGCNN",
        },
        "funnel": [
            {"stage": "unique and novel", "in": 1000, "out": 700, "reasons": {"duplicate": 300}},
            {"stage": "judge", "in": 700, "out": 4, "reasons": {"collapsed": 696}},
        ],
    }
    judged = dict.fromkeys(sources, table)
    return Answer(table, table.head(0), batch, summary, judged)


@pytest.fixture
def training() -> CrystalDataset:
    batch = OrbitBatch.from_crystals([prototype_library().get("rocksalt").crystal([11, 17])] * 50)
    labels = torch.linspace(-3, 1, 50, dtype=torch.float64)
    return CrystalDataset(batch, {NAME: labels}, ("rocksalt",) * 50, tuple(map(str, range(50))))


WISH = Wish({NAME: Interval(None, -2.0)})


def test_files_read_back(answer: Answer, tmp_path: Path) -> None:
    write_candidates(answer.candidates, answer.batch, tmp_path, top=3)
    assert len(pd.read_parquet(tmp_path / "candidates.parquet")) == 4
    cifs = sorted((tmp_path / "structures").glob("*.cif"))
    assert cifs[0].name == "raremat-00001_NaCl.cif"
    assert len(cifs) == 3
    matcher = StructureMatcher()
    expected = list(decode(answer.batch).structures())
    for path, structure, group in zip(cifs, expected, answer.candidates["space_group"], strict=False):
        read = Structure.from_file(path)
        assert matcher.fit(read, structure)
        assert read.get_space_group_info()[1] == group
    from ase.io import read as ase_read

    frames = ase_read(tmp_path / "candidates.extxyz", index=":")
    assert len(frames) == 4
    for atoms, structure, value in zip(frames, expected, answer.candidates[NAME], strict=True):
        assert atoms.info[NAME] == pytest.approx(value)
        assert atoms.get_chemical_symbols() == [s.specie.symbol for s in structure]
        assert np.allclose(atoms.cell[:], structure.lattice.matrix, atol=1e-6)
        assert bool(atoms.info["hit"]) == (value <= -2.0)


def test_file_names_stay_in_their_folder() -> None:
    assert "/" not in file_stem("../../etc", "a/b")
    assert ".." not in file_stem("../../etc", "..")


def test_wilson_interval_of_known_cases() -> None:
    low, high = wilson(8, 10)  # Brown, Cai and DasGupta (2001): 0.4902 to 0.9433
    assert low == pytest.approx(0.4902, abs=1e-4)
    assert high == pytest.approx(0.9433, abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 20)[0] == 0.0


@pytest.mark.slow
def test_report_is_complete_offline_and_escaped(answer: Answer, training: CrystalDataset) -> None:
    page = render(answer, training, WISH)
    for heading in (
        "Hits for the same number of judge calls", "Where the candidates lie", "The funnel",
        "<td>-0.046</td><td>cannot tell</td><td>0.033</td><td>0.444</td>", "<td>confirms</td><td>0.011</td>",
        "<td>refutes</td>", "<td>cannot tell</td><td>–</td>", "SevenNet differs by", "CGCNN differs by",
        "Of the 3 hits among them <b>1 are confirmed</b>, 1 refuted, 1 cannot be told", "<b>50% (9%–91%)</b>",
        "Elements of the hits", "Surrogate against judge", "Best candidates", "The first of them",
    ):  # fmt: skip
        assert heading in page
    assert "not on DFT" in page
    body = page.split("</script></head>")[1]
    assert "<script>alert(1)</script>" not in body.replace("\\u003c", "<") or "&lt;script&gt;" in body
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=['\"]?https?:", page)
    assert "<td>3</td><td>0.750</td>" in page  # raremat's hits and hits per call, as in the summary
    assert "0.0123" in page
    assert len(page) < 9_000_000


@pytest.mark.slow
def test_wandb_run_reads_back(
    answer: Answer,
    training: CrystalDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    read_offline_run: Callable[[Path], tuple[dict[str, object], set[str]]],
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    from generators.wandb_logging import log_answer

    log_answer(tmp_path, "raremat", "test", answer, training, WISH)
    summary, history = read_offline_run(tmp_path)
    assert summary["raremat/hits"] == 3
    assert summary["random/hits_per_call"] == 0
    logged = " ".join(history)
    assert "candidates" in logged
    assert "figures/The funnel" in logged
    tables = list(tmp_path.rglob("*.table.json"))
    assert any("NaCl" in path.read_text() for path in tables)
