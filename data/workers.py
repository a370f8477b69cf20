"""How a worker process begins: with one thread, and never outliving the process that started it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from multiprocessing import forkserver
from multiprocessing.context import BaseContext

import torch

PRELOADED = (
    "torch",
    "pandas",
    "pyarrow.parquet",
    "scipy.optimize",
    "scipy.spatial",
    "pymatgen.core",
    "data.orbit_batch",
)
"""What takes seconds to import and nearly every worker needs."""


def worker_context() -> BaseContext:
    """How processes of a pool begin.

    On Linux each is a copy of one that has imported `PRELOADED`, so that it is there at once; elsewhere, where copies
    of a process that has loaded the system's libraries are not safe, a new interpreter.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def expect_workers() -> None:
    """Let them be ready sooner: what they share is imported from now on, beside whatever this process does."""
    if sys.platform == "linux":
        worker_context()
        forkserver.ensure_running()


def start_worker() -> None:
    """Initializer of every process pool.

    A worker waits for work on a pipe of which it holds both ends, so that it never notices when its parent is
    killed, and would stay in memory for ever. A thread watches the parent instead.
    """
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    """Within it torch computes with so many; afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _leave_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
