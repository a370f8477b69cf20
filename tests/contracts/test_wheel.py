"""What is installed is what is tracked: no file is left out, none slips in."""

from __future__ import annotations

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
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names in a wheel built from a copy of the tracked files."""
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
    return set(zipfile.ZipFile(path).namelist())


def test_the_wheel_holds_the_tracked_files(wheel: set[str]) -> None:
    expected = {f"generators/{path}" if path.startswith("conf/") else path for path in tracked()}
    installed = {name for name in wheel if ".dist-info/" not in name}
    assert installed == expected


def test_it_installs_two_packages_and_two_commands(wheel: set[str]) -> None:
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
