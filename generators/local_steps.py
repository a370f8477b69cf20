"""Processes of one training that average their weights now and then, in place of their gradients in every step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel


class LocalSteps(Callback):
    """Every process goes its own way for ``every`` steps, then all go on from the mean of their weights.

    Local SGD (Stich, ICLR 2019; Lin et al., ICLR 2020): nobody waits for the slowest in every step. At the end of a
    pass the optimizers' moments are averaged too, so that what is validated and kept is that of all processes.
    """

    def __init__(self, every: int) -> None:
        self.every = every

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """From now on gradients stay where they are.

        Raises:
            ValueError: processes that share their work in another way.
        """
        if trainer.world_size == 1:
            return
        if not isinstance(trainer.strategy.model, DistributedDataParallel):
            raise ValueError(f"trainer.local_steps={self.every}: several processes need trainer.strategy=ddp")
        trainer.strategy.model.require_backward_grad_sync = False

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        """Average, where it is time; a module's own moving average of the weights takes its step afterwards."""
        if trainer.world_size == 1:
            return
        if trainer.is_last_batch or trainer.global_step % self.every == 0:
            average(module.parameters())
        if trainer.is_last_batch:
            moments = [x for optimizer in trainer.optimizers for s in optimizer.state.values() for x in s.values()]
            average(x for x in moments if torch.is_tensor(x) and x.ndim > 0)  # steps are counted in scalars


@torch.no_grad()
def average(tensors: Iterable[Tensor]) -> None:
    """Replace tensors of one type by their means over all processes, in one exchange."""
    parts = list(tensors)
    whole = torch.cat([part.flatten() for part in parts])
    dist.all_reduce(whole)
    whole /= dist.get_world_size()
    for part, mean in zip(parts, whole.split([part.numel() for part in parts]), strict=True):
        part.copy_(mean.view_as(part))
