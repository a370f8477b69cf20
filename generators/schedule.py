"""How models are trained: optimizers, schedules, averaged weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

LEAST_STEPS = 20
"""Of a one-cycle schedule: with 10 its rise has no length, and a very small table has a single step."""


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warm-up and cosine decay, and an exponential moving average of the weights."""

    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_steps: int = 200
    ema_decay: float = 0.999
    unconditional: float = 0.15


def warmed_cosine(
    trainer: pl.Trainer,
    parameters: Iterable[torch.nn.Parameter],
    config: OptimizerConfig,
    betas: tuple[float, float] = (0.9, 0.999),
    fused: bool = False,
) -> Any:
    """AdamW whose learning rate warms up and then follows a cosine to zero at the last step, for Lightning."""
    optimizer = torch.optim.AdamW(
        parameters, lr=config.learning_rate, weight_decay=config.weight_decay, betas=betas, fused=fused
    )
    total = max(int(trainer.estimated_stepping_batches), config.warmup_steps + 1)

    def factor(step: int) -> float:
        if step < config.warmup_steps:
            return (step + 1) / config.warmup_steps
        progress = (step - config.warmup_steps) / (total - config.warmup_steps)
        return float(0.5 * (1 + torch.cos(torch.tensor(min(progress, 1.0) * torch.pi))))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


@torch.no_grad()
def move_average(averaged: torch.nn.Module, model: torch.nn.Module, step: int, decay: float) -> None:
    """Move averaged weights towards the model's; early steps forget faster."""
    decay = min(decay, (1 + step) / (10 + step))
    get_ema_multi_avg_fn(decay)(list(averaged.parameters()), list(model.parameters()), step)


def one_cycle(
    trainer: pl.Trainer, parameters: Iterable[torch.nn.Parameter], learning_rate: float, weight_decay: float
) -> Any:
    """AdamW on a one-cycle schedule (Smith and Topin, 2019) over all steps of ``trainer``, for Lightning."""
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)
    steps = max(int(trainer.estimated_stepping_batches), LEAST_STEPS)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, steps, pct_start=0.1)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
