"""Fit, test, export: one training run that a kill does not lose."""

from __future__ import annotations

import logging
import time
import zipfile
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar

from data.sources.rows import write_rejected
from generators.build import build_logger, build_training
from generators.checkpoints import save_checkpoint
from generators.manifest import claim_folder, write_json
from generators.schema import TrainConfig

log = logging.getLogger(__name__)
MAY_DIFFER = ("logger.", "trainer.accelerator", "trainer.devices", "trainer.strategy", "export")


def last_checkpoint(folder: Path) -> Path | None:
    """Newest checkpoint that is a complete file, or None."""
    found = sorted(folder.glob("*.ckpt"), key=lambda p: p.stat().st_mtime, reverse=True)
    return next((path for path in found if zipfile.is_zipfile(path)), None)


def train(config: TrainConfig, plain: dict[str, Any], folder: Path) -> dict[str, float]:
    """Train, or go on where a killed run stopped; writes ``model.pt`` and ``metrics.json``.

    Args:
        config: typed configuration.
        plain: the same as plain data, for the manifest.
        folder: the run folder.

    Returns:
        The metrics of the test part.
    """
    start = time.perf_counter()
    data, module, rejected = build_training(config)
    files = {"data": Path(config.data.path)} if config.data.path else {}
    claim_folder(folder, plain, files, MAY_DIFFER)
    if rejected:
        write_rejected(rejected, folder / "rejected.parquet")
        log.warning("%d rows set aside, see %s", len(rejected), folder / "rejected.parquet")
    checkpoints = folder / "checkpoints"
    resume = last_checkpoint(checkpoints)
    if resume is not None:
        log.warning("going on from %s", resume)
    settings = config.trainer
    trainer = pl.Trainer(
        default_root_dir=str(folder),
        max_epochs=settings.max_epochs,
        accelerator=settings.accelerator,
        devices=int(settings.devices) if settings.devices.isdigit() else settings.devices,
        strategy=settings.strategy,
        precision=settings.precision,  # type: ignore[arg-type]
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
            TQDMProgressBar(refresh_rate=10),
        ],
        enable_model_summary=False,
        log_every_n_steps=10,
    )  # fmt: skip
    trainer.fit(module, data, ckpt_path=str(resume) if resume else None, weights_only=True)
    trainer.validate(module, data, verbose=False)
    tested = trainer.test(module, data, verbose=False)
    metrics = {name: float(value) for name, value in tested[0].items()}
    metrics["seconds"] = round(time.perf_counter() - start, 1)
    model_path = Path(config.export) if config.export else folder / "model.pt"
    if trainer.is_global_zero:
        exported, state = module.export()  # type: ignore[operator]
        save_checkpoint(model_path, config.model.kind, exported, state)
        write_json(folder / "metrics.json", metrics)
    return metrics
