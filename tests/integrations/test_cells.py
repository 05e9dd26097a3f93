"""Front end x workers x ranks x what happens to a run: the indices that it was trained on.

Each cell is a run through the real library. What it was trained on is compared with the sampler
alone in one process, which is never stopped; or the library's own spelling is refused in a line.
"""

from __future__ import annotations

import functools
import json
import time
import warnings
from pathlib import Path

import pytest
from helpers import cell_processes as cells
from helpers.warm_processes import WarmBranch

pytestmark = pytest.mark.filterwarnings("default:A run hung, and is begun anew")
TESTS = Path(__file__).parents[1]
RANKS = (1, 2)


def start(warm, folder, ranks):
    """Starts the processes of all runs with so many ranks."""
    folder.mkdir()
    script = TESTS / "helpers" / "cell_processes.py"
    groups = [{}] if ranks == 1 else warm.groups(ranks)
    return [
        warm.start([folder], folder, script=script, environment=group, name=f"rank-{rank}")
        for rank, group in enumerate(groups)
    ]


def end_together(processes, seconds):
    """Waits for all; where one fails, others would wait for it half an hour. Whether all ended."""
    deadline = time.monotonic() + seconds
    while None in (statuses := [process.poll() for process in processes]):
        if any(statuses) or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    if any(statuses):
        pytest.fail("\n\n".join(process.where() for process in processes))
    return None not in statuses


@pytest.fixture(scope="module")
def libraries(warm):
    """Starts processes that have imported them: 3 s for all in the place of 3 s for each."""
    server = WarmBranch(warm, cells.IMPORTED)
    yield server
    server.close()


@pytest.fixture(scope="module")
def results(libraries, tmp_path_factory):
    """By ranks and the name of a cell: what each rank gave."""
    for seconds in (240, 240):
        root = tmp_path_factory.mktemp("cells")
        started = [start(libraries, root / str(ranks), ranks) for ranks in RANKS]
        processes = [process for group in started for process in group]
        try:
            if end_together(processes, seconds):
                break
            # Once in a hundred times a worker hung as it was forked (wait_before_forks says why).
            where = "\n\n".join(process.where() for process in processes)
            warnings.warn(f"A run hung, and is begun anew.\n{where}", stacklevel=1)
        finally:
            for process in processes:
                process.kill()
    else:
        pytest.fail("a run hung twice; the warnings say where")
    return {
        ranks: [
            json.loads((root / str(ranks) / f"{rank}.json").read_text()) for rank in range(ranks)
        ]
        for ranks in RANKS
    }


# What a library cannot do with its own spelling; each is refused in one line with the cure.
REFUSED = {
    ("Accelerate's own prepare", 2, "whole"): "saln.integrations.accelerate.prepare",
    ("Accelerate's own prepare, its epochs", 2, "whole"): "saln.integrations.accelerate.prepare",
    ("Accelerate's own prepare, its epochs", 1, "resumed"): "loader.set_epoch(...)",
    ("Lightning, plain loader", 2, "whole"): "Trainer(use_distributed_sampler=False)",
    **{
        (front, ranks, name): "SelectedDataModule(dataset, batches)"
        for front in ("Lightning, plain loader", "Lightning, plain loader, own shares")
        for ranks in RANKS
        for name in ("resumed", "schedule")
    },
    **{
        ("Transformers", ranks, name): "give SelectedBatches one filter_ratio"
        for ranks in RANKS
        for name in ("schedule", "schedule, resumed")
    },
}
CELLS = {
    (front, workers, ranks, name): (settings, origin)
    for front in cells.FRONTS
    for workers in cells.WORKERS
    for ranks in RANKS
    for name, settings, origin in cells.table(front, workers, ranks)
}


@functools.cache
def steps_of(stream, **settings):
    """The epoch and the global batch of every step of a run that is never stopped."""
    epochs = (cells.stream_reference if stream else cells.reference)(**settings)
    return [(epoch, batch) for epoch, batches in enumerate(epochs) for batch in batches]


def global_steps(parts):
    """The epoch and the global batch of every step: the shares in the order of the ranks."""
    shares = [list(zip(part["epochs"], part["indices"], strict=True)) for part in parts]
    return [
        (same[0][0], [index for _, indices in same for index in indices])
        for same in zip(*shares, strict=True)
    ]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("front", "workers", "ranks", "name"), CELLS)
def test_every_step_trains_on_what_the_sampler_chose(results, front, workers, ranks, name):
    parts = [rank[f"{front} | {workers} | {name}"] for rank in results[ranks]]
    refused = REFUSED.get((front, ranks, name))
    for part in parts:
        assert "failed" not in part, part["failed"]
        assert (refused is not None) == ("refused" in part), part
    if refused is not None:
        for part in parts:
            assert refused in part["refused"]
            assert "\n" not in part["refused"]
        return
    settings, origin = CELLS[front, workers, ranks, name]
    whole = steps_of(front == "Accelerate, stream", **settings)
    assert len(whole) == (13 if settings.get("ratio") == "schedule" else 18)
    assert global_steps(parts) == whole[0 if origin is None else origin[1] :]


@pytest.mark.parametrize(
    ("front", "workers", "ranks"),
    [cell[:3] for cell in CELLS if cell[3] == "another seed"],
)
def test_workers_draw_by_the_seed_the_epoch_and_the_rank(results, front, workers, ranks):
    # Workers that do not persist begin every epoch anew, so also the last of a run that went on.
    same, steps = ("the same again", 18) if "persistent" in workers else ("resumed", 6)
    drawn, again, other = (
        [rank[f"{front} | {workers} | {name}"]["drawn"] for rank in results[ranks]]
        for name in ("whole", same, "another seed")
    )
    assert [run[-steps:] for run in drawn] == [run[-steps:] for run in again]
    # By torch, NumPy and random, for every example of every step of every rank: no two alike.
    for library in range(3):
        values = [
            row[library]
            for run in (drawn, other)
            for steps in run
            for step in steps
            for row in step
        ]
        assert len(values) == 2 * 18 * cells.SIZE
        assert len(set(values)) == len(values)
