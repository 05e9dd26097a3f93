"""The run folder while a run is under way."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

from saln.errors import InputError
from saln.experiments.config import Config

__all__ = ["free_folder"]


def free_folder(config: Config) -> Path:
    """The folder of a new run; nothing is written.

    Raises:
        InputError: It is a file, or holds something already.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", (config.preset or config.dataset).lower()).strip("-")[-40:]
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    path = (config.out or Path("runs") / f"{slug}-{now}").expanduser()
    if path.exists() and not path.is_dir():
        raise InputError(f"--out {path} is a file; give a folder")
    if path.exists() and any(path.iterdir()):
        what = "another run" if (path / "config.json").exists() else "other files"
        raise InputError(f"--out {path} holds {what}; give a new or an empty folder")
    return path
