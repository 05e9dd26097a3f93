"""Applies and undoes that are killed at a chosen file operation, as by a power cut.

Run as a program it waits for lines of JSON, forks for each, and answers with the child's exit
status: 9 where it was killed, 0 where it came to the end. It imports no torch: a fork is cheap.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

CHANGES = frozenset(
    ("os.link", "os.symlink", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.truncate")
)
KILLED = 9


def kill_at(number: int) -> None:
    """Ends this process before its file operation of that number, without any cleaning up."""
    left = number

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_ACCMODE
        if event in CHANGES or writes:
            left -= 1
            if left == 0:
                os._exit(KILLED)

    sys.addaudithook(hook)


def serve() -> None:
    from saln.cli.apply_command import COMMAND

    os.fsync = lambda descriptor: None  # only for those that lose their power
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            with open(os.devnull, "w") as nowhere:  # noqa: PTH123
                sys.stdout = nowhere
                kill_at(job["number"])
                try:
                    status = COMMAND(job["arguments"])
                except Exception as error:
                    sys.stderr.write(f"{error!r}\n")
                    status = 1
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(f"{status}\n")
        sys.stdout.flush()


class Killer:
    """Runs ``saln labels apply`` and kills it at a file operation."""

    def __enter__(self) -> Killer:
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *error: object) -> None:
        self.process.communicate()

    def is_killed(self, number: int, *arguments: str | Path) -> bool:
        """Whether it was killed; else it ended before it came to the operation."""
        job = {"number": number, "arguments": [*map(str, arguments)]}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        status = int(self.process.stdout.readline())
        assert status in (0, KILLED), status
        return status == KILLED


if __name__ == "__main__":
    serve()
