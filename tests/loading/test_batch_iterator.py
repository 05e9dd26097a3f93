"""Choosing ahead: bounded, in order, errors where they are due, no thread left behind."""

from __future__ import annotations

import gc
import threading
import time

import pytest
import torch

from saln.loading.batch_iterator import Prefetcher
from saln.loading.selected_batches import SelectedBatches
from saln.selection import Selection, Selector


@pytest.fixture(autouse=True)
def nothing_of_other_tests():
    """Loaders that another test left in a cycle of references hold their threads until then."""
    gc.collect()


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "saln-prefetch"]


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_results_come_in_order_and_the_thread_ends():
    assert list(Prefetcher(lambda step: 10 * step, range(2, 7), 3)) == [20, 30, 40, 50, 60]
    wait_for(lambda: not threads())
    assert list(Prefetcher(lambda step: step, range(0), 1)) == []


def test_no_more_than_the_depth_is_done_ahead():
    done = []
    ahead = Prefetcher(done.append, range(100), 3)
    assert done == []  # nothing before it is asked for
    next(ahead)
    wait_for(lambda: len(done) == 4)  # the one given, and three that wait
    time.sleep(0.02)
    assert len(done) == 4
    ahead.close()
    assert not threads()
    assert list(ahead) == []


def test_an_error_comes_where_its_result_was_due():
    def work(step):
        if step == 2:
            raise ValueError("third")
        return step

    ahead = Prefetcher(work, range(5), 4)
    assert [next(ahead), next(ahead)] == [0, 1]
    with pytest.raises(ValueError, match="third"):
        next(ahead)
    assert not threads()
    with pytest.raises(StopIteration):
        next(ahead)


def test_dropping_the_iterator_ends_the_thread():
    ahead = Prefetcher(lambda step: step, range(1000), 2)
    next(ahead)
    assert len(threads()) == 1
    del ahead
    assert not threads()


class Slow(Selector):
    """Takes its time, differently at every step, and notes in which thread."""

    def __init__(self, fails_at=None):
        self.fails_at, self.calls, self.names = fails_at, 0, set()

    def choose(self, candidates, k, generator):
        self.names.add(threading.current_thread().name)
        if self.calls == self.fails_at:
            raise RuntimeError("no choice")
        time.sleep(0.001 * (self.calls % 3))
        self.calls += 1
        return Selection(torch.randperm(len(candidates), generator=generator)[:k])


def sampler(selector, ahead):
    return SelectedBatches(
        200, selector=selector, batch_size=4, filter_ratio=0.8, seed=0, ahead=ahead
    )


def test_batches_do_not_depend_on_how_far_ahead_they_are_chosen():
    slow = Slow()
    expected = list(sampler(Slow(), 0))
    assert len(expected) == 10
    for ahead in (1, 2, 50):
        assert list(sampler(slow, ahead)) == expected
    assert slow.names == {"saln-prefetch"}


def test_a_selector_that_fails_fails_in_the_consumer():
    iterator = iter(sampler(Slow(fails_at=3), 2))
    assert len([next(iterator) for _ in range(3)]) == 3
    with pytest.raises(RuntimeError, match="no choice"):
        next(iterator)
    assert not threads()


def test_leaving_an_epoch_early_leaves_no_thread():
    for batch in sampler(Slow(), 2):
        assert len(batch) == 4
        break
    wait_for(lambda: not threads())
