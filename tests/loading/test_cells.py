"""Front end x workers x ranks x what happens: each a cell of the table in docs/resume.md.

Indices are compared with those of one process that was not stopped and has no loader.
"""

from __future__ import annotations

import itertools
import pickle
import threading
import warnings

import numpy as np
import pytest
from helpers.loading_processes import (
    FRONTS,
    LABELS,
    ROWS,
    SELECTORS,
    WHATS,
    WORKERS,
    Loader,
    Own,
    Stream,
    StreamLoader,
    cells_alone,
    cells_of_a_rank,
    resumed,
    wanted,
    whole,
)

from saln.selection.cleanlab_pruned import beliefs_by_cleanlab

pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")
CELLS = [
    (name, workers, what)
    for name in FRONTS
    for workers in (WORKERS if "Loader" in name else ["0"])
    for what in WHATS
    if workers == "0" or what != "resume"  # a worker costs much; "second resume" is more
]
ALONE = [one for one in CELLS if one[1] == "0"]
# Chosen by a teacher, and by how far the training is, which a worker's copy has to know.
CURRICULUM = "balanced-curriculum"
REMEMBER = ("infobatch", "remembered-loss", "reducible")


def same(given, expected):
    """Shorter than pytest's difference of long lists."""
    assert given == expected, f"{str(given)[:300]}\n!=\n{str(expected)[:300]}"


def share(batches, rank, world_size):
    """A rank's part of every batch, however deep they lie."""
    if batches and isinstance(batches[0], int):
        part = len(batches) // world_size
        return batches[rank * part : (rank + 1) * part]
    return type(batches)(share(one, rank, world_size) for one in batches)


IN_ONE = [*((*one, "uniform") for one in CELLS), *((*one, CURRICULUM) for one in ALONE)]


@pytest.fixture(scope="module")
def in_one(warm, tmp_path_factory):
    """What each cell gives in one process; the curriculum with workers: on two ranks, below."""
    folder = tmp_path_factory.mktemp("alone")
    return dict(zip(IN_ONE, warm.call_together(cells_alone, [(IN_ONE,)], folder)[0], strict=True))


@pytest.mark.parametrize(("name", "workers", "what", "selector"), IN_ONE)
def test_one_rank(in_one, name, workers, what, selector):
    expected = wanted(name.startswith("stream"), workers, what, selector)
    same(in_one[name, workers, what, selector], expected)


def test_two_ranks(warm, tmp_path):
    """Processes of their own, as torchrun starts them, whose loaders can fork.

    One start of them serves all cells; their workers persist, and are given the curriculum.
    """
    cells = [(*one, "uniform") for one in ALONE]
    cells += [(*one, CURRICULUM) for one in CELLS if one[1] != "2"]
    cells += [("own loop", "0", "epochs", name) for name in SELECTORS]
    cells += [("stream", "0", "resume", name) for name in REMEMBER]
    doubts = beliefs_by_cleanlab(ROWS, LABELS, 3)
    ranks = [(rank, 2, tmp_path, cells, doubts) for rank in (0, 1)]
    warm.call_together(cells_of_a_rank, ranks, tmp_path)
    alone = Own("infobatch")
    alone.epoch(0)
    told = alone.chosen.selector.state_dict()["next"]
    for rank in range(2):
        given = pickle.loads((tmp_path / f"rank-{rank}").read_bytes())
        # Each told its own losses; each knows those of both.
        np.testing.assert_array_equal(given.pop(), told)
        for (name, *about), one in zip(cells, given, strict=True):
            expected = share(wanted(name.startswith("stream"), *about), rank, 2)
            same((name, *about, one), (name, *about, expected))


def test_the_reference_is_no_trivial_one():
    for stream in (False, True):
        epochs = whole(stream)
        assert [len(epoch) for epoch in epochs] == [7, 7, 7]
        assert epochs[0] != epochs[1] != epochs[2]
    # Each of which chooses by a rule of its own.
    assert len({str(whole(False, name)) for name in SELECTORS}) == len(SELECTORS)


@pytest.mark.parametrize("selector", REMEMBER)
@pytest.mark.parametrize("name", ["own loop", "DataLoader", "stream"])
def test_what_a_selector_remembers_is_gone_on_with(name, selector):
    """These choose by the losses that they were told, from the next epoch on."""
    front = FRONTS[name]

    def make():
        return front(selector)

    run = make()
    expected = [run.epoch(number) for number in range(3)]
    silent = front(selector)
    silent.chosen.observe = lambda indices, losses: None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert expected[2] != [silent.epoch(number) for number in range(3)][2]
    same(resumed(make, [2, 5]), (expected[1], expected[2:]))


@pytest.mark.parametrize("front", [Loader, StreamLoader])
def test_workers_draw_by_seed_epoch_position_and_rank(front):
    """Compared is what torch and NumPy draw in the workers."""
    if front is StreamLoader:
        chosen = front(workers=1).chosen
        seeds = []
        for epoch in (0, 1, 0):
            chosen.set_epoch(epoch)
            seeds.append(chosen.generator.initial_seed())
        assert seeds[0] == seeds[2] != seeds[1]
        return

    def drawn(epoch, rank=0, load=None):
        run = front(workers=1)
        run.chosen.share_among(rank, 2)
        if load is not None:
            run.load(load)
        run.epoch(epoch)
        return run.draws

    first = drawn(0)
    assert first[0][0]
    assert first == drawn(0)
    assert first != drawn(1)
    assert first != drawn(0, rank=1)
    part = front(workers=1)
    part.epoch(0, 2)
    rest = drawn(0, load=part.save())
    assert rest == drawn(0, load=part.save())
    assert rest != first[2:]


def test_a_loaded_position_survives_iterators_that_are_never_asked():
    for front in (Loader, Stream):
        run = front()
        run.epoch(1, 3)
        state = run.save()
        again = front()
        again.load(state)
        iter(again.chosen), iter(again.chosen)
        assert again.chosen.state_dict()["step"] == 3
        same(again.epoch(1), whole(front is Stream)[1][3:])


@pytest.mark.parametrize("front", [Loader, Stream])
def test_loading_twice_and_a_state_from_before_the_first_batch(front):
    run = front()
    run.chosen.set_epoch(1)
    start = run.save()
    run.epoch(1, 4)
    later = run.save()
    again = front()
    again.load(later)
    again.load(start)
    same(again.epoch(1), whole(front is Stream)[1])
    again.load(later)
    same(again.epoch(1), whole(front is Stream)[1][4:])


@pytest.mark.parametrize("front", [Loader, Stream, StreamLoader])
def test_an_epoch_that_was_left_begins_anew_when_it_is_set_again(front):
    run = front()
    run.epoch(1, 2)
    run.trained = 0
    same(run.epoch(1), whole(front is not Loader)[1])


def test_a_part_of_a_loader_leaves_nothing_open():
    run = Loader(workers=0)
    for epoch in range(2):
        run.chosen.set_epoch(epoch)
        same(
            [batch[0] for batch in itertools.islice(run.loader, 2)],
            whole()[epoch][:2],
        )
    assert not [one for one in threading.enumerate() if one.name == "saln-prefetch"]


def test_a_state_in_the_middle_wins_over_another_epoch_and_says_so():
    for front in (FRONTS["StatefulDataLoader"], FRONTS["stream, StatefulDataLoader"]):
        run = front()
        run.epoch(1, 3)
        state = run.save()
        again = front()
        again.load(state)
        with pytest.warns(UserWarning, match=r"set_epoch\(2\) was called.*middle of epoch 1"):
            left = again.epoch(2)
        same(left, whole(front is not FRONTS["StatefulDataLoader"])[1][3:])


@pytest.mark.parametrize("name", ["own loop", "DataLoader", "stream", "stream, DataLoader"])
def test_an_epoch_that_is_never_set_is_said_once(name):
    run = FRONTS[name]()
    run.epoch(0, set_it=False)
    with pytest.warns(UserWarning, match="second iteration of epoch 0 begins.*set_epoch"):
        run.epoch(0, set_it=False)
    run.epoch(0, set_it=False)


@pytest.mark.parametrize("front", [Loader, Stream])
def test_a_selector_that_is_told_nothing_is_named(front):
    run = front("infobatch")
    run.chosen.set_epoch(0)
    list(run.begin())
    run.chosen.set_epoch(1)
    with pytest.warns(UserWarning, match="InfoBatch chooses by the losses.*given none in epoch 0"):
        list(run.begin())
