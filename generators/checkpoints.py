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
REMEDY = "train again, or leave the path out to use the shipped weights"


def save_checkpoint(path: Path, kind: str, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Write under a temporary name, then rename: a file that exists is complete.

    Args:
        path: of the file; its folder is made.
        kind: ``composition`` or ``surrogate``.
        config: plain data (dictionaries, lists, strings, numbers) that describes the model.
        state: its tensors by name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        torch.save({"format": FORMAT, "kind": kind, "config": dict(config), "state": dict(state)}, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(config, tensors) of a file that `save_checkpoint` wrote; pickled code is never run.

    Raises:
        ValueError: no such file, truncated, not a raremat checkpoint, of another kind, or too new.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"checkpoint={path}: no such file")
    if not zipfile.is_zipfile(path):  # the list of a zip's content is at its end: a truncated one has none
        raise ValueError(f"checkpoint={path}: is truncated or not a model file: {REMEDY}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"checkpoint={path}: holds objects other than plain data, they were not loaded: {REMEDY}"
        ) from None
    except Exception as error:  # a damaged file makes torch's reader raise anything
        raise ValueError(f"checkpoint={path}: is damaged ({type(error).__name__}): {REMEDY}") from None
    if not isinstance(content, dict) or not {"format", "kind", "config", "state"} <= set(content):
        raise ValueError(f"checkpoint={path}: is not a raremat model file (those end in .pt, not .ckpt)")
    if not isinstance(content["format"], int) or content["format"] > FORMAT:
        raise ValueError(
            f"checkpoint={path}: format {content['format']}, this raremat reads up to {FORMAT}: update raremat"
        )
    if content["kind"] != kind:
        raise ValueError(f"checkpoint={path}: holds a {content['kind']} model, a {kind} model is needed")
    return content["config"], content["state"]
