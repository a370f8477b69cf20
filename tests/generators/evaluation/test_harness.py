"""The harness ranks what it must rank, and survives what models produce."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY
from pymatgen.core import Lattice, Structure

from data.crystal import Crystal
from data.dataset import CrystalDataset
from data.orbit_batch import OrbitBatch
from data.symmetry import encode
from generators import cli
from generators.evaluation.evaluate import Protocol, Reference, evaluate
from generators.evaluation.samples import Samples
from generators.judging import JudgeWorkers
from generators.oracles.hull_tables import chgnet_hull
from generators.oracles.judge import JudgeSettings
from generators.screening.ion_exchange import substitution_weights

N = 24


def dataset(crystals: list[Crystal]) -> CrystalDataset:
    n = len(crystals)
    return CrystalDataset(OrbitBatch.from_crystals(crystals), {}, ("",) * n, tuple(map(str, range(n))))


def known() -> list[Crystal]:
    """Small compounds of the AFLOW library."""
    structures = [entry["snl"].structure for entry in AFLOW_PROTOTYPE_LIBRARY]
    small = [s for s in structures if len(s) <= 8 and len(s.composition) > 1 and max(x.Z for x in s.composition) < 84]
    return [encode(s) for s in small[::2][:N]]


def exchanged(crystals: list[Crystal]) -> list[Crystal]:
    """One element of each replaced by a similar one."""
    weights, generator = substitution_weights(), torch.Generator().manual_seed(0)
    children = []
    for crystal in crystals:
        old = sorted(set(crystal.atomic_numbers))[0]
        rates = weights[old].clone()
        rates[list(crystal.atomic_numbers)] = 0
        rates[84:] = 0
        new = int(torch.multinomial(rates, 1, generator=generator))
        children.append(crystal.with_elements(tuple(new if z == old else z for z in crystal.atomic_numbers)))
    return children


def noise() -> list[Crystal]:
    rng = np.random.default_rng(0)
    return [
        encode(
            Structure(
                Lattice.from_parameters(*rng.uniform(3, 6, 3), *rng.uniform(70, 110, 3)),
                rng.integers(3, 84, 4).tolist(),
                rng.random((4, 3)),
            )
        )
        for _ in range(N)
    ]


@pytest.mark.slow
def test_known_compounds_above_ion_exchange_above_noise(tmp_path: Path) -> None:
    compounds = known()
    reference, hull = Reference.from_dataset(dataset(compounds)), chgnet_hull()
    figures = {}
    for name, crystals in (("known", compounds), ("exchanged", exchanged(compounds)), ("noise", noise())):
        judge = JudgeWorkers(JudgeSettings(with_bulk_modulus=False), workers=1, device="cpu")
        result = evaluate(Samples(dataset(crystals), ()), Protocol(repeats=50), reference, hull, judge, tmp_path / name)
        figures[name] = {key: figure.value for key, figure in result.figures.items()}
    metastable = [figures[name]["metastable"] for name in ("known", "exchanged", "noise")]
    assert figures["known"]["valid_structure"] == 1
    assert figures["known"]["novel"] == 0 and figures["known"]["sun"] == 0
    assert figures["known"]["match_distance"] < 0.1
    assert metastable[0] > 0.7 and metastable[2] < 0.1
    assert metastable[2] < metastable[1] < metastable[0]
    assert figures["exchanged"]["novel"] > 0.9 and figures["noise"]["novel"] == 1
    assert figures["noise"]["sun"] < figures["exchanged"]["sun"]
    assert figures["noise"]["rmsd"] > 3 * figures["known"]["rmsd"]


@pytest.mark.slow
def test_it_survives_what_models_produce(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "samples"
    (folder / "again").mkdir(parents=True)
    Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.08), ["Th"], [[0, 0, 0]]).to(folder / "actinide.cif")
    Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.0), ["Cf"], [[0, 0, 0]]).to(folder / "no_energy.cif")
    Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.3), ["Ar"], [[0, 0, 0]]).to(folder / "noble.cif")
    Structure(Lattice.cubic(2.9), ["Po"], [[0, 0, 0]]).to(folder / "one_atom.cif")
    Structure(Lattice.cubic(40), ["Na"], [[0, 0, 0]]).to(folder / "isolated.cif")
    large = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    large.make_supercell([5, 5, 1])
    large.perturb(0.02, seed=0)
    large.to(folder / "two_hundred.cif")
    Structure(Lattice.cubic(4), [{"Fe": 0.5, "Ni": 0.5}], [[0, 0, 0]]).to(folder / "partial.cif")
    (folder / "empty.cif").touch()
    for name in ("twin.cif", "again/twin.cif"):
        Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.2), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]).to(
            folder / name
        )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys,
        "argv",
        ["raremat-evaluate", "samples", "oracle.max_evaluations=3", "oracle.workers=1"],
    )
    cli.evaluate()
    assert "10 samples" in capsys.readouterr().out
    table = pd.read_parquet(tmp_path / "outputs" / "evaluate" / "evaluation.parquet").set_index("id")
    assert len(large) == 200 and table["n_atoms"]["two_hundred"] == 200
    assert "partial occupancy" in table["reason"]["partial"]
    assert table["valid_structure"].isna().sum() == 2
    assert table["duplicate_of"]["twin"] == "again/twin"
    assert table["relaxed"]["actinide"] and np.isfinite(table["e_above_hull"]["actinide"])
    assert not table["relaxed"]["no_energy"] and table["reason"]["no_energy"] != ""
    assert table["reason"]["isolated"] in ("isolated atom", "exploded")
    assert np.isnan(table["e_above_hull"]["isolated"]) and not table["metastable"]["isolated"]


@pytest.mark.slow
def test_phonons_on_request(tmp_path: Path) -> None:
    crystals = [encode(Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), [x, y], [[0, 0, 0], [0.5, 0.5, 0.5]])) for
                a, x, y in ((5.6, "Na", "Cl"), (5.0, "Kr", "W"))]  # fmt: skip
    crystals.append(encode(Structure(Lattice.cubic(3.2), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])))
    judge = JudgeWorkers(JudgeSettings(with_bulk_modulus=False), workers=1, device="cpu")
    reference = Reference.from_dataset(dataset(crystals[:1]))
    protocol = Protocol(repeats=50, phonons=5)
    result = evaluate(Samples(dataset(crystals), ()), protocol, reference, chgnet_hull(), judge, tmp_path)
    assert result.table["metastable"].tolist() == [True, False, True]
    assert result.table["dynamically_stable"].tolist()[0] == 1
    assert np.isnan(result.table["dynamically_stable"][1])
    assert result.figures["dynamically_stable"].n == 2
    shards = {path: path.stat().st_mtime_ns for path in (tmp_path / "judged").iterdir()}
    again = evaluate(Samples(dataset(crystals), ()), protocol, reference, chgnet_hull(), judge, tmp_path)
    assert again.figures == result.figures
    assert shards == {path: path.stat().st_mtime_ns for path in (tmp_path / "judged").iterdir()}
