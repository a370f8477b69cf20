"""The console commands: every mistake is one line and exit code 2, with nothing half-written."""

from __future__ import annotations

import pickle
import re
import shlex
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
    (("generate", "run=../outside"), "run=../outside"),
    (("generate", "screening.pool=10"), "screening.pool=10"),
    (("generate", "screening.rounds=3"), "screening.rounds=3: is for whole crystals"),
    (("generate", "screening.hull=all"), "screening.hull=all: use one of embedded, known"),
    (("generate", "screening.exchange=2"), "screening.exchange=2.0: must lie between 0 and 1"),
    (("generate", "screening.judge_calls=0"), "judge_calls=0: must be at least 1"),
    (("generate", "task=nonsense"), "task=nonsense: no such option, choose from crystals, decorations"),
    (("train", "data.path=missing.csv"), "missing.csv"),
    (("train", "data.path=table.csv"), "prototype"),
    (("train", "data.properties=[hardness]"), "hardness"),
    (("train", "model.kind=gan"), "gan"),
    (("train", "data.fractions=[0.5,0.5]"), "data.fractions"),
    (("train", "trainer.max_epochs=many"), "max_epochs"),
    (("train", "trainer.max_epochs=-1"), "trainer.max_epochs=-1: must be at least 1"),
    (("train", "logger.name=paper"), "logger.name=paper"),
    (("train", "model=gan"), "model=gan: no such option, choose from composition, crystal, structure, surrogate"),
    (("train", "model.widht=3"), "model.widht: no such key, there are kind, width"),
    (("train", "seed=-1"), "seed=-1"),
    (("train", "data.tensor_frame=lab"), "data.tensor_frame=lab: use one of structure, ieee"),
    (("train", "trainer.local_steps=0"), "trainer.local_steps=0: must be at least 1"),
    (("train", "data.chosen_share=2"), "data.chosen_share=2.0: must lie in [0, 1]"),
    (("train", "experiment"), "experiment"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(a) for a, _ in MISTAKES])
def test_mistakes_are_one_line_and_exit_2(call, arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "truncated.pt").write_bytes(b"PK\x03\x04 not all of it")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps({"format": 1}))
    (tmp_path / "table.csv").write_text("formula,formation_energy_per_atom\nNaCl,-2.1\n")
    (tmp_path / "disordered.cif").write_text(DISORDERED)
    wish = ("target=lowest_formation_energy",) if arguments[0] == "generate" and "target=" not in arguments[1] else ()
    code, error = call(*arguments, "logger=none", *wish)
    lines = [line for line in error.splitlines() if line.startswith("raremat: ")]
    assert code == 2, error
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in error
    written = [p for p in tmp_path.rglob("*") if p.suffix in {".parquet", ".json", ".html", ".ckpt"}]
    assert not written


def test_a_command_without_a_wish_says_how_to_write_one(call) -> None:  # type: ignore[no-untyped-def]
    code, error = call("generate", "logger=none")
    assert code == 2
    assert error.startswith("raremat: target.wish=None: write what you wish for")


def test_our_own_errors_keep_their_traceback(call, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("generators.train.train", broken)
    with pytest.raises(ZeroDivisionError):
        call("train")


@pytest.mark.parametrize(
    "override", ["target.wish={bulk_modulus: [250, null]}", "target.wish.bulk_modulus=[250, null]"]
)
def test_a_wish_on_the_command_line(override: str) -> None:
    """It is taken without a target, replaces that of a target, and adds to it when one property is named."""
    register()
    GlobalHydra.instance().clear()
    with initialize_config_module("generators.conf", version_base="1.3"):
        alone = compose("generate", cli.command_line([override]))
        beside = compose("generate", cli.command_line(["experiment=demo", override]))
    asked = {"bulk_modulus": [250, None]}
    before = {"formation_energy_per_atom": "lowest 1 %"}
    assert OmegaConf.to_container(alone.target.wish) == asked
    expected = asked if override.startswith("target.wish=") else {**before, **asked}
    assert OmegaConf.to_container(beside.target.wish) == expected


def test_experiments_of_whole_crystals_choose_their_task() -> None:
    register()
    GlobalHydra.instance().clear()
    with initialize_config_module("generators.conf", version_base="1.3"):
        config = compose("generate", ["experiment=rounds"])
        exchanges = compose("generate", ["experiment=exchanges"])
    assert (config.task.kind, config.screening.rounds, config.screening.guidance) == ("crystals", 18, 3.0)
    assert (exchanges.task.kind, exchanges.task.exchange, exchanges.task.within_groups) == ("crystals", 1, True)
    assert list(exchanges.task.seed_structures) == ["chosen"]


def test_nothing_in_the_configuration_is_imported() -> None:
    """Configuration is data: no file names a class to import, so no user's file can."""
    conf = Path(__file__).parents[2] / "conf"
    assert not [path for path in conf.rglob("*.yaml") if "_target_" in path.read_text()]


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
        experiments = {"train": ("decorations", "surrogate"), "generate": ("demo", "rounds")}[root]
        for experiment in experiments:
            assert OmegaConf.to_object(compose(root, [f"experiment={experiment}"])).run  # type: ignore[union-attr]
    assert len((conf / f"{root}.yaml").read_text().splitlines()) <= 25


def documented_commands() -> list[tuple[str, list[str]]]:
    """(command, overrides) of every example in the README and the docs."""
    root = Path(__file__).parents[2]
    found = []
    for path in (root / "README.md", *sorted((root / "docs").glob("*.md"))):
        for block in re.findall(r"```(?:bash|text)\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                command = line.removeprefix("$ ")
                if command.startswith("raremat-"):  # what the commands print may hold apostrophes
                    words = shlex.split(command, comments=True)
                    found.append((words[0].removeprefix("raremat-"), [w for w in words[1:] if "=" in w]))
    return found


def test_every_documented_command_composes() -> None:
    register()
    GlobalHydra.instance().clear()
    commands = documented_commands()
    assert {name for name, _ in commands} == {"train", "generate", "evaluate", "campaign"}
    assert len(commands) > 20
    with initialize_config_module("generators.conf", version_base="1.3"):
        for name, overrides in commands:
            OmegaConf.to_object(compose(name, overrides))


def test_a_generator_of_ones_own_table_is_told_so_by_the_key_of_training() -> None:
    register()
    GlobalHydra.instance().clear()
    with initialize_config_module("generators.conf", version_base="1.3"):
        config = OmegaConf.to_object(compose("generate", ["run=x", "data.path=mine.csv"]))
    assert config.data.path == "mine.csv"  # type: ignore[union-attr]
