"""Work that runs ahead of its consumer, in a thread that ends with it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Generic, TypeVar

from saln.threads import one_core

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """Iterates over ``work(step)`` for steps in a range, up to ``depth`` of them ahead.

    One thread does the work in order, so the results depend on no timing. It starts
    with the first ``next`` (a loader that forks its processes before has no thread to
    fork), and ends with the range, with an error, which ``next`` raises in its place, with
    :meth:`close`, or when nobody holds the iterator any longer.
    """

    def __init__(self, work: Callable[[int], T], steps: range, depth: int) -> None:
        self._results: SimpleQueue[object] = SimpleQueue()
        # Taken before each piece of work, given back with each result that is fetched.
        self._room = threading.Semaphore(depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=_run,
            args=(work, steps, self._results, self._room, self._stop),
            name="saln-prefetch",
            daemon=True,  # Ctrl-C does not wait for a choice
        )
        self._finalizer: Callable[[], object] | None = None

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._stop.is_set():
            raise StopIteration
        if self._finalizer is None:
            self._finalizer = weakref.finalize(self, _end, self._stop, self._room, self._thread)
            self._thread.start()
        result = self._results.get()
        if isinstance(result, BaseException):  # what went wrong, or that nothing is left
            self.close()
            raise result
        self._room.release()
        return result  # type: ignore[return-value]

    def close(self) -> None:
        """Ends the thread; ``next`` has nothing more to give."""
        self._stop.set()
        if self._finalizer is not None:
            self._finalizer()


def _run(
    work: Callable[[int], object],
    steps: range,
    results: SimpleQueue[object],
    room: threading.Semaphore,
    stop: threading.Event,
) -> None:
    # Holds no reference to the iterator, so that dropping it ends this.
    try:
        with one_core():
            for step in steps:
                room.acquire()
                if stop.is_set():
                    return
                results.put(work(step))
        results.put(StopIteration())
    except BaseException as error:
        results.put(error)


def _end(stop: threading.Event, room: threading.Semaphore, thread: threading.Thread) -> None:
    stop.set()
    # The thread may be waiting for room; it looks at `stop` when it has some.
    room.release()
    if thread is not threading.current_thread():
        thread.join()
