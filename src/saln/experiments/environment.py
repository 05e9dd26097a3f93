"""What a run runs on: the device, the threads, and what it takes to repeat it."""

from __future__ import annotations

import datetime
import functools
import os
import platform
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import torch

import saln
from saln._torchvision import torchvision
from saln.errors import InputError
from saln.messages import parameter


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, machine, command and start time, as plain values."""
    program = Path(sys.argv[0]).name
    return {
        "saln": saln.__version__,
        "commit": _commit_at_first(Path(saln.__file__).parent),
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
        # The program's own name: its path would tell of a machine, and repeats on no other.
        "command": ["saln" if program == "__main__.py" else program, *sys.argv[1:]],
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


@functools.cache  # what a process has imported stays that commit's
def _commit_at_first(package: Path) -> str | None:
    """What :func:`_commit` said when it was asked first."""
    return _commit(package)


def _commit(package: Path) -> str | None:
    """The commit of the checkout that the code is run from; None where git knows none of it."""
    root = package.parent.parent  # src/saln, as it lies in the checkout
    try:
        settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if settings.get("project", {}).get("name") != "saln":
        return None
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or not Path(top).samefile(root):
        return None  # unpacked inside another project's repository
    # A copy that is lying in a checkout untracked is not of its commit.
    if not _git(root, "ls-files", "--", "src/saln/__init__.py"):
        return None
    return _git(root, "rev-parse", "--verify", "HEAD")


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says of a folder; None where it says nothing, or is not there."""
    # A hook of git's, or a user, may have named another repository for every call.
    others = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        process = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env=others,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=20,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return os.fsdecode(process.stdout).strip() or None


def find_device(name: str, local_rank: int = 0) -> torch.device:
    """The device of that name; ``auto`` is a GPU where torch sees one, ``cuda`` must be.

    Each of a machine's processes has a GPU of its own, that of its ``local_rank``.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"{parameter('device', name)} is not allowed: torch sees no GPU here; give cpu or auto"
        )
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise InputError(
            f"there are {torch.cuda.device_count()} GPUs here but process {local_rank + 1} asks "
            "for one; start as many processes with --nproc-per-node as there are GPUs"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
