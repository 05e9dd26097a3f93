"""One example of any map-style data set, as an RGB image and a whole number."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from saln._torchvision import torchvision
from saln.data.arguments import as_array, as_label
from saln.data.decoding import array_to_rgb, load_rgb, refuse_special, to_rgb
from saln.data.file_names import file_of, name_of, place_in
from saln.errors import DataError, InputError

# The keys of an example that is a dict, in the order in which they are looked for.
IMAGE_KEYS = ("image", "img")
LABEL_KEYS = ("label", "labels", "fine_label", "target", "class", "cls")
# Hugging Face tables as they are stored: making such a view takes as long as decoding an image.
_AS_STORED: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
_EXPECTED = (
    "expected a tuple (image, label) or a dict with "
    f"{' or '.join(map(repr, IMAGE_KEYS))} and {' or '.join(map(repr, LABEL_KEYS[:2]))}"
)


class MapStyle(Protocol):
    """A data set with a length whose examples are had by position."""

    def __len__(self) -> int:
        """The number of examples."""

    def __getitem__(self, index: int, /) -> Any:
        """One example."""


def check_map_style(dataset: Any) -> None:
    """Raises InputError for what has no length or no positions, and for what is empty."""
    name = type(dataset).__name__
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise InputError(
            f"{name} is not a map-style data set (it has no __len__ or no __getitem__); "
            "give one that knows its length and opens an example by its position"
        )
    if len(dataset) == 0:
        raise InputError(f"{name} is empty; give a data set with at least one example")


def _pick(item: Mapping[str, Any], keys: tuple[str, ...], what: str) -> Any:
    for key in keys:
        if key in item:
            return item[key]
    raise InputError(
        f"it has no {what} under {', '.join(map(repr, keys))}, only {', '.join(map(repr, item))}; "
        "rename the column"
    )


def _to_rgb(image: Any) -> Image.Image:
    if isinstance(image, Image.Image):
        return to_rgb(image)
    mapped = isinstance(image, Mapping) and ("bytes" in image or "path" in image)
    if mapped or isinstance(image, bytes | bytearray | memoryview):
        return load_rgb(image)
    if not isinstance(image, np.ndarray | torch.Tensor | list):
        raise InputError(f"its image is a {type(image).__name__}, expected a PIL image or uint8")
    pixels = as_array(image, "pixels")
    if isinstance(image, torch.Tensor) and pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4):
        pixels = pixels.transpose(1, 2, 0)  # torch's order, also where both could be meant
    # Floats are most often what a transform made: normalized, so nobody can tell black from white.
    if pixels.dtype.kind not in "bui":
        raise InputError(
            f"its image is an array of {pixels.dtype}, expected a PIL image or uint8; leave the "
            "data set's own transform out, the backbone's is applied here"
        )
    try:
        return array_to_rgb(pixels)
    except ValueError as error:
        raise InputError(f"its image cannot be used: {error}") from error


def _parse(item: Any) -> tuple[Image.Image, int]:
    if isinstance(item, Mapping):
        image, label = _pick(item, IMAGE_KEYS, "image"), _pick(item, LABEL_KEYS, "label")
    elif isinstance(item, tuple | list) and len(item) >= 2:
        image, label = item[0], item[1]
    else:
        raise InputError(f"it is a {type(item).__name__}, {_EXPECTED}")
    return _to_rgb(image), as_label(label)


def _item(dataset: Any, index: int) -> Any:
    """An example, as the data set gives it.

    Of torchvision's folders and of Hugging Face tables the file or bytes are had instead of the
    picture that they make of it, where nobody has chosen how: theirs lets Pillow try formats that
    start other programs, waits for pipes, and cuts off what is above 8 bits.
    """
    # Exactly these classes: one that is derived from them may open examples in its own way.
    if type(dataset) is torch.utils.data.Subset:
        return _item(dataset.dataset, int(dataset.indices[index]))
    if type(dataset) is torch.utils.data.ConcatDataset:
        return _item(*place_in(dataset, index))
    if _is_plain_folder(dataset):
        path, label = dataset.samples[index]
        image: Any = load_rgb(Path(path))
        image = image if dataset.transform is None else dataset.transform(image)
        return image, label if dataset.target_transform is None else dataset.target_transform(label)
    is_table = type(dataset).__module__.startswith("datasets.") and hasattr(dataset, "with_format")
    if is_table and dataset.format["type"] is None:
        if dataset not in _AS_STORED:
            _AS_STORED[dataset] = dataset.with_format("arrow")
        row = _AS_STORED[dataset][index]
        # Columns such as a caption or an embedding are not converted: that may cost more than a
        # picture.
        wanted = (*IMAGE_KEYS, *LABEL_KEYS)
        return {
            name: row.column(name)[0].as_py() if name in wanted else None
            for name in row.column_names
        }
    path = file_of(dataset, index)
    if path is not None:
        refuse_special(path)
    return dataset[index]


def _is_plain_folder(dataset: Any) -> bool:
    """Whether a data set is torchvision's of folders, as it comes."""
    kind = torchvision.datasets.DatasetFolder
    return (
        isinstance(dataset, kind)
        and type(dataset).__getitem__ is kind.__getitem__
        and dataset.loader is torchvision.datasets.folder.default_loader
    )


def read_item(dataset: MapStyle, index: int) -> tuple[Image.Image, int]:
    """Reads the example at a position: the image as RGB of 8 bits, and its label.

    The data set gives ``(image, label)`` or a dict with the two. The image is a PIL image, encoded
    bytes, a dict with ``bytes`` or a ``path``, an array of whole numbers (height, width[,
    channels]) or a tensor (channels, height, width); the label a whole number from 0. Raises
    InputError for an example of another form, which the message says, DataError for what cannot be
    read at all.
    """
    try:
        return _parse(_item(dataset, index))
    except InputError as error:
        raise InputError(f"{_where(dataset, index)} cannot be used: {error}") from error
    except DataError:
        raise
    except Exception as error:  # a data set may raise anything; it all means the same here
        raise DataError(
            f"{_where(dataset, index)} cannot be read ({type(error).__name__}: {error}); "
            "repair it, or leave it out with torch.utils.data.Subset"
        ) from error


def _where(dataset: MapStyle, index: int) -> str:
    name = name_of(dataset, index)
    return f"example {index} of {type(dataset).__name__}" + (f" ({name})" if name else "")
