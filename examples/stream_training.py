"""Trains from a tar file of images that is read as a stream; only the kept images are decoded.

python examples/stream_training.py
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import saln
from saln.data import ArrayImages, load_dataset
from saln.training import seeded_globally


def write_shard(path: Path) -> tuple[np.ndarray[Any, Any], list[str], np.ndarray[Any, Any]]:
    """Writes the embedded digits as KEY.png and KEY.cls; gives their features, keys and labels."""
    train = load_dataset("digits").train
    source = train.images
    if not isinstance(source, ArrayImages):
        raise TypeError("the digits are held in memory")
    pixels = source.pixels[train.rows]
    keys = [f"digit-{row}" for row in train.rows]
    with tarfile.open(path, "w") as tar:
        for key, image, label in zip(keys, pixels, train.labels, strict=True):
            encoded = io.BytesIO()
            Image.fromarray(image).save(encoded, "png")
            for kind, content in (("png", encoded.getvalue()), ("cls", str(label).encode())):
                entry = tarfile.TarInfo(f"{key}.{kind}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return pixels.reshape(len(pixels), -1).astype(np.float32) / 255, keys, train.labels


class Shard:
    """Gives a dict a key, undecoded: what ``webdataset.WebDataset(path)`` gives too."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[dict[str, Any]]:
        sample: dict[str, Any] = {}
        with tarfile.open(self.path) as tar:
            for entry in tar:
                key, _, kind = entry.name.partition(".")
                content = tar.extractfile(entry)
                if sample and sample["__key__"] != key:
                    yield sample
                    sample = {}
                sample["__key__"] = key
                sample[kind] = content.read() if content else b""
        if sample:
            yield sample


decoded = 0


def decode(sample: dict[str, Any]) -> tuple[Tensor, int]:
    """An image and its label; counts."""
    global decoded
    decoded += 1
    with Image.open(io.BytesIO(sample["png"]), formats=["PNG"]) as image:
        pixels = torch.from_numpy(np.array(image)).float() / 255
    return pixels.flatten(), int(sample["cls"])


def main(epochs: int = 5) -> float:
    """Trains on 32 of every 64 images of the stream; returns the last loss."""
    with seeded_globally(0, "network"):
        network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    loss, trained = torch.tensor(0.0), 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.tar"
        features, keys, labels = write_shard(path)
        stream = saln.SelectedStream(
            Shard(path),
            features=features,
            keys=keys,
            labels=labels,
            selector=saln.Coherence(),
            batch_size=32,
            filter_ratio=0.5,
            seed=0,
            decode=decode,
            collate=torch.utils.data.default_collate,
            shuffle_buffer=256,
        )
        loader = DataLoader(stream, batch_size=None, generator=stream.generator)
        for epoch in range(epochs):
            stream.set_epoch(epoch)
            for batch in loader:
                images, labels = batch.samples
                loss = cross_entropy(network(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                trained += len(labels)
    print(f"last loss {loss.item():.3f}, {decoded} images decoded for {trained} trained")
    return loss.item()


if __name__ == "__main__":
    main()
