"""Worlds by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from generators.worlds.decorations import decorations
from generators.worlds.elpasolite import elpasolite
from generators.worlds.perov_5 import perov_5, perov_5_gap
from generators.worlds.world import World

PUBLISHED: dict[str, Callable[[Path, Path], World]] = {
    "elpasolite": elpasolite,
    "perov_5": perov_5,
    "perov_5_gap": perov_5_gap,
}
WORLDS = (*PUBLISHED, "decorations")


def open_world(name: str, data: Path | None, cache: Path) -> World:
    """The world ``name``; those with a published table need the folder ``data`` that holds it.

    Raises:
        ValueError: an unknown name, or no table.
    """
    if name == "decorations":
        return decorations(cache)
    if name not in PUBLISHED:
        raise ValueError(f"world={name}: choose from {', '.join(WORLDS)}")
    if data is None:
        raise ValueError(f"tables=null: world {name} needs the folder of its published table, tables=FOLDER")
    return PUBLISHED[name](data, cache)
