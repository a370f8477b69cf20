"""Fit, test, export: one training run that a kill does not lose."""

from __future__ import annotations

import json
import logging
import signal
import zipfile
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, Timer, TQDMProgressBar
from pytorch_lightning.loggers import WandbLogger

from data.sources.rows import write_rejected
from generators.build import build_logger, build_training
from generators.checkpoints import save_checkpoint
from generators.local_steps import LocalSteps
from generators.manifest import claim_folder, write_json
from generators.model_card import write_card
from generators.precision import fast_bfloat16
from generators.schema import TrainConfig

log = logging.getLogger(__name__)
MAY_DIFFER = ("logger.", "trainer.accelerator", "trainer.devices", "trainer.strategy", "export")


def last_checkpoint(folder: Path) -> Path | None:
    """Newest checkpoint that is a complete file, or None."""
    found = sorted(folder.glob("*.ckpt"), key=lambda p: p.stat().st_mtime, reverse=True)
    return next((path for path in found if zipfile.is_zipfile(path)), None)


def trainer_precision(wanted: str) -> str:
    """Lightning's name of the precision; ``auto`` is bf16-mixed where that is fast (graphics cards, some processors),
    else single precision."""
    if wanted != "auto":
        return wanted
    return "bf16-mixed" if torch.cuda.is_available() or fast_bfloat16() else "32-true"


class SeedSteps(Callback):
    """Dropout draws from torch's own generator: seeded per step, a resumed run equals an uninterrupted one."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Seed from (seed, step, rank)."""
        torch.manual_seed((self.seed * 1_000_003 + trainer.global_step) * 1_009 + trainer.global_rank)


class EndTogether(Callback):
    """A terminated run of several processes ends at once: by default they wait for each other for ever.

    https://github.com/Lightning-AI/pytorch-lightning/issues/20806
    """

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Leave the signal to the system, unless others than Lightning started the processes."""
        environment = getattr(trainer.strategy, "cluster_environment", None)
        if trainer.world_size > 1 and isinstance(environment, LightningEnvironment):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def train(config: TrainConfig, plain: dict[str, Any], folder: Path) -> dict[str, float]:
    """Train, or go on where a killed run stopped; writes ``model.pt`` and ``metrics.json``.

    Args:
        config: typed configuration.
        plain: the same as plain data, for the manifest.
        folder: the run folder.

    Returns:
        The metrics of the test part, and the ``seconds`` of training.
    """
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")  # TF32
    timer = Timer()  # kept in the checkpoints: counts what came before a kill too
    data, module, rejected = build_training(config)
    checkpoints = folder / "checkpoints"
    settings = config.trainer
    trainer = pl.Trainer(
        default_root_dir=str(folder),
        max_epochs=settings.max_epochs,
        accelerator=settings.accelerator,
        devices=int(settings.devices) if settings.devices.isdigit() else settings.devices,
        strategy=settings.strategy,
        precision=trainer_precision(settings.precision),  # type: ignore[arg-type]
        gradient_clip_val=settings.gradient_clip_val,
        check_val_every_n_epoch=settings.check_val_every_n_epoch,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        logger=build_logger(config.logger.name, config.logger.project, folder, config.run),
        callbacks=[
            ModelCheckpoint(
                dirpath=str(checkpoints), filename="epoch-{epoch:04d}", auto_insert_metric_name=False,
                monitor="epoch", mode="max", save_top_k=2, every_n_epochs=1, save_on_train_epoch_end=True,
            ),
            SeedSteps(config.seed),
            EndTogether(),
            *([LocalSteps(settings.local_steps)] if settings.local_steps > 1 else []),
            timer,
            TQDMProgressBar(refresh_rate=10),
        ],
        enable_model_summary=False,
        log_every_n_steps=10,
    )  # fmt: skip
    files = {"data": Path(config.data.path)} if config.data.path else {}
    claim_folder(folder, plain, files, MAY_DIFFER)
    model_path, result = Path(config.export) if config.export else folder / "model.pt", folder / "metrics.json"
    if model_path.exists() and result.exists():
        log.warning("%s: finished before, nothing to do", folder)
        return dict(json.loads(result.read_text(encoding="utf-8")))
    if rejected:
        write_rejected(rejected, folder / "rejected.parquet")
        log.warning("%d rows set aside, see %s", len(rejected), folder / "rejected.parquet")
    resume = last_checkpoint(checkpoints)
    if resume is not None:
        log.warning("going on from %s", resume)
    trainer.fit(module, data, ckpt_path=str(resume) if resume else None, weights_only=True)
    trainer.validate(module, data, verbose=False)
    tested = trainer.test(module, data, verbose=False)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()  # writes out what is still buffered
    metrics = {name: float(value) for name, value in tested[0].items()}
    metrics["seconds"] = round(timer.time_elapsed("train"), 1)
    if trainer.is_global_zero:
        exported, state = module.export()  # type: ignore[operator]
        save_checkpoint(model_path, config.model.kind, exported, state)
        write_card(
            model_path.with_suffix(".md"),
            config.model.kind,
            f"raremat-train {' '.join(HydraConfig.get().overrides.task)}" if HydraConfig.initialized() else "",
            config.data.path or "the embedded decorations",
            {part: len(rows) for part, rows in data.rows.items()},
            exported_names(exported),
            exported["known_elements"],
            [s["name"] for s in exported["scales"]] if "scales" in exported else exported["properties"],
            sum(v.numel() for k, v in state.items() if "scales" not in k),
            metrics,
        )
        write_json(result, metrics)
    return metrics


def exported_names(exported: dict[str, Any]) -> list[str]:
    """Names of the prototypes in an exported configuration."""
    return [str(row["name"]) for row in exported["prototypes"]]
