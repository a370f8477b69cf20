"""Learners of a world, trained once and kept."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from generators.checkpoints import load_checkpoint, save_checkpoint
from generators.worlds.learner import Learner
from generators.worlds.learner_state import learner_state, restore_learner
from generators.worlds.world import World, first_labels


def trained(world: World, labels: int | None, seed: int, cache: Path) -> tuple[Learner, torch.Tensor, float]:
    """Learner of the first ``labels`` training labels (all for None), the crystals it learnt from, CPU seconds."""
    rows = first_labels(world.train_index, labels, seed)
    learner = Learner(world.space, world.properties, seed=seed)
    path = cache / f"learner-{world.name}-{labels or 'all'}-{seed}.pt"
    if path.is_file():
        config, state = load_checkpoint(path, "learner")
        restore_learner(learner, config, state)
        return learner, world.train_index[rows], float(config["seconds"])
    start = time.process_time()
    targets = torch.stack([world.train_labels[name][rows] for name in world.properties], 1)
    learner.learn(world.train_index[rows], targets)
    seconds = time.process_time() - start
    config, state = learner_state(learner)
    save_checkpoint(path, "learner", {**config, "seconds": seconds}, state)
    return learner, world.train_index[rows], seconds
