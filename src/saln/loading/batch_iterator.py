"""The batches of one epoch, from a step on, chosen in advance by a thread that ends with them."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from saln.loading.saved_state import warn_of_the_middle
from saln.threads import one_core

if TYPE_CHECKING:
    from saln.loading.selected_batches import SelectedBatches

T = TypeVar("T")


class BatchIterator(Iterator[list[int]]):
    """One epoch's batches from a step on; ``step`` counts those given, nothing before the first."""

    def __init__(self, sampler: SelectedBatches, epoch: int, step: int) -> None:
        self.sampler = sampler
        self.epoch = epoch
        self.step = step
        self._loaded = False  # a state, by a loader that keeps its sampler's iterator's
        self._rank = sampler.batch_rank
        self._batches: Iterator[list[int]] | None = None
        self._number = sampler.position.lead(step)

    def __next__(self) -> list[int]:
        sampler = self.sampler
        with sampler.phase("select"):
            if self._batches is None:
                self._batches = self._open()
            batch = next(self._batches, None)
        if batch is None:
            raise StopIteration
        self.step += 1
        if self._is_followed() and self.epoch == sampler.epoch:
            sampler.position.steps_given = self.step
        return list(self._rank.share(batch))

    def _is_followed(self) -> bool:
        """Whether no iteration has begun since this one."""
        return self._number == self.sampler.position.iteration

    def _open(self) -> Iterator[list[int]]:
        """Begins to choose, as the first batch is asked for."""
        sampler = self.sampler
        if self._is_followed() and not self._loaded:
            # A loader may make its iterator before the epoch is set, or a position loaded.
            self.epoch, self.step = sampler.epoch, sampler.loaded_step
        epoch = self.epoch
        if epoch == sampler.epoch:
            sampler.sampler.note_iteration()
            # A loader at the end of its state's epoch asks in vain, and then iterates anew: for
            # that the position stays.
            if not self._loaded:
                sampler.position.begin()
        sampler.begin_epoch(epoch)
        sampler.weights.begin(epoch)
        order, n = sampler.order(epoch), sampler.candidates_of(epoch)

        def kept(step: int) -> list[int]:
            candidates = order[step * n : (step + 1) * n]
            selection = sampler.choose(candidates, epoch, step)
            indices = candidates[selection.positions]
            sampler.weights.keep(indices, selection.weights)
            chosen: list[int] = indices.tolist()
            return chosen

        steps = range(self.step, sampler.usable // n)
        return Prefetcher(kept, steps, sampler.ahead) if sampler.ahead else map(kept, steps)

    def state_dict(self) -> dict[str, Any]:
        """As :meth:`SelectedBatches.state_dict`, of this iteration."""
        return self.sampler.state_at(self.epoch, self.step)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a saved state; raises as :meth:`SelectedBatches.load_state_dict`.

        A loader loads its state only when it is asked for batches, after the user has set
        the epoch. A state at the end of its epoch gives way to another epoch that was set;
        one in the middle goes on there, with a warning.
        """
        self.close()
        self._loaded = True
        sampler = self.sampler
        requested = sampler.position.requested_epoch
        # Loading forgets what was set before it, which is looked at below.
        sampler.load_state_dict(state)
        if requested is not None and requested != sampler.epoch:
            # Nothing is left of the state's epoch: the one that was set begins.
            if sampler.loaded_step == len(sampler):
                sampler.set_epoch(requested)
            else:
                warn_of_the_middle(requested, sampler.epoch)
        self.epoch, self.step = sampler.epoch, sampler.loaded_step
        self._number = sampler.position.lead(self.step)

    def close(self) -> None:
        """Ends the background thread, if there is one."""
        if isinstance(self._batches, Prefetcher):
            self._batches.close()
        self._batches = None


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
