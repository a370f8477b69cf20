"""Weights & Biases: offline unless the user is logged in, and never a question."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from data.dataset import CrystalDataset
from generators.screening.baselines import SOURCES
from generators.wish import Wish

TABLE_ROWS = 200


def wandb_mode() -> str:
    """The user's WANDB_MODE, else online with a key, else offline."""
    if "WANDB_MODE" in os.environ:
        return os.environ["WANDB_MODE"]
    if os.environ.get("WANDB_API_KEY"):
        return "online"
    netrc = Path.home() / ".netrc"
    try:
        logged_in = netrc.is_file() and "api.wandb.ai" in netrc.read_text(encoding="utf-8")
    except OSError:
        logged_in = False
    return "online" if logged_in else "offline"


def wandb_logger(folder: Path, project: str, run: str) -> Any:
    """Lightning's WandbLogger, writing below ``folder``."""
    from pytorch_lightning.loggers import WandbLogger

    os.environ.setdefault("WANDB_SILENT", "true")
    offline = wandb_mode() == "offline"
    return WandbLogger(name=run, project=project, save_dir=str(folder), offline=offline, log_model=False)


def log_answer(folder: Path, project: str, run: str, answer: Any, training: CrystalDataset, wish: Wish) -> None:
    """Summary, candidate table and the report's figures of one ``raremat-generate`` run."""
    import wandb

    from generators.report.html import report_figures

    os.environ.setdefault("WANDB_SILENT", "true")
    mode: Any = wandb_mode()
    with wandb.init(
        project=project, name=run, dir=str(folder), mode=mode, job_type="generate",
        config={"wish": wish.describe()}, settings=wandb.Settings(console="off"),
    ) as session:  # fmt: skip
        for source in SOURCES:
            if source in answer.summary:
                for key in ("judge_calls", "hits", "hits_per_call"):
                    session.summary[f"{source}/{key}"] = answer.summary[source][key]
        for stage in answer.summary["funnel"]:
            session.summary[f"funnel/{stage['stage']}"] = stage["out"]
        columns = [
            "rank", "id", "formula", "prototype", "space_group", "hit", "charge_balanced",
            *(name for n in wish.intervals for name in (n, f"{n}_surrogate", f"{n}_surrogate_std")),
        ]  # fmt: skip
        shown = answer.candidates[columns].head(TABLE_ROWS)
        session.log(
            {
                "candidates": wandb.Table(columns=columns, data=shown.values.tolist()),
                **{
                    f"figures/{title}": wandb.Plotly(figure)
                    for title, figure in report_figures(answer, training, wish).items()
                },
            }
        )


def log_crystals(folder: Path, project: str, run: str, answer: Any, wish: Wish) -> None:
    """Summary, candidate table and the report's figures of one run of whole crystals."""
    import wandb

    from generators.report.crystals import crystal_figures

    os.environ.setdefault("WANDB_SILENT", "true")
    mode: Any = wandb_mode()
    with wandb.init(
        project=project, name=run, dir=str(folder), mode=mode, job_type="generate",
        config={"wish": answer.summary["wish_text"], "task": answer.summary["task"]},
        settings=wandb.Settings(console="off"),
    ) as session:  # fmt: skip
        for key, value in answer.summary.get("raremat", {}).items():
            session.summary[f"raremat/{key}"] = value
        for stage in answer.summary["funnel"]:
            session.summary[f"funnel/{stage['stage']}"] = stage["out"]
        names = ["rank", "id", "formula", "protostructure", "space_group", "hit", "e_above_hull", *wish.intervals]
        columns = [name for name in dict.fromkeys(names) if name in answer.candidates]
        shown = answer.candidates[columns].head(TABLE_ROWS)
        session.log(
            {
                "candidates": wandb.Table(columns=columns, data=shown.values.tolist()),
                **{f"figures/{t}": wandb.Plotly(figure) for t, figure in crystal_figures(answer, wish).items()},
            }
        )
