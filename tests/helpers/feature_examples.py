"""A tiny data set and backbone that child processes can make too, and processes to kill."""

from __future__ import annotations

import os
import signal
from multiprocessing.connection import Client
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from saln.features import store_writer as writing
from saln.features.extraction import extract_features
from saln.features.from_arrays import write_store
from saln.features.neighbors import neighbor_table
from saln.features.store import FeatureStore
from saln.randomness import derive_generator

ROWS, WIDTH, SHARD_ROWS, BATCH = 46, 5, 8, 4
FEW_ROWS = 19
# The first example is checked and 32 are fingerprinted before the first is computed.
BEFORE = 33


class Pictures:
    """Noise, the same each time; tells ``read`` which example it is asked for."""

    def __init__(self, rows=ROWS, read=lambda index: None, shift=0):
        self.rows = rows
        self.read = read
        self.shift = shift

    def __len__(self):
        return self.rows

    def __getitem__(self, index):
        if not 0 <= index < self.rows:
            raise IndexError(index)
        self.read(index)
        random = np.random.Generator(np.random.PCG64([index, self.shift]))
        return Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)), index % 3


def tiny_backbone(seed=0):
    """A linear map of the pixels, with weights of its own."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():  # skip_init imports torch's compiler
        layer = nn.Linear(192, WIDTH)
        for parameter in layer.parameters():
            parameter.normal_(generator=derive_generator(seed, "tiny"))
    return nn.Sequential(nn.Flatten(), layer).eval()


def extract(cache, dataset=None, backbone=None, **changes):
    options = {"image_size": 8, "shard_rows": SHARD_ROWS, "batch_size": BATCH, "name": "tiny"}
    dataset = Pictures() if dataset is None else dataset
    backbone = tiny_backbone() if backbone is None else backbone
    return extract_features(dataset, backbone, cache_dir=cache, **(options | changes))


def content(folder: Path):
    """Every file of a store that is always the same, by name."""
    others = {"timing.json", "verified.json"}
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in others}


def with_pipe(address, target, cache, *arguments):
    """In a child: calls a function with the end of a pipe."""
    with Client(address) as connection:
        target(cache, connection, *arguments)


def read_when_told(cache, connection, rank=0, world_size=1):
    """In a child: extracts; waits for a byte before every example, and answers it."""
    torch.set_num_threads(1)

    def read(index):
        connection.recv_bytes()
        connection.send_bytes(b".")

    extract(cache, Pictures(read=read), rank=rank, world_size=world_size)


def stop_at_step(cache, connection, step, torn):
    """In a child: extracts, and is killed before the ``step``-th call that changes the disk.

    ``torn``: in the middle of the ``step``-th write of rows instead. Sends the number of
    steps when it gets to the end.
    """
    torch.set_num_threads(1)
    left = step

    def kill_in_time():
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def killed_before(call):
        def wrapped(*arguments, **options):
            kill_in_time()
            return call(*arguments, **options)

        return wrapped

    def torn_write(stream, data, position):
        rows = memoryview(data).cast("B")
        half = len(rows) // 2
        write(stream, rows[:half], position)
        kill_in_time()
        write(stream, rows[half:], position + half)

    write = writing._write_at
    if torn:
        writing._write_at = torn_write
    else:
        writing._write_at = killed_before(write)
        for name in ("fsync", "replace", "unlink", "mkdir", "posix_fallocate"):
            setattr(os, name, killed_before(getattr(os, name)))
    extract(cache, Pictures(FEW_ROWS))
    connection.send(step - left)


def extract_as_rank(cache, connection, rank, world_size, meeting, gloo):
    """In a child: one of several processes that make one store."""
    torch.set_num_threads(1)
    seen = []
    if gloo:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{meeting}", rank=rank, world_size=world_size
        )
        ranks = {}
    else:
        ranks = {"rank": rank, "world_size": world_size}
    connection.send("ready")
    connection.recv()
    store = extract(cache, Pictures(read=seen.append), **ranks)
    connection.send((str(store.path), seen))
    if gloo:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def extract_broken_as_rank(cache, connection, rank, broken):
    """In a child: one of two, and some examples cannot be read; sends which were skipped."""
    torch.set_num_threads(1)

    def read(index):
        if index in broken:
            raise OSError("image file is truncated at <_io.BytesIO object at 0x7f12ab34cd56>")

    store = extract(cache, Pictures(read=read), unreadable="skip", rank=rank, world_size=2)
    connection.send([entry.row for entry in store.skipped])


def open_until_whole(path, connection):
    """In a child: opens a store again and again until it is whole; sends what it met."""
    met = set()
    connection.send("ready")
    while True:
        try:
            store = FeatureStore.open(path)
            break
        except Exception as error:
            met.add(f"{type(error).__name__}: {error}")
    connection.send((store.features.tobytes(), met))


def write_given(path, connection, rows, labels):
    """In a child: one of several processes that write the same arrays."""
    connection.send("ready")
    connection.recv()
    try:
        store = write_store(path, rows, labels, shard_rows=7)
        connection.send(store.features.tobytes())
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")


def ask_for_the_table(path, connection):
    """In a child: one of several processes that search the neighbors of one store."""
    opened = FeatureStore.open(path)
    connection.send("ready")
    connection.recv()
    try:
        connection.send(neighbor_table(opened, 4).indices.tobytes())
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")
