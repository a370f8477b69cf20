"""A network that differs from another by little: low-rank changes of linear layers (Hu et al., LoRA, ICLR 2022).

One network then does two tasks without either forgetting the other, and a file holds both for a tenth more.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

FIRST, SECOND = "first", "second"
Network = TypeVar("Network", bound=nn.Module)


class _Change(nn.Module):
    """Adds ``first @ second`` to a weight; nothing at the start."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.first = nn.Parameter(torch.zeros(rows, rank))
        self.second = nn.Parameter(torch.randn(rank, columns) / columns**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.first @ self.second


def adapt(network: nn.Module, parts: Sequence[str], whole: Sequence[str], rank: int) -> None:
    """Freeze ``network`` but for changes of the given rank in the linear layers of ``parts`` (names of submodules), and
    for all parameters whose name begins with one of ``whole``."""
    network.requires_grad_(False)
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.Linear) and name.startswith(tuple(parts)):
            parametrize.register_parametrization(layer, "weight", _Change(layer.weight, rank))
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(tuple(whole)) or _is_change(name))


def _is_change(name: str) -> bool:
    return ".parametrizations.weight.0." in name


def changes(adapted: nn.Module, whole: Sequence[str]) -> dict[str, Tensor]:
    """What makes ``adapted`` of the network that it was: factors by layer, and the parameters of ``whole``."""
    return {
        name.replace("parametrizations.weight.0.", ""): value.detach()
        for name, value in adapted.named_parameters()
        if _is_change(name) or name.startswith(tuple(whole))
    }


@torch.no_grad()
def changed(network: Network, state: Mapping[str, Tensor]) -> Network:
    """A copy of ``network`` with the `changes` made.

    Raises:
        KeyError, RuntimeError: they are of another network.
    """
    new = copy.deepcopy(network)
    parameters = dict(new.named_parameters())
    for name, value in state.items():
        layer, _, kind = name.rpartition(".")
        if kind == FIRST:
            parameters[f"{layer}.weight"].add_(value.float() @ state[f"{layer}.{SECOND}"].float())
        elif kind != SECOND:
            parameters[name].copy_(value)
    return new
