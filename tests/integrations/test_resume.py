"""Saved at any step of any epoch and loaded in another process: the rest is identical."""

from __future__ import annotations

import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor

import pytest
from helpers import resume_processes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = [
    pytest.mark.filterwarnings(
        # Workers are forked while the thread that chooses ahead waits: it holds nothing.
        "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"
    ),
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning"),  # torchdata 0.11
]


@pytest.fixture(scope="module")
def elsewhere():
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, initializer=resume_processes.as_started) as process:
        yield process


WHERE = {
    "name": st.sampled_from(sorted(resume_processes.SELECTORS)),
    "epoch": st.integers(0, resume_processes.EPOCHS - 1),
    "step": st.integers(1, resume_processes.STEPS),
}
SETTINGS = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}


@pytest.mark.parametrize("library", ["own", "accelerate"])
@settings(max_examples=6, **SETTINGS)
@given(**WHERE)
def test_another_process_goes_on_with_the_same_batches(elsewhere, library, name, epoch, step):
    goes_on(elsewhere, library, name, epoch, step)


# Its workers start anew for every epoch, which takes a second or so: fewer examples. Its state is
# from when a batch was asked for and lacks losses told later, so not with infobatch.
@settings(max_examples=2, **SETTINGS)
@given(**WHERE | {"name": st.sampled_from(["rs2", "saln", "uniform"])})
def test_so_does_a_stateful_loader_with_two_workers(elsewhere, name, epoch, step):
    goes_on(elsewhere, "stateful", name, epoch, step)


def goes_on(elsewhere, library, name, epoch, step):
    whole = resume_processes.train(resume_processes.Own(name, None), range(resume_processes.EPOCHS))
    assert len(whole) == resume_processes.EPOCHS * resume_processes.STEPS
    with tempfile.TemporaryDirectory() as folder:
        seen, state = resume_processes.begin(library, name, folder, epoch, step)
        assert seen == whole[: len(seen)]
        assert len(seen) == epoch * resume_processes.STEPS + step
        work = elsewhere.submit(resume_processes.finish, library, name, folder, epoch, state)
        assert work.result() == whole[len(seen) :]
