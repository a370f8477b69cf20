"""What is installed is what is tracked: no file is left out, none slips in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD_FILES = ("pyproject.toml", "README.md", "LICENSE")


def tracked() -> set[str]:
    """Paths below data, generators and conf that git knows or would add."""
    command = [
        "git",
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
        "data",
        "generators",
        "conf",
    ]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return {path for path in done.stdout.split("\0") if path and (ROOT / path).is_file()}


@pytest.fixture(scope="module")
def wheel_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the tracked files."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in [*tracked(), *BUILD_FILES]:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(folder),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    assert path.name.startswith("raremat-0.1.0-py3-none-any")
    return path


@pytest.fixture(scope="module")
def wheel(wheel_file: Path) -> set[str]:
    """Names in the wheel."""
    return set(zipfile.ZipFile(wheel_file).namelist())


def test_the_wheel_holds_the_tracked_files(wheel: set[str]) -> None:
    expected = {f"generators/{path}" if path.startswith("conf/") else path for path in tracked()}
    installed = {name for name in wheel if ".dist-info/" not in name}
    assert installed == expected


@pytest.mark.slow
def test_the_installed_commands_work_from_another_folder(wheel_file: Path, tmp_path: Path) -> None:
    """Unpacked as pip does it, no checkout near: every command answers, and a small run leaves its files."""
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    zipfile.ZipFile(wheel_file).extractall(site)
    entry_points = next(site.glob("*.dist-info/entry_points.txt")).read_text()
    crystal = "from pymatgen.core import Structure, Lattice\nStructure.from_spacegroup('Fm-3m', Lattice.cubic(5.6), "
    crystal += "['Na', 'Cl'], [[0, 0, 0], [0.5, 0.5, 0.5]]).to('salt.cif')\n"

    def call(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        module, _, function = f"generators.cli:{command}".partition(":")
        assert f"raremat-{command} = {module}:{function}" in entry_points
        program = (
            f"import sys, generators\nassert generators.__file__.startswith({str(site)!r}), generators.__file__\n"
            f"{crystal}sys.argv = ['raremat-{command}', *{list(arguments)!r}]\n"
            f"from {module} import {function}\nif __name__ == '__main__': {function}()\n"
        )
        (elsewhere / "program.py").write_text(program)
        return subprocess.run(
            [sys.executable, "program.py"], cwd=elsewhere, capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    for command in ("train", "generate", "evaluate"):
        shown = call(command, "--help")
        assert shown.returncode == 0, shown.stderr
        assert f"raremat-{command}" in shown.stdout
    done = call("evaluate", "salt.cif", "relax=none", "run=out")
    assert done.returncode == 0, done.stderr
    assert (elsewhere / "outputs" / "out" / "metrics.json").is_file()
    wrong = call("generate", "target.wish={hardness: [1, 2]}")
    assert wrong.returncode == 2 and "wish.hardness: unknown property" in wrong.stderr


def test_it_installs_two_packages_and_three_commands(wheel: set[str]) -> None:
    names = {name.split("/")[0] for name in wheel}
    assert {name for name in names if not name.endswith(".dist-info")} == {"data", "generators"}
    assert {"data/py.typed", "generators/py.typed", "generators/conf/train.yaml"} <= wheel
    assert {"generators/weights/composition.pt", "generators/weights/surrogate.pt"} <= wheel
    assert any(name.endswith("licenses/LICENSE") for name in wheel)
    assert any(name.endswith("entry_points.txt") for name in wheel)


def test_every_pin_is_exact_and_every_requirement_is_pinned() -> None:
    lines = [x for x in (ROOT / "constraints.txt").read_text().splitlines() if x and not x.startswith("#")]
    assert lines[0] == "torch==2.13.0"
    pins = {}
    for line in lines:
        name, _, number = line.partition("==")
        assert number, line
        assert "+" not in number, f"{line}: a local build is on nobody else's index"
        pins[name.lower().replace("_", "-")] = number
    assert not [name for name in pins if name.startswith("nvidia-") and name != "nvidia-ml-py3"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {text.split(">")[0].split("=")[0].strip().lower().replace("_", "-") for text in wanted}
    assert names <= pins.keys(), names - pins.keys()
