"""The optimizer that both ensembles are trained with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytorch_lightning as pl
import torch


def one_cycle(
    trainer: pl.Trainer, parameters: Iterable[torch.nn.Parameter], learning_rate: float, weight_decay: float
) -> Any:
    """AdamW on a one-cycle schedule (Smith and Topin, 2019) over all steps of ``trainer``, for Lightning."""
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)
    steps = max(int(trainer.estimated_stepping_batches), 10)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, steps, pct_start=0.1)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
