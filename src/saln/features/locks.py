"""Locks on single bytes of a file: which process writes which shard of a store.

The system releases them when the process ends, also by SIGKILL. They belong to the
process, not to the file object: a loader's forked workers do not hold them, and inside
one process they exclude nobody. They hold over NFS, too.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Not filelock, which locks whole files, one a shard: it had no more files to open after 1,018 of a
# process's usual 1,024, in 1.3 s, where as many bytes of one file take 0.7 ms.


class LocksNotKnownError(OSError):
    """A disk that gives no locks, as some that lie on a network."""


if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    def _try_lock(descriptor: int, position: int) -> bool:
        os.lseek(descriptor, position, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(descriptor: int, position: int) -> None:
        os.lseek(descriptor, position, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(descriptor: int, position: int) -> bool:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, position)
        except (BlockingIOError, PermissionError):  # POSIX leaves open which of the two
            return False
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                raise LocksNotKnownError(error.errno, error.strerror) from error
            raise
        return True

    def _unlock(descriptor: int, position: int) -> None:
        fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, position)


class ByteLocks:
    """An open lock file, made when missing; closing it releases this process's locks on it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)

    def try_lock(self, position: int) -> bool:
        """Locks a byte, unless another process has it; says which."""
        return _try_lock(self._descriptor, position)

    def unlock(self, position: int) -> None:
        """Releases a byte."""
        _unlock(self._descriptor, position)

    @contextmanager
    def hold(self, position: int) -> Iterator[None]:
        """Waits for a byte, and releases it after the block.

        Where the file has been removed or replaced meanwhile, as by a process that finished
        the store, it is the byte of the new one: of two files, two processes could each hold
        "the" byte.
        """
        # Looked at after the lock is had: before, the file could still be replaced.
        self._wait(position)
        while not self.is_current():
            self.close()
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            self._wait(position)
        try:
            yield
        finally:
            self.unlock(position)

    def _wait(self, position: int) -> None:
        seconds = 0.001
        while not self.try_lock(position):
            time.sleep(seconds)
            # Soon at first, for the manifest is held for milliseconds; then less often.
            seconds = min(2 * seconds, 0.05)

    def is_current(self) -> bool:
        """Whether the file is still the one of its name: neither removed nor replaced."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Releases everything."""
        os.close(self._descriptor)
