"""What a run runs on: the device, the threads, and what it takes to repeat it."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import saln
from saln._torchvision import torchvision
from saln.errors import InputError

__all__ = ["environment", "find_device"]


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, machine, command and start time, as plain values."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "saln": saln.__version__,
        "commit": commit.stdout.strip() or None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "training_processes": int(os.environ.get("WORLD_SIZE", "1")),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "command": [_program(sys.argv[0]), *sys.argv[1:]],
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _program(path: str) -> str:
    name = Path(path).name
    return "saln" if name == "__main__.py" else name


def find_device(name: str, local_rank: int = 0) -> torch.device:
    """The device that ``--device`` names; ``auto`` is a GPU where torch sees one.

    Args:
        name: ``auto``, ``cpu`` or ``cuda``.
        local_rank: Which of this machine's processes asks: each has a GPU of its own.

    Raises:
        InputError: ``cuda`` without a GPU.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda is not allowed: torch sees no GPU here; give cpu or auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and local_rank >= torch.cuda.device_count():
        raise InputError(
            f"there are {torch.cuda.device_count()} GPUs here but process {local_rank + 1} asks "
            "for one; start as many processes with --nproc-per-node as there are GPUs"
        )
    if name == "cuda":
        torch.cuda.set_device(local_rank)
        return torch.device(name, local_rank)
    return torch.device(name)
