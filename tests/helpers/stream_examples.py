"""Streams of few samples, and the batches that an oracle which reads them whole would give."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

import saln

N, WIDTH, SIZE, RATIO = 203, 6, 4, 0.75
CANDIDATES = 16
STEPS = N // CANDIDATES
FEATURES = np.random.default_rng(0).standard_normal((N, WIDTH)).astype(np.float32)
KEYS = [f"k{row:03}" for row in range(N)]
ORDER = np.random.default_rng(1).permutation(N)


class Source:
    """Gives (key, raw) in an order that is not the rows'; counts what it was asked for."""

    def __init__(self, order=ORDER):
        self.order = order
        self.read = 0

    def __iter__(self):
        for row in self.order:
            self.read += 1
            yield KEYS[row], b"raw %d" % row


class Stateful(Source):
    """Puts itself back."""

    def __init__(self):
        super().__init__()
        self.at = 0

    def __iter__(self):
        while self.at < N:
            row = self.order[self.at]
            self.at += 1
            self.read += 1
            yield KEYS[row], b"raw %d" % row
        self.at = 0

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


class SplitByWorker(IterableDataset):
    def __iter__(self):
        info = get_worker_info()
        start, step = (0, 1) if info is None else (info.id, info.num_workers)
        for row in ORDER[start::step]:
            yield KEYS[row], b"raw %d" % row


def decode(raw):
    return int(raw.split()[1])


def stream(source=None, **changes):
    settings = {
        "features": FEATURES,
        "keys": KEYS,
        "selector": saln.SALN(),
        "batch_size": SIZE,
        "filter_ratio": RATIO,
        "seed": 3,
        "decode": decode,
        "shuffle_buffer": 0,
    }
    return saln.SelectedStream(source or Source(), **settings | changes)


def oracle(order=ORDER, epoch=0, **changes):
    """Blocks of the whole order, each chosen from as the sampler for a data set does."""
    settings = {"selector": saln.SALN(), "batch_size": SIZE, "filter_ratio": RATIO, "seed": 3}
    sampler = saln.SelectedBatches(FEATURES, **settings | changes)
    batches = []
    for step in range(len(order) // CANDIDATES):
        block = torch.as_tensor(order[step * CANDIDATES : (step + 1) * CANDIDATES])
        batches.append(block[sampler.choose(block, epoch, step).positions].tolist())
    return batches


def given(batches):
    return [batch.samples for batch in batches]
