"""``saln select`` in a process of its own, killed and run again.

Run as a program it is the command with small partitions.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import time
from pathlib import Path


def words(store, out, *more):
    return [
        "select", str(store), "--selector", "saln", "--candidates", "100", "--out", str(out), *more,
    ]  # fmt: skip


def killed(arguments, out, warm):
    """Kills the command once some parts are there."""
    parts = out.with_name(f"{out.name}.parts")
    running = warm.start(arguments, out.parent, script=Path(__file__))
    deadline = time.monotonic() + 300
    while len(list(parts.glob("part-*"))) < 3 and running.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert not out.exists()
    assert len(list(parts.glob("part-*"))) >= 3


def killed_and_again(arguments, out, warm):
    """The same, and runs it again."""
    killed(arguments, out, warm)
    done = warm.run([*arguments, "--json"], out.parent, script=Path(__file__))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


if __name__ == "__main__":
    from saln import curation
    from saln.cli import main

    curation.select = functools.partial(curation.select, partition_rows=400)
    sys.exit(main(sys.argv[1:]))
