"""Console commands. A user's mistake is one line on standard error and exit code 2."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from generators.schema import register

CONFIG_PATH = "pkg://generators.conf"
RUN_NAME = re.compile(r"[\w+=,-][\w.+=,-]*(/[\w+=,-][\w.+=,-]*)*")
USER_ERRORS = (
    ValueError,
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    NotADirectoryError,
    IsADirectoryError,
)


def _quiet() -> None:
    """Messages of the libraries below that tell a user nothing."""
    warnings.filterwarnings("ignore")
    for name in ("moyopy", "moyo", "moyo.dataset", "chgnet", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _run(config: DictConfig, work: Callable[[Any, dict[str, Any], Path], str]) -> None:
    """Call ``work`` with the typed and the plain configuration and the run folder; print what it returns."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    with _one_line_errors():
        try:
            if RUN_NAME.fullmatch(config.run) is None:
                raise ValueError(f"run={config.run}: use letters, digits, - and _, it names a folder in outputs")
            typed: Any = OmegaConf.to_object(config)
            plain: Any = OmegaConf.to_container(config, resolve=True)
            print(work(typed, plain, folder))
        finally:
            with contextlib.suppress(OSError):  # Hydra makes the folder before anything can be checked
                folder.rmdir()


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="train")
def _train(config: DictConfig) -> None:
    def work(typed: Any, plain: dict[str, Any], folder: Path) -> str:
        from generators.train import train

        metrics = train(typed, plain, folder)
        lines = [f"{name:45s}{value:12.4f}" for name, value in sorted(metrics.items())]
        return "\n".join([*lines, f"model: {typed.export or folder / 'model.pt'}"])

    _run(config, work)


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="generate")
def _generate(config: DictConfig) -> None:
    def work(typed: Any, plain: dict[str, Any], folder: Path) -> str:
        from data.workers import expect_workers

        expect_workers()
        if typed.task.kind == "crystals":
            from generators.crystals.answer import answer_crystals

            return answer_crystals(typed, plain, folder)
        if not isinstance(typed.target.wish, dict) or not typed.target.wish:
            raise ValueError(
                f"target.wish={typed.target.wish}: write what you wish for, such as "
                "'target.wish={bulk_modulus: [250, null]}', or choose one with target=NAME (see --help)"
            )
        from generators.answer import answer

        return answer(typed, plain, folder)

    _run(config, work)


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="evaluate")
def _evaluate(config: DictConfig) -> None:
    def work(typed: Any, plain: dict[str, Any], folder: Path) -> str:
        from generators.evaluation.command import evaluate_command

        return evaluate_command(typed, plain, folder)

    _run(config, work)


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name="campaign")
def _campaign(config: DictConfig) -> None:
    def work(typed: Any, plain: dict[str, Any], folder: Path) -> str:
        from generators.campaign_command import campaign_command

        return campaign_command(typed, plain, folder)

    _run(config, work)


def _config_error(error: BaseException) -> str:
    """One line for an error of Hydra or OmegaConf."""
    if isinstance(error, MissingConfigException) and error.options is not None and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={name}: no such option, choose from {', '.join(sorted(error.options))}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    inner = error.__cause__ or error.__context__
    where = re.match(r"In '([^']+)'", lines[0]) if lines else None
    if not isinstance(error, OmegaConfBaseException) and isinstance(inner, OmegaConfBaseException):
        error = inner
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    elif where is None and len(lines) > 1 and not isinstance(error, OmegaConfBaseException):
        lines = [": ".join(line for line in lines if not line.startswith("See http"))]
    text = lines[0] if lines else type(error).__name__
    key = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key:")), "")
    kind = getattr(error, "object_type", None)
    if key and text.startswith("Key ") and isinstance(kind, type) and is_dataclass(kind):
        text = f"no such key, there are {', '.join(field.name for field in fields(kind))}"
    if where is not None and error is inner:
        text = f"{text} (in {where[1]}.yaml)"
    return f"{key}: {text}" if key else text


def _user_error(error: BaseException) -> str | None:
    """One line for mistakes of the user; None for what is ours."""
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return _config_error(error)
    if isinstance(error, USER_ERRORS):
        if isinstance(error, OSError) and error.filename is not None:
            return f"{error.filename}: {error.strerror}"
        return " ".join(str(error).split())
    if type(error).__name__ == "MisconfigurationException":  # Lightning's; importing it takes seconds
        return "trainer: " + " ".join(str(error).split())
    return None


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print("raremat: stopped, the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        line = _user_error(error)
        if line is None or os.environ.get("RAREMAT_DEBUG"):
            raise
        print(f"raremat: {line}", file=sys.stderr)
        raise SystemExit(2) from None


def command_line(arguments: Sequence[str]) -> list[str]:
    """Let a wish on the command line replace the one of a target or experiment; Hydra would merge the two.

    >>> command_line(["experiment=demo", "target.wish={band_gap: [1, 2]}"])
    ['experiment=demo', 'target.wish=null', 'target.wish={band_gap: [1, 2]}']
    """
    result = []
    for argument in arguments:
        if argument.startswith("target.wish="):
            result.append("target.wish=null")
        result.append(f"++{argument}" if argument.startswith("target.wish.") else argument)
    return result


def _guarded(command: Callable[[], None]) -> None:
    register()
    _quiet()
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # lets exceptions through to the lines above
    sys.argv[1:] = command_line(sys.argv[1:])
    with _one_line_errors():
        command()


def train() -> None:
    """``raremat-train``."""
    _guarded(_train)


def generate() -> None:
    """``raremat-generate``."""
    _guarded(_generate)


def evaluate() -> None:
    """``raremat-evaluate PATH``: the path may be given without ``path=``."""
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-") and "=" not in sys.argv[1]:
        path = sys.argv[1].replace("'", "\\'")
        sys.argv[1] = f"path='{path}'"
    _guarded(_evaluate)


def campaign() -> None:
    """``raremat-campaign``."""
    _guarded(_campaign)
