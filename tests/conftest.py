"""What several tests share."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

OfflineRun = tuple[dict[str, object], set[str]]


def _records(content: bytes) -> Iterator[bytes]:
    """Records of a ``.wandb`` file: a 7 byte header, then LevelDB's log format in blocks of 32 kB."""
    offset, parts = 7, b""
    while offset + 7 <= len(content):
        if 32768 - offset % 32768 < 7:
            offset += 32768 - offset % 32768
            continue
        length, kind = struct.unpack("<HB", content[offset + 4 : offset + 7])
        parts += content[offset + 7 : offset + 7 + length]
        offset += 7 + length
        if kind in (1, 4):  # full record, or the last of several parts
            yield parts
            parts = b""


def _read(folder: Path) -> OfflineRun:
    import wandb
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()  # waits for the service: a finished run's file is still being written when finish() returns
    (file,) = {path.resolve() for path in folder.rglob("run-*.wandb")}  # a link points at the latest run
    summary: dict[str, object] = {}
    history: set[str] = set()
    for data in _records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        for item in record.summary.update:
            summary[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
        history.update(item.key or ".".join(item.nested_key) for item in record.history.item)
    return summary, history


@pytest.fixture
def read_offline_run() -> Callable[[Path], OfflineRun]:
    """Reads the one offline W&B run below a folder: (summary, names in the history)."""
    return _read
