"""Console commands. A user's mistake is one line on standard error and exit code 2."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from generators.schema import register

CONFIG_PATH = "pkg://generators.conf"


def _quiet() -> None:
    """Messages of the libraries below that tell a user nothing."""
    warnings.filterwarnings("ignore")
    for name in ("moyopy", "moyo", "moyo.dataset", "chgnet", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _run_folder() -> Path:
    return Path(HydraConfig.get().runtime.output_dir)


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="train")
def _train(config: DictConfig) -> None:
    from generators.train import train

    typed: Any = OmegaConf.to_object(config)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    folder = _run_folder()
    metrics = train(typed, plain, folder)
    for name, value in sorted(metrics.items()):
        print(f"{name:45s}{value:12.4f}")
    print(f"model: {typed.export or folder / 'model.pt'}")


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="generate")
def _generate(config: DictConfig) -> None:
    from generators.answer import answer

    typed: Any = OmegaConf.to_object(config)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    folder = _run_folder()
    print(answer(typed, plain, folder))


def _user_error(error: BaseException) -> str | None:
    """One line for mistakes of the user; None for what is ours."""
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        key = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key:")), "")
        text = lines[0] if lines else type(error).__name__
        return f"{key}: {text}" if key and key not in text else text
    if isinstance(error, (ValueError, FileNotFoundError, PermissionError, NotADirectoryError)):
        return " ".join(str(error).split())
    return None


def _guarded(command: Callable[[], None]) -> None:
    register()
    _quiet()
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # let exceptions through to the lines below
    try:
        command()
    except KeyboardInterrupt:
        print("raremat: stopped; the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        line = _user_error(error)
        if line is None or os.environ.get("RAREMAT_DEBUG"):
            raise
        print(f"raremat: {line}", file=sys.stderr)
        raise SystemExit(2) from None


def train() -> None:
    """``raremat-train``."""
    _guarded(_train)


def generate() -> None:
    """``raremat-generate``."""
    _guarded(_generate)
