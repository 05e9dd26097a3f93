"""``saln select`` in a process of its own, killed and run again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"


def command(store, out, *more):
    return [
        sys.executable, "-c",
        "import functools, sys; from saln import curation; from saln.cli import main; "
        "curation.select = functools.partial(curation.select, partition_rows=400); "
        "sys.exit(main(sys.argv[1:]))",
        "select", str(store), "--selector", "saln", "--candidates", "100", "--out", str(out), *more,
    ]  # fmt: skip


def environment():
    return {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}


def killed_and_again(arguments, parts, out):
    """Kills the command once some parts are there, and runs it again."""
    running = subprocess.Popen(
        arguments, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while len(list(parts.glob("part-*"))) < 3 and running.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert not out.exists()
    assert len(list(parts.glob("part-*"))) >= 3
    done = subprocess.run(
        [*arguments, "--json"], env=environment(), capture_output=True, text=True, check=True,
        timeout=200,
    )  # fmt: skip
    return json.loads(done.stdout)
