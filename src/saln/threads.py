"""How many threads torch and the linear algebra under NumPy and SciPy may use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import lru_cache

import threadpoolctl
import torch


@contextlib.contextmanager
def limited_threads(count: int | None) -> Iterator[None]:
    """Bounds torch's threads and those of NumPy's and SciPy's linear algebra."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        with threadpoolctl.threadpool_limits(count, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


def one_linear_algebra_thread() -> AbstractContextManager[object]:
    """Keeps LAPACK and BLAS under NumPy and SciPy to one thread.

    They have threads of their own, which go on spinning for a while when they are done, and so
    take torch's cores away: training between two small solves ran at half its speed.
    """
    limit: AbstractContextManager[object] = _pools("blas").limit(limits=1, user_api="blas")
    return limit


def one_core() -> AbstractContextManager[object]:
    """Keeps torch to one core in the thread that calls this, and in that thread alone.

    The other cores are for the rest of the process: worker threads of OpenMP spin when they are
    done, and would take them away from decoding and training.
    """
    torch.get_num_threads()  # torch sets a thread's number when it first asks; later it stays
    limit: AbstractContextManager[object] = _pools("openmp").limit(limits=1, user_api="openmp")
    return limit


@lru_cache
def _pools(kind: str) -> threadpoolctl.ThreadpoolController:
    # It looks through the libraries that are loaded now. One a kind: whoever bounds a kind has
    # loaded what it bounds.
    return threadpoolctl.ThreadpoolController()
