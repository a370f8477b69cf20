"""The console commands: every mistake is one line and exit code 2, with nothing half-written."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from generators import cli
from generators.schema import register

DISORDERED = """data_x
_symmetry_space_group_name_H-M 'P 1'
_cell_length_a 4
_cell_length_b 4
_cell_length_c 4
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
 _atom_site_label
 _atom_site_type_symbol
 _atom_site_fract_x
 _atom_site_fract_y
 _atom_site_fract_z
 _atom_site_occupancy
 Na1 Na 0 0 0 0.5
 Cl1 Cl 0.5 0.5 0.5 1
"""


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)

    def run(command: str, *overrides: str) -> tuple[int, str]:
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", [f"raremat-{command}", *overrides])
        code = 0
        try:
            getattr(cli, command)()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, capsys.readouterr().err

    return run


MISTAKES = [
    (("generate", "target.wish={hardness: [1, 2]}"), "wish.hardness: unknown property"),
    (("generate", "target.wish={formation_energy_per_atom: [2, 1]}"), "is empty"),
    (("generate", "target.allowed_elements=[Na, Xq]"), "'Xq' is not an element"),
    (("generate", "target.prototypes=[perovskit]"), "prototypes='perovskit'"),
    (("generate", "target.allowed_elements=[Na]"), "allow"),
    (("generate", "screening.guidance=-1"), "guidance=-1"),
    (("generate", "screening.gidance=1"), "gidance"),
    (("generate", "target=nonsense"), "nonsense"),
    (("generate", "generator=missing.pt"), "no such file"),
    (("generate", "generator=truncated.pt"), "truncated"),
    (("generate", "generator=pickle.pt"), "checkpoint=pickle.pt"),
    (("generate", "target.prototype_cifs=[disordered.cif]"), "partial occupancy"),
    (("generate", "run=/proc/nowhere/run"), "/proc/nowhere"),
    (("train", "data.path=missing.csv"), "missing.csv"),
    (("train", "data.path=table.csv"), "prototype"),
    (("train", "data.properties=[hardness]"), "hardness"),
    (("train", "model.kind=gan"), "gan"),
    (("train", "trainer.max_epochs=many"), "max_epochs"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(a) for a, _ in MISTAKES])
def test_mistakes_are_one_line_and_exit_2(call, arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "truncated.pt").write_bytes(b"PK\x03\x04 not all of it")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps({"format": 1}))
    (tmp_path / "table.csv").write_text("formula,formation_energy_per_atom\nNaCl,-2.1\n")
    (tmp_path / "disordered.cif").write_text(DISORDERED)
    code, error = call(*arguments, *(("logger=none",) if "logger" not in arguments[-1] else ()))
    lines = [line for line in error.splitlines() if line.startswith("raremat: ")]
    assert code == 2, error
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in error
    written = [p for p in tmp_path.rglob("*") if p.suffix in {".parquet", ".json", ".html", ".ckpt"}]
    assert not written


@pytest.mark.parametrize("root", ["train", "generate"])
def test_every_choice_of_every_group_composes(root: str) -> None:
    register()
    GlobalHydra.instance().clear()
    conf = Path(__file__).parents[2] / "conf"
    groups = {
        "train": ("data", "model", "trainer", "logger"),
        "generate": ("target", "oracle", "screening", "logger"),
    }[root]
    with initialize_config_module("generators.conf", version_base="1.3"):
        for group in groups:
            for choice in sorted((conf / group).glob("*.yaml")):
                config = compose(root, [f"{group}={choice.stem}"])
                OmegaConf.to_object(config)
        experiments = {"train": ("decorations", "surrogate"), "generate": ("demo",)}[root]
        for experiment in experiments:
            assert OmegaConf.to_object(compose(root, [f"experiment={experiment}"])).run  # type: ignore[union-attr]
    assert len((conf / f"{root}.yaml").read_text().splitlines()) <= 25
