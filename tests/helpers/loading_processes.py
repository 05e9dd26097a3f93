"""Runs of every way to load chosen batches, stopped and gone on with; also in groups of ranks.

A run is a list of epochs, each a list of batches of indices. What is expected is always what
one process names without a stop, without a loader.
"""

from __future__ import annotations

import copy
import pickle
import warnings
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

import saln
from saln.loading import candidate_fields
from saln.loading.filter_schedule import FilterSchedule
from saln.loading.selected_batches import SelectedBatches
from saln.loading.selected_stream import SelectedStream
from saln.selection import BalancedCurriculum
from saln.selection.curriculum import Curriculum
from saln.selection.registry import SELECTORS as ALL_SELECTORS

N, SIZE, SEED = 60, 4, 5
ROWS = np.random.default_rng(2).standard_normal((N, 5)).astype(np.float32)
KEYS = [f"k{row:03}" for row in range(N)]
EPOCHS = 3
# 7, 5 and 3 steps, or 7 in each: odd, so that workers end out of step.
SCHEDULE = FilterSchedule(0.5, 0.75, epochs=EPOCHS)
# What is closer to a corner than to others; every seventh label is wrong.
LABELS = (ROWS[:, :3].argmax(axis=1) + (np.arange(N) % 7 == 0)) % 3
TEACHER = saln.features_as_teacher(ROWS, LABELS)
SELECTORS = {
    **{name: kind for name, kind in ALL_SELECTORS.items() if kind.chooses_before_loading()},
    "balanced-curriculum": partial(BalancedCurriculum, epochs=EPOCHS),
    "curriculum": partial(Curriculum, 3.0, epochs=EPOCHS),
}


class Positions(Dataset):
    """Each example is its own position; draws once, to show the worker's seed."""

    def __len__(self):
        return N

    def __getitem__(self, index):
        if get_worker_info() is None:  # no test may draw from the global generators
            return index, 0.0, 0.0
        return index, float(torch.rand(())), float(np.random.rand())  # noqa: NPY002


def _columns(rows):
    """Lists: for every tensor that a worker sends it opens a connection."""
    return [list(column) for column in zip(*rows, strict=True)]


class Keyed:
    """The same order in every epoch."""

    def __iter__(self):
        return ((key, key) for key in KEYS)


class Own:
    """One's own loop over the sampler."""

    workers, persistent = 0, False

    def __init__(self, selector="uniform", ratio=0.5, workers=0, persistent=False):
        self.workers, self.persistent = workers, persistent
        self.chosen = self.make(selector, ratio)
        self.trained = 0
        self.draws = []

    def make(self, selector, ratio):
        return SelectedBatches(
            ROWS,
            labels=LABELS,
            teacher=TEACHER,
            selector=SELECTORS[selector](),
            batch_size=SIZE,
            filter_ratio=ratio,
            seed=SEED,
        )

    def begin(self):
        return (torch.tensor(batch) for batch in self.chosen)

    def indices(self, batch):
        return batch

    def epoch(self, number, stop=None, *, set_it=True):
        """One epoch, or what is left of it, up to so many batches in all."""
        if set_it:
            self.chosen.set_epoch(number)
        given = []
        for batch in self.begin():
            indices = self.indices(batch)
            given.append(indices.tolist())
            self.trained += 1
            self.chosen.observe(indices, (indices * (number + 2)) % 11 / 7)
            if stop is not None and self.trained == stop:
                return given
        self.trained = 0
        return given

    def save(self):
        return {"chosen": self.chosen.state_dict(steps=self.trained), "trained": self.trained}

    def load(self, state):
        self.chosen.load_state_dict(state["chosen"])
        self.trained = state["trained"]


class Loader(Own):
    """torch's DataLoader; the loop counts."""

    def make(self, selector, ratio):
        chosen = super().make(selector, ratio)
        self.loader = self.kind()(
            Positions(),
            batch_sampler=chosen,
            num_workers=self.workers,
            persistent_workers=self.persistent,
            generator=chosen.generator,
            collate_fn=_columns,
        )
        return chosen

    def kind(self):
        return DataLoader

    def begin(self):
        return self.loader

    def indices(self, batch):
        indices, *draws = batch
        self.draws.append(draws)
        return torch.tensor(indices)


class Stateful(Loader):
    """torchdata's, which counts itself."""

    def kind(self):
        from torchdata.stateful_dataloader import StatefulDataLoader

        return StatefulDataLoader

    def save(self):
        state = {"loader": self.loader.state_dict(), "trained": self.trained}
        # What was told since the loader asked for the batch is the sampler's to save.
        return state | {"remembered": self.chosen.selector.state_dict()}

    def load(self, state):
        self.loader.load_state_dict(state["loader"])
        self.trained = state["trained"]


class Stream(Own):
    """One's own loop over the stream."""

    def make(self, selector, ratio):
        return SelectedStream(
            Keyed(),
            features=ROWS,
            labels=LABELS,
            teacher=TEACHER,
            keys=KEYS,
            selector=SELECTORS[selector](),
            batch_size=SIZE,
            filter_ratio=ratio,
            seed=SEED,
            shuffle_buffer=20,
        )

    def begin(self):
        return self.chosen

    def indices(self, batch):
        return batch.indices

    def save(self):
        return {"chosen": self.chosen.state_dict(), "trained": self.trained}


class StreamLoader(Stream):
    """torch's DataLoader over the stream; the loop counts."""

    def make(self, selector, ratio):
        chosen = super().make(selector, ratio)
        self.loader = self.kind()(
            chosen,
            batch_size=None,
            num_workers=self.workers,
            persistent_workers=self.persistent,
            generator=chosen.generator,
        )
        return chosen

    def kind(self):
        return DataLoader

    def begin(self):
        return self.loader

    def save(self):
        return Own.save(self)


class StreamStateful(StreamLoader):
    """torchdata's over the stream."""

    kind = Stateful.kind

    def save(self):
        return {"loader": self.loader.state_dict(), "trained": self.trained}

    load = Stateful.load


FRONTS = {
    "own loop": Own,
    "DataLoader": Loader,
    "StatefulDataLoader": Stateful,
    "stream": Stream,
    "stream, DataLoader": StreamLoader,
    "stream, StatefulDataLoader": StreamStateful,
}
# (workers, persistent); a loop without a loader has none.
WORKERS = {"0": (0, False), "2": (2, False), "2 persistent": (2, True)}


def sent(state):
    """As through a file."""
    return pickle.loads(pickle.dumps(copy.deepcopy(state)))


@lru_cache
def whole(stream=False, selector="uniform", ratio=0.5):
    """What one process names without a loader and without a stop."""
    one = (Stream if stream else Own)(selector, ratio)
    return [one.epoch(number) for number in range(EPOCHS)]


def resumed(make, stops):
    """Epoch 1 stopped after so many steps, again and again, in fresh objects; then the next."""
    run, seen = make(), []
    if run.persistent or not run.workers:  # other workers know of no epoch before
        run.epoch(0)
    for stop in stops:
        seen += run.epoch(1, stop)
        state = sent(run.save())
        run = make()
        run.load(state)
    seen += run.epoch(1)
    return seen, [run.epoch(number) for number in range(2, EPOCHS)]


def ended(make, cases):
    """Saved at the end of epoch 0; for each case the epochs that a fresh object gives then.

    Args:
        make: A front end.
        cases: Pairs: whether the loop saw that the epoch had ended; whether epoch 0 is set first,
            once more.
    """
    states, steps, given = {}, 7, []
    for asked, again in cases:
        if asked not in states:
            run = make()
            run.epoch(0, None if asked else steps)
            run.trained = steps
            states[asked] = run.save()
        run = make()
        run.load(sent(states[asked]))
        left = run.epoch(0) if again else []
        run.trained = 0
        given.append((left, [run.epoch(number) for number in range(1, EPOCHS)]))
    return given


def ends(workers, selector):
    """The ways to end an epoch that are tried: two of four, where many workers start."""
    cases = [(True, False), (False, True)]
    if workers == "0" or (workers == "2 persistent" and selector == "uniform"):
        cases += [(True, True), (False, False)]
    return cases


def cell(name, workers, what, selector="uniform"):
    """One cell of the table: what a front end gives; see ``WANTED``."""
    front, options = (
        FRONTS[name],
        dict(zip(("workers", "persistent"), WORKERS[workers], strict=True)),
    )

    def make(**changes):
        return front(selector, **options, **changes)

    if what == "resume":
        return resumed(make, [3])
    if what == "second resume":
        return resumed(make, [1, 3, 6] if workers == "0" else [1, 6])
    if what == "schedule":
        return resumed(lambda: make(ratio=SCHEDULE), [3])
    if what == "epochs":
        run = make()
        return [run.epoch(number) for number in range(EPOCHS)]
    if what == "epoch end":
        return ended(make, ends(workers, selector))
    raise AssertionError(what)


def wanted(stream, workers, what, selector="uniform"):
    """The same from one process that was not stopped."""
    plain, scheduled = whole(stream, selector), whole(stream, selector, SCHEDULE)
    return {
        "resume": (plain[1], plain[2:]),
        "second resume": (plain[1], plain[2:]),
        "schedule": (scheduled[1], scheduled[2:]),
        "epochs": plain,
        "epoch end": [([], plain[1:])] * len(ends(workers, selector)),
    }[what]


WHATS = ("epochs", "resume", "second resume", "epoch end", "schedule")


def cells_alone(cells):
    """What each cell gives in a process that holds little, whose workers are quickly forked."""
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="'set_vital' is deprecated")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        return [cell(*one) for one in cells]


def cells_of_a_rank(rank, world_size, folder, cells, by_cleanlab):
    """Writes what a rank gives in each cell, without being told which rank it is.

    ``by_cleanlab``: what cleanlab makes of the labels, which takes 1.5 s to import.
    """
    candidate_fields.beliefs_by_cleanlab = lambda *labels: by_cleanlab
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world_size
    )
    try:
        given = cells_alone(cells)
        run = Own("infobatch")
        run.epoch(0)
        given.append(run.chosen.selector.state_dict()["next"].tolist())
        Path(folder, f"rank-{rank}").write_bytes(pickle.dumps(given))
    finally:
        torch.distributed.destroy_process_group()
