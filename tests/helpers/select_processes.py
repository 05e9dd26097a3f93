"""``saln select`` in a process of its own, killed and run again.

Run as a program it is the command with small partitions.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"


def words(store, out, *more):
    return [
        "select", str(store), "--selector", "saln", "--candidates", "100", "--out", str(out), *more,
    ]  # fmt: skip


def killed_and_again(arguments, out, warm=None, first=()):
    """Kills the command once some parts are there, and runs it again without what came ``first``.

    ``warm`` starts it without the imports; None: by an interpreter, as Ray's drivers have to be.
    """
    parts = out.with_name(f"{out.name}.parts")
    command = [sys.executable, __file__, *arguments]
    options = {"env": {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}}
    if warm is not None:
        running = warm.start([*arguments, *first], out.parent, script=Path(__file__))
    else:
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        running = subprocess.Popen([*command, *first], start_new_session=True, **silent, **options)
    deadline = time.monotonic() + 300
    while len(list(parts.glob("part-*"))) < 3 and running.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert not out.exists()
    assert len(list(parts.glob("part-*"))) >= 3
    if warm is not None:
        done = warm.run([*arguments, "--json"], out.parent, script=Path(__file__))
    else:
        done = subprocess.run(
            [*command, "--json"],
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
            **options,
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


if __name__ == "__main__":
    from saln import curation
    from saln.cli import main

    curation.select = functools.partial(curation.select, partition_rows=400)
    sys.exit(main(sys.argv[1:]))
