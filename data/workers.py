"""How a worker process begins: with one thread, and never outliving the process that started it."""

from __future__ import annotations

import multiprocessing
import os
import threading

import torch


def start_worker() -> None:
    """Initializer of every process pool.

    A worker waits for work on a pipe of which it holds both ends, so that it never notices when its parent is
    killed, and would stay in memory for ever. A thread watches the parent instead.
    """
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
