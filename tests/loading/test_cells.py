"""Front end x workers x ranks x what happens: each a cell of the table in docs/resume.md.

Indices are compared with those of one process that was not stopped and has no loader.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest
from loading_processes import (
    FRONTS,
    WHATS,
    WORKERS,
    cell,
    cells_of_a_rank,
    wanted,
    whole,
)

pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")
CELLS = [
    (name, workers, what)
    for name in FRONTS
    for workers in (WORKERS if "Loader" in name else ["0"])
    for what in WHATS
]


def same(given, expected):
    """Shorter than pytest's difference of long lists."""
    assert given == expected, f"{str(given)[:300]}\n!=\n{str(expected)[:300]}"


def share(batches, rank, world_size):
    """A rank's part of every batch, however deep they lie."""
    if batches and isinstance(batches[0], int):
        part = len(batches) // world_size
        return batches[rank * part : (rank + 1) * part]
    return type(batches)(share(one, rank, world_size) for one in batches)


@pytest.mark.parametrize(("name", "workers", "what"), CELLS)
def test_one_rank(name, workers, what):
    same(cell(name, workers, what), wanted(name.startswith("stream"), what))


def test_two_ranks(tmp_path):
    """One start of the processes serves all cells; every other one has workers that persist."""
    cells = [one for one in CELLS if one[1] != "2"]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as processes:
        arguments = zip(*[(rank, 2, tmp_path / "meeting", cells) for rank in range(2)], strict=True)
        ranks = list(processes.map(cells_of_a_rank, *arguments))
    for one in cells:
        expected = wanted(one[0].startswith("stream"), one[2])
        for rank, given in enumerate(ranks):
            same((one, given[one]), (one, share(expected, rank, 2)))


def test_the_reference_is_no_trivial_one():
    for stream in (False, True):
        epochs = whole(stream)
        assert [len(epoch) for epoch in epochs] == [15, 15, 15]
        assert epochs[0] != epochs[1] != epochs[2]
