"""A data set's fingerprint: changes when the data set does, without reading all of it.

Names, sizes, order and labels are hashed where a data set of torch, torchvision or
Hugging Face lets them be had without opening its images. Of a data set of another kind
some examples are opened, spread evenly over all of them.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from saln.data.file_names import files_of, kept_as
from saln.data.image_sources import ArrayImages, FileImages, TableImages
from saln.data.items import IMAGE_KEYS, MapStyle, check_map_style, read_item
from saln.errors import DataError

# Where torchvision's data sets (and those written like them) keep what they hold.
ARRAYS = ("data", "images", "tensors")
LABELS = ("targets", "labels", "_labels", "y")
# Examples that are opened of a data set of unknown kind.
SAMPLE = 32


class _Digest:
    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def text(self, *parts: object) -> None:
        for part in parts:
            self._hash.update(f"{part}\0".encode(errors="surrogatepass"))

    def array(self, values: Any) -> None:
        array = np.ascontiguousarray(values)
        self.text(array.dtype, array.shape)
        self._hash.update(array.reshape(-1).view(np.uint8).data if array.size else b"")

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def _images(dataset: Any, digest: _Digest) -> bool:
    """Hashes what is known of the images; says whether anything was."""
    paths = files_of(dataset)
    if paths is not None:
        absolute = [Path.cwd() / path for path in paths]
        # Relative, so that a data set may be moved. One file alone has its folder in common.
        parents = [str(path.parent) for path in absolute]
        digest.text(FileImages(Path(os.path.commonpath(parents)), absolute).fingerprint())
        return True
    arrays = kept_as(dataset, ARRAYS)
    parts = arrays if isinstance(arrays, tuple | list) else [arrays]
    if not parts or not all(isinstance(part, np.ndarray | torch.Tensor) for part in parts):
        return False
    for part in parts:
        pixels = part.numpy(force=True) if isinstance(part, torch.Tensor) else part
        if isinstance(pixels, np.memmap):  # on disk: not all of it
            digest.text(pixels.shape)
            pixels = pixels[_spread(len(pixels))]
        digest.text(pixels.dtype, ArrayImages(pixels).fingerprint())
    return True


def _labels(dataset: Any, digest: _Digest) -> None:
    labels = kept_as(dataset, LABELS)
    if isinstance(labels, torch.Tensor):
        labels = labels.numpy(force=True)
    if isinstance(labels, np.ndarray | list | tuple):
        array = np.asarray(labels)
        digest.array(array) if array.dtype != object else digest.text(*labels)


def _hugging_face(dataset: Any, digest: _Digest) -> None:
    """The encoded images' names and sizes and every other column's plain values."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for name in dataset.column_names:
        column = dataset.data.column(name)
        digest.text(name, column.type)
        if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
            digest.text(TableImages(dataset, name, name).fingerprint())
            for chunk in column.chunks:
                paths = pc.struct_field(chunk, "path").to_pylist()
                digest.text(*(path and Path(path).name for path in paths))
                if pc.struct_field(chunk, "bytes").null_count:
                    sizes = (path and Path(path).exists() and Path(path).stat() for path in paths)
                    digest.text(*(stat and stat.st_size for stat in sizes))
        elif pa.types.is_primitive(column.type):
            digest.array(column.to_numpy())
        elif name in IMAGE_KEYS or not pa.types.is_nested(column.type):
            digest.text(*column.to_pylist())
    # What select, shuffle and sort leave behind: the order, over a table that stays.
    indices = getattr(dataset, "_indices", None)
    if indices is not None:
        digest.array(indices.column(0).to_numpy())


def _spread(length: int) -> Any:
    """The first, the last and others between them, at most ``SAMPLE``."""
    # Both ends too: what was appended or cut off is noticed.
    return np.unique(np.linspace(0, length - 1, SAMPLE).astype(np.int64))


def _sample(dataset: MapStyle, digest: _Digest) -> None:
    for index in _spread(len(dataset)).tolist():
        try:
            image, label = read_item(dataset, index)
        except DataError:  # who needs it says so; the others are the data set, too
            digest.text("unreadable")
            continue
        digest.text(image.size, label)
        digest.array(np.asarray(image))


def _feed(dataset: Any, digest: _Digest) -> None:
    check_map_style(dataset)
    digest.text(type(dataset).__name__, len(dataset))
    given = getattr(dataset, "fingerprint", None)
    transform = repr(getattr(dataset, "transforms", None) or getattr(dataset, "transform", None))
    if " at 0x" not in transform:  # else another one in every process
        digest.text(transform)
    if callable(given) or isinstance(given, str):
        digest.text(given() if callable(given) else given)
    elif isinstance(dataset, torch.utils.data.Subset):
        digest.array(np.asarray(dataset.indices, dtype=np.int64))
        _feed(dataset.dataset, digest)
    elif isinstance(dataset, torch.utils.data.ConcatDataset):
        for part in dataset.datasets:
            _feed(part, digest)
    elif type(dataset).__module__.startswith("datasets.") and hasattr(dataset, "column_names"):
        _hugging_face(dataset, digest)
    elif _images(dataset, digest):
        _labels(dataset, digest)
    else:
        _sample(dataset, digest)
        _labels(dataset, digest)


def fingerprint(dataset: MapStyle) -> str:
    """A hash that changes when a data set's examples, sizes, order or labels change.

    What is hashed, the first of these that there is: the data set's own ``fingerprint`` (text,
    or a method without arguments that gives it); of a ``Subset`` or ``ConcatDataset`` that of
    what it is made of; the columns of a Hugging Face data set, images by name and encoded size;
    the files' names and sizes, or the arrays, of a data set laid out like torchvision's; 32
    examples, spread evenly. Arrays in memory are hashed whole, those mapped from a file in 32
    places. The same in every process; files may move together to another folder. Random
    transforms must be left out. What cannot be read is hashed as such; raises InputError for
    what is no data set of images with labels, or empty.
    """
    digest = _Digest()
    _feed(dataset, digest)
    return digest.hexdigest()
