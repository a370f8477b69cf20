"""From a user's table to an oracle: tensors and scalars, in the frame of the structures."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pymatgen.core import Lattice, Structure

from generators import cli
from generators.structures.oracle import StructureOracle
from generators.structures.tensors import from_cartesian

N = 60


def structures() -> list[Structure]:
    """Tetragonal CsCl-type cells, turned at random."""
    rng = np.random.default_rng(0)
    result = []
    for _ in range(N):
        q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        a, c = rng.uniform(3, 4, 2)
        lattice = np.diag([a, a, c]) @ (q * np.sign(np.linalg.det(q))).T
        pair = rng.choice(["Na", "K", "Rb", "Mg", "Ca", "Sr"], 1)[0], rng.choice(["F", "Cl", "Br", "O", "S"], 1)[0]
        result.append(Structure(Lattice(lattice), pair, [[0, 0, 0], [0.5, 0.5, 0.5]]))
    return result


def tensor(structure: Structure) -> np.ndarray:
    """A dielectric tensor that follows from the cell: the sum of the squared lattice vectors over the volume."""
    m = structure.lattice.matrix
    return m.T @ m / structure.volume ** (2 / 3) * 3


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tables") / "mine.parquet"
    rows = structures()
    frame = pd.DataFrame(
        {
            "lattice": [s.lattice.matrix.ravel().tolist() for s in rows],
            "atomic_numbers": [[x.Z for x in s.species] for s in rows],
            "frac_coords": [s.frac_coords.ravel().tolist() for s in rows],
            "e_electronic": [tensor(s).ravel().tolist() for s in rows],
            "hardness": [float(s.volume) for s in rows],
        }
    )
    frame.loc[3, "hardness"] = None
    frame.to_parquet(path)
    return path


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["raremat-train", "experiment=structure", "logger=none", *arguments])
    cli.train()


@pytest.mark.slow
def test_a_table_of_tensors_becomes_an_oracle(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(
        monkeypatch, tmp_path, f"data.path={table}", "data.properties=[e_electronic, hardness]", "run=mine",
        "model.width=16", "model.depth=2", "model.members=2", "trainer.max_epochs=30", "data.batch_size=16",
        "trainer.accelerator=cpu", "data.fractions=[0.6,0.2,0.2]",
    )  # fmt: skip
    oracle = StructureOracle.load(tmp_path / "outputs" / "mine" / "model.pt")
    rows = structures()
    result = oracle.predict(rows)
    assert result.valid.all() and result.values["e_electronic"].shape == (N, 3, 3)
    exact = torch.tensor(np.stack([tensor(s) for s in rows]))
    error = (result.values["e_electronic"] - exact).flatten(1).norm(dim=1).mean()
    isotropic = exact - exact.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(3)
    assert error < 0.7 * isotropic.flatten(1).norm(dim=1).mean()
    assert (torch.linalg.eigvalsh(result.values["e_electronic"]) > 0).all()
    assert (result.std["hardness"] > 0).all()
    far = Structure(Lattice.cubic(30), ["Na"], [[0, 0, 0]])
    strange = Structure(Lattice.cubic(3.3), ["U", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    edge = oracle.predict([far, strange])
    assert edge.reason == ("isolated atom", "") and torch.isnan(edge.values["hardness"][0])
    assert oracle.out_of_domain([rows[0], strange]).tolist() == [False, True]


@pytest.mark.slow
def test_piezoelectric_and_elastic_tensors_from_table_to_oracle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Columns of 18 and 36 numbers in IEEE axes; the trained network obeys the class -43m in every frame."""
    rng = np.random.default_rng(1)
    rows, e14, c11 = [], [], []
    for _ in range(N):
        q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        a = rng.uniform(5, 7)
        pair = rng.choice(["Zn", "Cd", "Ga", "In"]), rng.choice(["S", "Se", "As", "P"])
        cubic = Structure.from_spacegroup("F-43m", Lattice.cubic(a), pair, [[0, 0, 0], [0.25, 0.25, 0.25]])
        small = cubic.get_primitive_structure()
        turn = (q * np.sign(np.linalg.det(q))).T
        rows.append(Structure(small.lattice.matrix @ turn, small.species, small.frac_coords))
        e14.append(0.1 * a)
        c11.append(800 / a)
    piezo, elastic = np.zeros((N, 3, 6)), np.zeros((N, 6, 6))
    for i in range(3):
        piezo[:, i, 3 + i] = e14
        elastic[:, 3 + i, 3 + i] = np.array(c11) / 3
        for j in range(3):
            elastic[:, i, j] = np.array(c11) * (1.0 if i == j else 0.5)
    frame = {
        "lattice": [s.lattice.matrix.ravel().tolist() for s in rows],
        "atomic_numbers": [[x.Z for x in s.species] for s in rows],
        "frac_coords": [s.frac_coords.ravel().tolist() for s in rows],
        "piezo": piezo.reshape(N, 18).tolist(),
        "elastic": elastic.reshape(N, 36).tolist(),
    }
    pd.DataFrame(frame).to_parquet(tmp_path / "t.parquet")
    run(
        monkeypatch, tmp_path, "data.path=t.parquet", "data.properties=[piezo, elastic]", "data.tensor_frame=ieee",
        "run=mine", "model.width=8", "model.depth=1", "model.members=1", "trainer.max_epochs=20", "data.batch_size=16",
        "trainer.accelerator=cpu", "data.fractions=[0.6,0.2,0.2]",
    )  # fmt: skip
    assert not (tmp_path / "outputs" / "mine" / "rejected.parquet").exists()
    oracle = StructureOracle.load(tmp_path / "outputs" / "mine" / "model.pt")
    cubic = Structure.from_spacegroup("F-43m", Lattice.cubic(5.9), ["Zn", "S"], [[0, 0, 0], [0.25, 0.25, 0.25]])
    found = oracle.predict([cubic, *rows])
    stiff = from_cartesian(found.values["elastic"])[0].reshape(6, 6)
    push = from_cartesian(found.values["piezo"])[0].reshape(3, 6)
    scale = float(stiff.abs().max())
    assert stiff[0, 0].item() == pytest.approx(stiff[1, 1].item(), abs=1e-4 * scale)
    assert stiff[3, 3].item() == pytest.approx(stiff[5, 5].item(), abs=1e-4 * scale)
    assert stiff[:3, 3:].abs().max() < 1e-4 * scale
    assert push[0, 3].item() == pytest.approx(push[2, 5].item(), abs=1e-5) and abs(push[0, 3]) > 1e-4
    push[0, 3] = push[1, 4] = push[2, 5] = 0
    assert push.abs().max() < 1e-5
    bulk = from_cartesian(found.values["elastic"])[1:].reshape(N, 6, 6)[:, :3, :3].mean((1, 2))
    exact = torch.tensor(c11) * 2 / 3
    assert (bulk - exact).abs().mean() < (exact - exact.mean()).abs().mean()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.properties=[]"], "data.properties: name the columns"),
        (["data.properties=[colour]"], "property='colour': not in the data"),
        (["data.properties=[lattice_]"], "not in the data"),
    ],
)
def test_mistakes_are_one_line(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: list[str], message: str,
) -> None:  # fmt: skip
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, tmp_path, f"data.path={table}", "run=x", *arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "outputs" / "x").exists()
