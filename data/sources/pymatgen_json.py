"""pymatgen JSON: structures, entries that hold one, lists of them, and pandas tables of them.

Only plain data are read; class names in the file are never imported.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pymatgen.core import Structure

from data.sources.rows import RawRow
from data.sources.text import read_text, suffix_of

SUFFIXES = (".json", ".jsonl")


def rows(path: Path, name: str) -> Iterator[RawRow]:
    """Rows of one file: a structure, an entry ``{"structure": ..., "band_gap": ...}``, a list or a mapping
    (id -> item) of either, JSON lines of them, or a table as pandas writes it (``orient="split"``).

    Raises:
        ValueError: not JSON, or none of these.
    """
    text = read_text(path)
    try:
        if suffix_of(path) == ".jsonl":
            content: Any = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"path={str(path)!r}: not valid JSON ({error})") from None
    yield from _items(content, name, path)


def _items(content: Any, name: str, path: Path) -> Iterator[RawRow]:
    if isinstance(content, list):
        for i, item in enumerate(content):
            yield _row(f"{name}#{i}", item)
    elif not isinstance(content, dict):
        raise ValueError(f"path={str(path)!r}: holds neither structures nor a list of them")
    elif "sites" in content or "structure" in content:
        yield _row(name, content)
    elif {"columns", "data"} <= set(content):
        index = content.get("index", range(len(content["data"])))
        for key, values in zip(index, content["data"], strict=True):
            yield _row(f"{name}#{key}", dict(zip(content["columns"], values, strict=True)))
    else:
        for key, item in content.items():
            yield _row(f"{name}#{key}", item)


def _row(name: str, item: Any) -> RawRow:
    if not isinstance(item, dict) or not {"sites", "structure"} & set(item):
        return RawRow(name, "unreadable", "the item is neither a structure nor an entry with one")
    if "sites" in item:
        return RawRow(name, "json", item, numbers_of(item.get("properties") or {}))
    for key in ("material_id", "entry_id", "id"):
        if isinstance(item.get(key), str):
            name = item[key]
    labels = {key: value for key, value in item.items() if key != "structure"}
    return RawRow(name, "json", item["structure"], numbers_of(labels))


def numbers_of(labels: Mapping[str, Any]) -> dict[str, float]:
    """The numeric entries of a mapping."""
    return {
        str(key): float(value)
        for key, value in labels.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def parse(item: Any) -> Structure:
    """A structure from its plain data, or from their JSON text.

    Raises:
        ValueError: not a structure.
    """
    try:
        return Structure.from_dict(json.loads(item) if isinstance(item, str) else item)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"not a pymatgen structure: {type(error).__name__} {error}") from None
