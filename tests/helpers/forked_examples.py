"""Runs examples, each in a process of its own that begins with what most of them import.

What each says is in the files ``NAME.out`` and ``NAME.err``; how they end in ``statuses.json``.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

from helpers.warm_processes import be

LIBRARIES = ("lightning", "transformers.trainer")  # three seconds


def status_of(script: Path) -> int:
    """How an example ended."""
    job = {"script": str(script), "arguments": [], "folder": ".", "name": script.stem, "call": ""}
    child = os.fork()
    if child == 0:
        be(job | {"environment": dict(os.environ)})
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    for library in LIBRARIES:
        importlib.import_module(library)
    statuses = {script.stem: status_of(script) for script in map(Path, sys.argv[1:])}
    Path("statuses.json").write_text(json.dumps(statuses))
