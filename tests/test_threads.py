"""Bounds on threads: where they hold, and that they end."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import threading
import threadpoolctl
import torch
from scipy import linalg
from saln import threads

def pools(kind):
    return {pool["num_threads"] for pool in threadpoolctl.threadpool_info()
            if pool["user_api"] == kind}

torch.set_num_threads(3)
assert torch.get_num_threads() == 3
with threadpoolctl.threadpool_limits(2, user_api="blas"):
    with threads.limited_threads(1):
        assert torch.get_num_threads() == 1 and pools("blas") == {1}
    assert torch.get_num_threads() == 3 and pools("blas") == {2}
    with threads.limited_threads(None):
        assert torch.get_num_threads() == 3 and pools("blas") == {2}
    with threads.one_linear_algebra_thread():
        assert torch.get_num_threads() == 3 and pools("blas") == {1}
    assert pools("blas") == {2}

found = []
def work():
    with threads.one_core():
        found.append(torch.get_num_threads())
        inside.set()
        out.wait(60)
inside, out = threading.Event(), threading.Event()
thread = threading.Thread(target=work)
thread.start()
inside.wait(60)
found.append(torch.get_num_threads())
out.set()
thread.join()
assert found == [1, 3], found
"""


def test_threads_are_bounded_where_and_as_long_as_asked():
    subprocess.run([sys.executable, "-W", "error", "-c", PROGRAM], check=True)
