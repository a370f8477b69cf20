"""A learner as plain data and tensors, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from generators.module import CompositionDiffusion
from generators.oracles.slot_ensemble import SlotConfig, SlotEnsemble
from generators.worlds.learner import Learner


def learner_state(learner: Learner) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(plain config, tensors) for `generators.checkpoints`. Training weights are kept beside the averaged ones, both in
    full precision: a run that was killed goes on as if it had not been."""
    config: dict[str, Any] = {"properties": list(learner.properties), "generator": None, "surrogate": None}
    state = {"visited": learner.visited}
    if learner.generator is not None:
        config["generator"], exported = learner.generator.export()
        state |= {f"generator.{k}": v for k, v in exported.items()}
        averaged = learner.generator.averaged.state_dict()
        state |= {f"generator.denoiser.{k}": v.clone() for k, v in averaged.items()}
        state |= {f"trained.{k}": v.clone() for k, v in learner.generator.denoiser.state_dict().items()}
    if learner.surrogate is not None:
        config["surrogate"] = asdict(learner.surrogate.config)
        state |= {f"surrogate.{k}": v.clone() for k, v in learner.surrogate.state_dict().items()}
    return config, state


def restore_learner(learner: Learner, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Inverse of `learner_state`, into a learner of the same space.

    Raises:
        ValueError: it learnt other properties.
    """
    if tuple(config["properties"]) != learner.properties:
        raise ValueError(f"learner: learnt {config['properties']}, now {list(learner.properties)} are asked for")

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}

    learner.visited = state["visited"]
    if config["generator"] is not None:
        learner.generator = CompositionDiffusion.from_export(config["generator"], part("generator."))
        learner.generator.denoiser.load_state_dict(part("trained."))
    if config["surrogate"] is not None:
        p = len(learner.properties)
        learner.surrogate = SlotEnsemble(
            learner.space.table, learner.properties, torch.zeros(p), torch.ones(p), SlotConfig(**config["surrogate"])
        ).eval()
        learner.surrogate.load_state_dict(part("surrogate."))
