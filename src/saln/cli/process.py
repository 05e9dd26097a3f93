"""What a command does to its process: signals, standard streams, other libraries' warnings.

Whoever calls the library keeps their own.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import logging
import os
import signal
import sys
import threading
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO, cast

# What Slurm, Kubernetes and spot machines send first, what a closed terminal does, and Ctrl-C.
_SIGNALS = ("SIGTERM", "SIGHUP", "SIGINT")
# Those that came. What fails after one, such as a loader whose process is gone, is no failure of
# its own.
received: list[int] = []
# What our own texts have beside ASCII, for terminals that have no more.
_PLAIN = str.maketrans({"–": "-", "±": "+-", "×": "x", "…": "...", "’": "'"})


class Stopped(KeyboardInterrupt):
    """A signal asked the process to end; whoever cleans up after Ctrl-C does after this."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def stopping_signals() -> Iterator[None]:
    """Makes SIGTERM, SIGHUP and SIGINT raise :class:`Stopped` inside the block.

    A signal that is ignored, as SIGHUP is under nohup, or that somebody handles already, stays
    as it is. Outside the main thread nothing is changed, for there it cannot be.
    """
    before: dict[int, Any] = {}
    received.clear()
    hook = sys.unraisablehook
    usual = (signal.SIG_DFL, signal.default_int_handler)
    if threading.current_thread() is threading.main_thread():
        for name in _SIGNALS:
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None and signal.getsignal(number) in usual:
                before[number] = signal.signal(number, functools.partial(_stop, os.getpid()))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook


def _send_again(number: int) -> None:
    """Sends this process the signal once more, where Python lets what it raises through."""
    threading.Timer(0.1, os.kill, (os.getpid(), number)).start()


def _unraisable(dropped: sys.UnraisableHookArgs) -> None:
    """Python drops what a handler raises in a finalizer, as that of a loader at an epoch's end."""
    if isinstance(dropped.exc_value, Stopped):
        _send_again(dropped.exc_value.number)
    # Else it is something that was interrupted while it was made, as torch's loaders are.


class _Fork:
    """Whether this process is being forked, and the signal that came meanwhile.

    What a handler raises in the hooks of a fork is dropped by Python, so it has to wait.
    """

    def __init__(self) -> None:
        self.under_way = False
        self.came: int | None = None

    def begin(self) -> None:
        self.under_way = True

    def end(self) -> None:
        """In the parent; others' hooks may follow, so the signal comes again a little later."""
        self.under_way = False
        if self.came is not None:
            _send_again(self.came)
            self.came = None

    def forget(self) -> None:
        """In the child."""
        self.under_way, self.came = False, None


_fork = _Fork()
if hasattr(os, "register_at_fork"):  # Windows forks nothing
    os.register_at_fork(before=_fork.begin, after_in_parent=_fork.end, after_in_child=_fork.forget)


def _stop(owner: int, number: int, frame: types.FrameType | None) -> None:
    # A loader's process, forked with this handler, gets the signal of its group, too. Its parent
    # ends it, and saves first: the child neither says that it was stopped in the middle of its
    # start, nor dies before its parent knows.
    if os.getpid() != owner:
        signal.alarm(2)
        return
    # Torch's loader processes got the signal, too, and torch's handler of SIGCHLD would raise
    # that they have ended while what is done yet is being saved.
    child = getattr(signal, "SIGCHLD", None)
    if child is not None and callable(signal.getsignal(child)):
        signal.signal(child, signal.SIG_DFL)
    sys.unraisablehook = _unraisable
    if _fork.under_way:
        _fork.came = number
        return
    received.append(number)
    raise Stopped(number)


class OutputError(Exception):
    """Standard output cannot be written to; ``closed`` where its reader has gone."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror or str(error))
        self.closed = error.errno == errno.EPIPE


class _GuardedStream:
    """A text stream that takes signs its encoding lacks, and whose loss is no crash.

    The loss of a result raises :class:`OutputError`. What people only watch is dropped: no work
    ends because nobody can see it any more.
    """

    def __init__(self, stream: TextIO, *, is_result: bool) -> None:
        self._stream, self._is_result = stream, is_result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes all of it."""
        try:
            try:
                return self._stream.write(text)
            except UnicodeEncodeError as error:
                plain = text.translate(_PLAIN).encode(error.encoding, "backslashreplace")
                return self._stream.write(plain.decode(error.encoding))
        except OSError as error:  # a full disk, a reader that has gone, a terminal that was closed
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        """Passes what was written on."""
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        # What Python still holds would be written when the process ends, and fail once more: it
        # goes nowhere. A stream without a file holds nothing.
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        if self._is_result:
            raise OutputError(error) from error


@contextlib.contextmanager
def guarded_streams() -> Iterator[None]:
    """Makes standard output and error safe to write to inside the block, whatever they are.

    What is closed is written to in vain. Standard output raises :class:`OutputError` where it
    cannot be written to, at the latest when it is flushed; standard error raises nothing.
    """
    if None in (sys.stdin, sys.stdout, sys.stderr):
        # One of the first three descriptors is closed. The next file to be opened would get its
        # number, and what a library prints would come to stand in that file.
        while os.open(os.devnull, os.O_RDWR) < 2:
            pass
    result = _GuardedStream(sys.stdout or io.StringIO(), is_result=True)
    watched = _GuardedStream(sys.stderr or io.StringIO(), is_result=False)
    with (
        contextlib.redirect_stdout(cast(TextIO, result)),
        contextlib.redirect_stderr(cast(TextIO, watched)),
    ):
        try:
            yield
        finally:
            watched.flush()


@contextlib.contextmanager
def own_warnings(*, debug: bool) -> Iterator[None]:
    """Shows our own warnings in a line each, and other libraries' only with ``debug``."""
    if debug or sys.warnoptions:
        yield
        return
    package = str(Path(__file__).parents[1])

    def show(message: Warning | str, kind: type[Warning], filename: str, *rest: Any) -> None:
        if filename.startswith(package):
            sys.stderr.write(f"saln: warning: {' '.join(str(message).split())}\n")

    loggers = [logging.getLogger(name) for name in ("matplotlib", "PIL")]
    levels = [logger.level for logger in loggers]
    before = warnings.showwarning
    warnings.showwarning = cast(Any, show)
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        warnings.showwarning = before
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def print_error(text: str) -> None:
    """Writes an error to standard error, in one line whatever is in it."""
    line = " ".join(text.splitlines())
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    sys.stderr.write(f"saln: error: {plain}\n")
