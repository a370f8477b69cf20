"""Benchmarks: ``python scripts/benchmark.py NAME [--seeds 3] [...]``.

Each prints one JSON object on its last line (figures, protocol, seeds, machine, seconds) and rewrites its
part of ``docs/benchmarks.md``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import re
import sys
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
NAMES = (
    "geometry", "relaxation", "sampling", "training", "guidance", "demo", "hull", "evaluate", "experiment", "agreement",
    "phonons", "tensors", "surrogates", "matbench", "mechanics", "world", "curves", "campaign", "open",
    "crystals", "crystal_guidance", "crystal_picture", "prediction", "crystal_statistics", "scaling",
)  # fmt: skip
MODULES = {"open": "open_worlds"}  # open is a built-in name


def machine() -> str:
    """Processor, cores, graphics card and torch, without the host's name."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"model name\s*:\s*(.+)", info.read_text(encoding="utf-8"))
        model = found[1].strip() if found else model
    card = f", one {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{model}, {os.cpu_count()} cores{card}, torch {torch.__version__.split('+')[0]}"


def write_section(name: str, text: str) -> None:
    """Replace the part of ``docs/benchmarks.md`` between its markers, or append it."""
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    block = f"{start}\n{text.strip()}\n{end}"
    page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else "# Benchmarks\n"
    pattern = re.compile(re.escape(start) + ".*?" + re.escape(end), re.DOTALL)
    page = pattern.sub(lambda _: block, page) if pattern.search(page) else f"{page.rstrip()}\n\n{block}\n"
    PAGE.write_text(page, encoding="utf-8")


def spelled_out(arguments: list[str]) -> list[str]:
    """``world=elpasolite predict=FILE`` as argparse spells it.

    >>> spelled_out(["world=perov_5", "labels=200"])
    ['world', '--world', 'perov_5', '--labels', '200']
    """
    result: list[str] = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if equals and not key.startswith("-"):
            result += [*(["world"] if key == "world" else []), f"--{key}", value]
        else:
            result.append(argument)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--structures", type=Path, default=None, help="Parquet of structures, for geometry")
    parser.add_argument("--hull", type=Path, default=None, help="folder of the published hull tables, for hull")
    parser.add_argument("--data", type=Path, default=None, help="folder of reference data")
    parser.add_argument("--model", default=None, help="a model file instead of the shipped one, for crystals")
    parser.add_argument("--world", default="elpasolite", help="name of the world, or world=NAME")
    parser.add_argument("--predict", type=Path, default=None, help="table to predict, for world; or predict=FILE")
    parser.add_argument("--labels", type=int, default=None, help="learn from so many labels only, for world")
    parser.add_argument("--high", type=float, default=None, help="wish below this value, for world with predict")
    parser.add_argument("--cache", type=Path, default=ROOT / "outputs" / "worlds", help="judges and trained models")
    arguments = parser.parse_args(spelled_out(sys.argv[1:]))
    sys.path.insert(0, str(Path(__file__).parent))
    start = time.perf_counter()
    try:
        figures: dict[str, Any] = importlib.import_module(
            f"benchmarks.{MODULES.get(arguments.name, arguments.name)}"
        ).run(arguments)
    except ValueError as error:
        if arguments.name != "world":
            raise
        print(f"benchmark: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    section = figures.pop("section", arguments.name)
    text = figures.pop("markdown", None)
    figures |= {"machine": machine(), "seconds": round(time.perf_counter() - start, 1)}
    if text is not None:
        write_section(section, f"{text.strip()}\n\nMachine: {figures['machine']}; {figures['seconds']:.0f} s.")
    print(json.dumps({"benchmark": arguments.name, **figures}))


if __name__ == "__main__":
    main()
