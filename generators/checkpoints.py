"""Model files: plain data and tensors, nothing that could run code."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FORMAT = 1


def save_checkpoint(path: Path, kind: str, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Write under a temporary name, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    torch.save({"format": FORMAT, "kind": kind, "config": dict(config), "state": dict(state)}, temporary)
    temporary.replace(path)


def load_checkpoint(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(config, tensors) of a file that `save_checkpoint` wrote; pickled code is never run.

    Raises:
        ValueError: no such file, truncated, not a raremat checkpoint, of another kind, or too new.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"checkpoint={path}: no such file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, zipfile.BadZipFile, ValueError, KeyError) as error:
        if not zipfile.is_zipfile(path):
            why = "is truncated or not a checkpoint"
        else:
            why = "holds objects other than tensors and plain data" if "weights_only" in str(error) else "is damaged"
        raise ValueError(f"checkpoint={path}: {why}, train again or use the shipped weights") from None
    if not isinstance(content, dict) or not {"format", "kind", "config", "state"} <= set(content):
        raise ValueError(f"checkpoint={path}: is not a raremat model file (those end in .pt, not .ckpt)")
    if content["format"] > FORMAT:
        raise ValueError(f"checkpoint={path}: has format {content['format']}, this raremat reads up to {FORMAT}")
    if content["kind"] != kind:
        raise ValueError(f"checkpoint={path}: holds a {content['kind']} model, a {kind} model is needed")
    return content["config"], content["state"]
