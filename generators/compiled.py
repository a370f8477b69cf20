"""Training with compiled networks, where a processor gains by it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable
from pathlib import Path

import torch
from pytorch_lightning.utilities import rank_zero_info
from torch import nn

LEAST_STEPS = 2_000
"""Shorter trainings end before the compiler's minute has paid."""


def can_compile() -> bool:
    """Whether a C++ compiler that runs and the headers that ``torch.compile`` needs on a processor are there."""
    compilers = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++"]
    found = next(filter(shutil.which, compilers), None)
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    if found is None or not headers.is_file():
        return False
    return subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0


def compile_for_training(parts: Iterable[nn.Module], device: torch.device, steps: int) -> bool:
    """Compile modules in place for any batch size, if ``steps`` on this device are worth it; whether it was done.

    What cannot be compiled after all runs as it is. ``TORCH_COMPILE_DISABLE=1`` switches it off.
    """
    if device.type != "cpu" or steps < LEAST_STEPS or torch._dynamo.config.disable or not can_compile():
        return False
    torch._dynamo.config.suppress_errors = True
    for part in parts:
        part.compile(dynamic=True)
    rank_zero_info("the network is compiled, its first steps take up to two minutes")
    return True
