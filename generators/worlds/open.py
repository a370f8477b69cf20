"""Worlds by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from generators.worlds.elpasolite import elpasolite
from generators.worlds.perov_5 import perov_5, perov_5_gap
from generators.worlds.world import World

WORLDS: dict[str, Callable[[Path, Path], World]] = {
    "elpasolite": elpasolite,
    "perov_5": perov_5,
    "perov_5_gap": perov_5_gap,
}


def open_world(name: str, data: Path | None, cache: Path) -> World:
    """The world ``name`` from its published table below ``data``. Raises ValueError for an unknown name or no table."""
    if name not in WORLDS:
        raise ValueError(f"world={name}: choose from {', '.join(WORLDS)}")
    if data is None:
        raise ValueError(f"tables=null: world {name} needs the folder of its published table, tables=FOLDER")
    return WORLDS[name](data, cache)
