"""The weights that come with the package."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

from generators.checkpoints import load_checkpoint
from generators.element_features import N_STATES
from generators.oracles.crystal_surrogate import CrystalSurrogate

CRYSTAL_SURROGATE = "crystal_surrogate"


def shipped(name: str) -> Path:
    """Path of shipped weights: ``composition``, ``crystal``, ``surrogate`` or ``crystal_surrogate``."""
    with as_file(files("generators.weights") / f"{name}.pt") as path:
        return path


def load_crystal_surrogate() -> CrystalSurrogate:
    """The embedded surrogate of the judge for whole crystals (`scripts/build_crystal_surrogate.py`).

    What is judged since corrects it as far as elements are neighbours in the periodic table.
    """
    config, state = load_checkpoint(shipped(CRYSTAL_SURROGATE), CRYSTAL_SURROGATE)
    return CrystalSurrogate.from_export(config, state, slice(N_STATES, None))
