"""How many threads torch and the linear algebra under NumPy and SciPy may use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

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
