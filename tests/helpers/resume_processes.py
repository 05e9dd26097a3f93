"""Training through each library, to be stopped here and gone on with in another process."""

from __future__ import annotations

import itertools
import multiprocessing
import sys

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from saln.loading.selected_batches import SelectedBatches
from saln.selection import RS2, SALN, InfoBatch, Uniform

EPOCHS = 3
STEPS = 6
SELECTORS = {"uniform": Uniform, "saln": SALN, "rs2": RS2, "infobatch": InfoBatch}


class Positions(Dataset):
    """Each example is its own position."""

    def __len__(self):
        return 90

    def __getitem__(self, index):
        return index


def sampler(name):
    features = np.random.Generator(np.random.PCG64(1)).random((90, 5))
    return SelectedBatches(
        features, selector=SELECTORS[name](), batch_size=3, filter_ratio=0.8, seed=7
    )


class Own:
    """Our own iterator."""

    def __init__(self, name, folder):
        self.batches = sampler(name)

    def loader(self):
        self.iterator = iter(self.batches)
        return map(torch.tensor, self.iterator)

    def save(self):
        return self.iterator.state_dict()

    def load(self, state):
        self.batches.load_state_dict(state)


class Stateful(Own):
    """torchdata's StatefulDataLoader with two workers."""

    def __init__(self, name, folder):
        from torchdata.stateful_dataloader import StatefulDataLoader

        super().__init__(name, folder)
        self.stateful = StatefulDataLoader(
            Positions(), batch_sampler=self.batches, num_workers=2, generator=torch.Generator()
        )

    def loader(self):
        return self.stateful

    def save(self):
        return self.stateful.state_dict()

    def load(self, state):
        self.stateful.load_state_dict(state)


class Accelerated(Own):
    """Accelerate, which looks one batch ahead."""

    def __init__(self, name, folder):
        from accelerate import Accelerator

        from saln.integrations.accelerate import prepare

        super().__init__(name, folder)
        self.folder = folder
        self.accelerator = Accelerator(cpu=True)
        plain = DataLoader(Positions(), batch_sampler=self.batches, generator=torch.Generator())
        self.prepared = prepare(self.accelerator, plain)

    def loader(self):
        return self.prepared

    def save(self):
        self.accelerator.save_state(self.folder, safe_serialization=False)

    def load(self, state):
        self.accelerator.load_state(self.folder)


LIBRARIES = {"own": Own, "stateful": Stateful, "accelerate": Accelerated}


def train(run, epochs, stop=None):
    """The batches of epochs, the losses told; ``stop``: after so many of the last one."""
    seen = []
    for epoch in epochs:
        run.batches.set_epoch(epoch)
        last = epoch == epochs[-1]
        for indices in itertools.islice(run.loader(), stop if last else None):
            seen.append(indices.tolist())
            run.batches.observe(indices, (indices * (epoch + 2)) % 11 / 7)
    return seen


def begin(library, name, folder, epoch, step):
    """Trains up to a step of an epoch, counted from 1; the state and the batches so far."""
    run = LIBRARIES[library](name, folder)
    seen = train(run, range(epoch + 1), stop=step)
    return seen, run.save()


def as_started():
    """Makes a spawned process one that a person starts: workers of its loaders are forked.

    Else they would be spawned too, and every one imported torch, for every epoch.
    """
    torch.set_num_threads(1)
    if sys.platform == "linux":
        multiprocessing.set_start_method("fork", force=True)


def finish(library, name, folder, epoch, state):
    """The batches that are left."""
    run = LIBRARIES[library](name, folder)
    run.load(state)
    return train(run, range(epoch, EPOCHS))
