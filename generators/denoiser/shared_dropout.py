"""Dropout that is quick on a processor."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class SharedDropout(nn.Dropout):
    """Drops a feature in all orbits of a crystal at once (Gal & Ghahramani, NeurIPS 2016).

    To draw a mask for every orbit takes a processor longer than all else that a block does.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x [B, K, features]."""
        if not (self.training and self.p):
            return x
        return F.dropout1d(x.transpose(1, 2), self.p).transpose(1, 2)
