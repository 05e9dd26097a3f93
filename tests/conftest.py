"""Fixtures that many tests share."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Tests are small: more threads only wait for each other, long on a busy machine. Before torch is
# imported, and for every process that a test starts.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest
import torch
from PIL import Image

if TYPE_CHECKING:
    from helpers.warm_processes import WarmServer

ROOT = Path(__file__).resolve().parents[1]
# Begun first, so that none is the last that one process works on while the other has nothing.
SLOWEST = (
    "test_types.py", "integrations/test_cells.py", "integrations/test_ray.py",
    "curation/test_on_ray.py", "loading/test_cells.py", "integrations/test_examples.py",
    "training/test_processes.py", "benchmarks/test_gpu.py", "damage/test_select_damage.py",
    "report/test_browser.py", "cli/test_main.py", "test_wheel.py", "experiments/test_run.py",
    "test_plugin.py", "damage/test_run_damage.py", "spectral/test_fiedler.py",
    "experiments/test_confidence.py", "examples/test_quickstart.py", "experiments/test_progress.py",
    "review/test_page.py", "experiments/test_golden.py", "selection/test_conformance.py",
    "labels/test_judging.py", "review/test_killed_reviews.py", "benchmarks/test_scale.py",
)  # fmt: skip


# Given to one process, one after the other: they share a cluster.
ON_RAY = {"tests/curation/test_on_ray.py", "tests/integrations/test_ray.py"}


def find_data_root() -> Path | None:
    """The folder with the real images: $SALN_DATA_ROOT, or ../shared/data beside the checkout."""
    given = os.environ.get("SALN_DATA_ROOT")
    root = Path(given) if given else ROOT.parent / "shared" / "data"
    return root if (root / "oxford-iiit-pet").is_dir() else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slowest files first; all others, and the tests of each, stay in their order."""
    places = {ROOT / "tests" / name: place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: places.get(item.path, len(SLOWEST)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """In several processes: the tests of a file together, and those that share a cluster."""
    from xdist.scheduler import LoadFileScheduling

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "Ray" if file in ON_RAY else file

    return Together(config, log) if config.option.dist == "loadfile" else None


def pytest_collection() -> None:
    """What is imported stays: nothing is searched for garbage until all of it is there."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Captured logs with file names that are not UTF-8 must not end a run in two processes."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report


@pytest.fixture(scope="session")
def data_root() -> Path:
    root = find_data_root()
    if root is None:
        pytest.skip("no real images: neither $SALN_DATA_ROOT nor ../shared/data holds them")
    return root


@pytest.fixture(scope="session", autouse=True)
def signals_are_heard() -> None:
    """A shell starts jobs deaf to Ctrl-C, and nohup to SIGHUP; so would be what they start."""
    usual = {signal.SIGINT: signal.default_int_handler}
    if hasattr(signal, "SIGHUP"):
        usual[signal.SIGHUP] = signal.SIG_DFL
    for number, handler in usual.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_disks() -> Iterator[None]:
    """What a killed process has written the system still has; only a loss of power takes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True)
def no_global_randomness() -> Iterator[None]:
    """No test, and so no code under test, may move torch's or NumPy's global generators."""
    before = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    yield
    after = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    assert torch.equal(before[0], after[0]), "torch's global generator was used"
    assert np.array_equal(before[1][1], after[1][1]), "NumPy's global generator was used"


@pytest.fixture(scope="session")
def warm() -> Iterator[WarmServer]:
    """Starts processes that need no time for imports; see there."""
    from helpers.warm_processes import WarmServer

    server = WarmServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """Of the cluster that all tests on Ray share."""
    pytest.importorskip("ray")
    from helpers import ray_cluster

    yield ray_cluster.address()
    ray_cluster.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, None, None]:
    """No cluster is left beside tests that are not on it."""
    yield
    if str(item.path.relative_to(ROOT)) in ON_RAY and (
        nextitem is None or str(nextitem.path.relative_to(ROOT)) not in ON_RAY
    ):
        from helpers import ray_cluster

        ray_cluster.stop()


@pytest.fixture(scope="module")
def quick_figures() -> Iterator[None]:
    """For the tests of a file: reports whose figures are not drawn; see there."""
    from helpers.quick_figures import not_drawn

    with not_drawn():
        yield


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's Chromium."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (extra 'dev')"
    )
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on the path; install the system's package 'chromium'")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield found
        found.close()
    gc.collect()  # its greenlets


@pytest.fixture(scope="module")
def same_judgments() -> Iterator[None]:
    """For the tests of a file: the same labels are judged once; see there."""
    from helpers.same_judgments import learned_once

    with learned_once():
        yield


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Two classes of 30 small pictures each, as files: noise around red or blue."""
    random = np.random.Generator(np.random.PCG64(0))
    folder = tmp_path / "images"
    for name, channel in (("red", 0), ("blue", 2)):
        (folder / name).mkdir(parents=True)
        for number in range(30):
            pixels = random.integers(0, 120, size=(12, 10, 3), dtype=np.uint8)
            pixels[..., channel] += 120
            Image.fromarray(pixels).save(folder / name / f"{number:02}.png")
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a command in a folder of its own; gives (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    from saln.cli import main

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["saln", *arguments])
        try:
            status = main(list(arguments))
        except SystemExit as stop:  # tyro's own way out
            status = stop.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call
