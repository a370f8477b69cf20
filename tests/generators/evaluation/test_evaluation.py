"""Evaluation of a handful of crystals whose fate is known."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from data.cells import decode
from data.decorations import load_decorations
from data.orbit_batch import OrbitBatch
from data.symmetry import encode
from generators import cli
from generators.evaluation.matching import first_equal, matches, same_crystals
from generators.evaluation.metrics import bootstrap, distances
from generators.evaluation.samples import displacement, shortest_distance, without_symmetry
from generators.oracles.chgnet_potential import SCALE
from generators.oracles.hull import fractions_of_batch
from generators.oracles.hull_tables import chgnet_hull, known_hull
from generators.oracles.judge import ChgnetJudge


def rocksalt(a: float, *species: str) -> Structure:
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), list(species), [[0, 0, 0], [0.5, 0.5, 0.5]])


def rutile(a: float = 4.6, c: float = 2.96, x: float = 0.305) -> Structure:
    return Structure.from_spacegroup(
        "P4_2/mnm", Lattice.tetragonal(a, c), ["Ti", "O"], [[0, 0, 0], [x, x, 0]]
    )  # fmt: skip


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    rocksalt(5.6, "Na", "Cl").to(folder / "a_known.cif")
    rocksalt(5.9, "Na", "Cl").make_supercell([1, 1, 2]).to(folder / "b_again.cif")
    rocksalt(5.0, "Kr", "W").to(folder / "c_unstable.cif")
    close = rocksalt(5.6, "Na", "Cl")
    close.append("F", [0.01, 0.0, 0.0])
    close.to(folder / "d_overlap.cif")
    (folder / "e_broken.cif").write_text("nothing")
    return folder


def test_pairs_are_compared_by_structure() -> None:
    first, second = rocksalt(5.6, "Na", "Cl"), rocksalt(5.9, "Na", "Cl")
    moved = rutile(x=0.28)
    assert same_crystals([first, first, rutile()], [second, rocksalt(5.6, "K", "Cl"), moved]) == [True, False, True]
    far = rutile()
    far.translate_sites([2], [0.25, 0, 0.3])
    assert same_crystals([rutile()], [far]) == [False]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["raremat-evaluate", *arguments])
    cli.evaluate()


@pytest.mark.slow
def test_command_gives_each_sample_its_fate(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(monkeypatch, str(samples), "oracle.workers=1", "oracle.device=cpu")
    assert "5 samples" in capsys.readouterr().out
    folder = tmp_path / "outputs" / "evaluate"
    table = pd.read_parquet(folder / "evaluation.parquet").set_index("id")
    assert list(table.index) == ["a_known", "b_again", "c_unstable", "d_overlap", "e_broken"]
    assert table["valid_structure"].fillna(False).tolist() == [True, True, True, False, False]
    assert "apart" in table["reason"]["d_overlap"]
    assert table["duplicate_of"]["b_again"] == "a_known"
    assert table["n_atoms"]["b_again"] == 2
    assert not table["novel"]["a_known"] and table["novel"]["c_unstable"]
    assert table["e_above_hull"]["a_known"] == pytest.approx(0, abs=0.01)
    assert not bool(table["metastable"]["c_unstable"])
    assert table["space_group_relaxed"]["a_known"] == 225
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["samples"] == 5
    figures = {name: figure["value"] for name, figure in metrics["figures"].items()}
    assert figures["valid_structure"] == pytest.approx(0.6)
    assert figures["unique"] == pytest.approx(0.4)
    assert figures["novel"] == pytest.approx(0.2)
    assert figures["sun"] == 0
    assert figures["metastable"] == pytest.approx(0.4)
    assert figures["far_below_hull"] == 0
    assert len((folder / "relaxed.extxyz").read_text().split("Lattice=")) == 4
    # The same command again reads what is judged.
    shards = {path: path.stat().st_mtime_ns for path in (folder / "judged").iterdir()}
    run(monkeypatch, str(samples), "oracle.workers=2", "oracle.device=cpu")
    assert shards == {path: path.stat().st_mtime_ns for path in (folder / "judged").iterdir()}
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    # A run that was killed before its last shard: only that is judged again, by other processes, with the same end.
    last = max((folder / "judged").iterdir())
    last.unlink()
    run(monkeypatch, str(samples), "oracle.workers=2", "oracle.device=cpu")
    again = pd.read_parquet(folder / "evaluation.parquet").set_index("id")
    assert last.exists()
    assert again["e_above_hull"].to_numpy() == pytest.approx(table["e_above_hull"].to_numpy(), abs=1e-4, nan_ok=True)
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, str(samples), "relax=free")
    assert stop.value.code == 2
    assert "choose another run=NAME" in capsys.readouterr().err


@pytest.mark.slow
def test_known_compounds_alone_may_be_the_hull(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    decorations = load_decorations()
    shares = fractions_of_batch(decorations.batch)
    energy = decorations.properties["formation_energy_per_atom"].double().numpy()
    above = {
        word: hull.e_above_hull(shares, energy, SCALE)
        for word, hull in (("known", known_hull()), ("embedded", chgnet_hull()))
    }
    row = int(np.nanargmin(above["known"]))  # a hypothetical crystal far below every known mixture
    next(iter(decode(decorations.batch.select(torch.tensor([row]))).structures())).to("x.cif")
    found = {}
    for word in ("known", "embedded"):
        run(monkeypatch, "x.cif", f"run={word}", f"reference.hull=[{word}]", "oracle.workers=1", "oracle.device=cpu")
        found[word] = pd.read_parquet(f"outputs/{word}/evaluation.parquet")["e_above_hull"][0]
        card = json.loads(Path(f"outputs/{word}/metrics.json").read_text())["protocol"]
        assert card["hull"].endswith(f"CHGNet 0.3.0, {word}")
    # A table of the user's own beside a word: their lower envelope, on the scale that the user names.
    formula = next(iter(decode(decorations.batch.select(torch.tensor([row]))).structures())).reduced_formula
    Path("own.csv").write_text(f"formula,formation_energy_per_atom\n{formula},{energy[row] - 0.5}\n")
    run(
        monkeypatch, "x.cif", "run=own", "reference.hull=[known, own.csv]", 'reference.hull_scale="CHGNet 0.3.0"',
        "oracle.workers=1", "oracle.device=cpu",
    )  # fmt: skip
    own = pd.read_parquet("outputs/own/evaluation.parquet")["e_above_hull"][0]
    assert own == pytest.approx(0.5, abs=0.02)
    assert found == pytest.approx({word: value[row] for word, value in above.items()}, abs=0.02)
    assert found["known"] < -0.2 < -0.03 < found["embedded"]


def test_a_zip_is_the_folder_and_a_reference_decides_novelty(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("samples.zip", "w") as archive:
        for path in samples.iterdir():
            archive.write(path, f"inside/{path.name}")
    rocksalt(5.1, "Kr", "W").to("reference.cif")
    run(monkeypatch, "samples.zip", "relax=none", "reference.structures=reference.cif")
    table = pd.read_parquet("outputs/evaluate/evaluation.parquet")
    assert table["id"].tolist() == [
        f"inside/{x}" for x in ("a_known", "b_again", "c_unstable", "d_overlap", "e_broken")
    ]
    assert table["novel"].iloc[:3].tolist() == [True, True, False]
    assert table["match_distance"].iloc[2] == pytest.approx(0, abs=1e-6)
    assert "e_above_hull" not in table
    coverage = json.loads(Path("outputs/evaluate/metrics.json").read_text())["coverage"]
    assert coverage == {"found": 1, "reference": 1, "share": 1.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "path: say what to evaluate"),
        (["nowhere.zip"], "nowhere.zip"),
        (["bad.zip"], "is not a zip archive"),
        (["x.cif", "relax=some"], "relax=some"),
        (["x.cif", "reference.hull=[hull.csv]"], "name the energy scale"),
        (["x.cif", "reference.hull=[hull.csv]", "reference.hull_scale=MP"], "two scales never meet"),
        (["x.cif", "reference.hull=[known, hull.csv]"], "name the energy scale"),
        (["x.cif", "reference.hull=[known]", "reference.hull_scale=MP"], "two scales never meet"),
        (["x.cif", "reference.hull=[none.csv]"], "no such file"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    rocksalt(5.6, "Na", "Cl").to("x.cif")
    Path("bad.zip").write_text("no archive")
    Path("hull.csv").write_text("formula,formation_energy_per_atom\nNaCl,-2.1\n")
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, *arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("raremat: ") and message in error


def test_displacement_ignores_a_common_shift_and_measures_the_rest() -> None:
    start = OrbitBatch.from_crystals([encode(rutile(x=0.305))])
    end = OrbitBatch.from_crystals([encode(rutile(x=0.315))])
    # Four oxygen atoms move by 0.01 a along both axes, two titanium atoms do not.
    assert displacement(start, end).item() == pytest.approx(0.046 * np.sqrt(2) * np.sqrt(4 / 6), rel=1e-6)
    free = without_symmetry(start)
    shifted = free.replace(coordinates=free.coordinates + 0.3)
    assert displacement(free, shifted).item() == pytest.approx(0, abs=1e-9)


def test_without_symmetry_is_the_same_crystal_with_the_same_minimum() -> None:
    batch = OrbitBatch.from_crystals([encode(rutile()), encode(rocksalt(5.8, "Na", "Cl"))])
    free = without_symmetry(batch)
    assert free.space_group.tolist() == [1, 1]
    assert free.n_atoms.tolist() == batch.n_atoms.tolist()
    for a, b in zip(decode(batch).structures(), decode(free).structures(), strict=True):
        assert StructureMatcher().get_rms_dist(a, b)[0] < 1e-6
    judge = ChgnetJudge()
    bound, unbound = judge.measure(batch)[0], judge.measure(free)[0]
    assert torch.allclose(bound, unbound, atol=2e-3)


def test_shortest_distance_sees_periodic_images() -> None:
    cells = decode(OrbitBatch.from_crystals([encode(rocksalt(5.6, "Na", "Cl")), encode(rutile())]))
    exact = [
        min(near.nn_distance for site in structure.get_all_neighbors(4) for near in site)
        for structure in cells.structures()
    ]
    assert shortest_distance(cells).tolist() == pytest.approx(exact)


def test_first_equal_and_matches() -> None:
    salts = [rocksalt(5.6, "Na", "Cl"), rutile(), rocksalt(6.1, "Na", "Cl"), rutile(x=0.31)]
    formulas = ["NaCl", "TiO2", "NaCl", "TiO2"]
    assert first_equal(formulas, salts) == [0, 1, 0, 1]
    found = matches(formulas[:2], salts[:2], formulas[2:], salts[2:])
    assert [[i for i, _ in pairs] for pairs in found] == [[0], [1]]
    assert matches(["KCl"], [rocksalt(6.2, "K", "Cl")], formulas, salts) == [[]]


def test_bootstrap_interval_has_the_width_of_a_binomial() -> None:
    rng = np.random.default_rng(0)
    figure = bootstrap((rng.random(2000) < 0.3).astype(float))
    assert figure.low < 0.3 < figure.high
    assert figure.high - figure.low == pytest.approx(2 * 1.96 * np.sqrt(0.21 / 2000), rel=0.15)
    assert np.isnan(bootstrap(np.zeros(0)).value)


def test_distance_of_a_shift_is_the_shift() -> None:
    values = np.random.default_rng(0).normal(size=500)
    assert distances({"density": values}, {"density": values + 0.7})["density"] == pytest.approx(0.7)
