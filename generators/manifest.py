"""A run's folder: who made it, with what, and whether the same command may go on in it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "raremat", "torch", "pytorch-lightning", "torch-geometric", "pymatgen", "hydra-core", "wandb", "chgnet",
    "moyopy", "smact", "numpy",
)  # fmt: skip


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write under a temporary name, then rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def file_hash(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` -> ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def claim_folder(
    folder: Path, config: Mapping[str, Any], files: Mapping[str, Path], may_differ: tuple[str, ...] = ()
) -> Path:
    """Create the run folder, or go on in one that the same command made; writes ``manifest.json``.

    Args:
        folder: the run folder.
        config: the whole configuration, plain data.
        files: input files whose hashes belong into the manifest.
        may_differ: dotted keys that do not change results (workers, logger, ...), or prefixes ending in a dot.

    Raises:
        ValueError: the folder cannot be written, or holds a run with another configuration.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-test-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"run={folder}: cannot be written ({error.strerror}), choose another folder") from None
    content: dict[str, Any] = {
        "config": dict(config),
        "files": {name: file_hash(path) for name, path in files.items()},
        "versions": _versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
    }
    path = folder / "manifest.json"
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        old = {**flatten(before["config"]), **{f"files.{k}": v for k, v in before["files"].items()}}
        new = {**flatten(content["config"]), **{f"files.{k}": v for k, v in content["files"].items()}}
        changed = [
            key
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key) and not any(key == m or key.startswith(m) for m in may_differ)
        ]
        if changed:
            key = changed[0]
            raise ValueError(
                f"run={folder}: holds a run with {key}={old.get(key)!r}, now it is {new.get(key)!r}: "
                "choose another run=NAME, or remove the folder"
            )
    write_json(path, content)
    return folder
