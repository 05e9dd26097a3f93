"""One example of any map-style data set, as an RGB image and a whole number."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from saln.data.names import name_of
from saln.errors import DataError, InputError

__all__ = ["IMAGE_KEYS", "LABEL_KEYS", "MapStyle", "check_map_style", "read_item"]

# The keys of an example that is a dict, in the order in which they are looked for.
IMAGE_KEYS = ("image", "img")
LABEL_KEYS = ("label", "labels", "fine_label", "target", "class")
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
    """Refuses what has no length or no positions, and what is empty.

    Raises:
        InputError: The message names the type and the cure.
    """
    name = type(dataset).__name__
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise InputError(
            f"{name} is not a map-style data set (it has no __len__ or no __getitem__); "
            "give one that knows its length and opens an example by its position"
        )
    if len(dataset) == 0:
        raise InputError(f"{name} is empty; give a data set with at least one example")


def _pick(item: dict[str, Any], keys: tuple[str, ...], what: str) -> Any:
    for key in keys:
        if key in item:
            return item[key]
    raise InputError(
        f"it has no {what} under {', '.join(map(repr, keys))}, only {', '.join(map(repr, item))}; "
        "rename the column"
    )


def _to_rgb(image: Any) -> Image.Image:
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    pixels = image
    if isinstance(image, torch.Tensor):
        pixels = image.numpy(force=True)
        if pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4):  # torch's order: channels first
            pixels = pixels.transpose(1, 2, 0)
    if not isinstance(pixels, np.ndarray):
        raise InputError(f"its image is a {type(image).__name__}, expected a PIL image or uint8")
    if pixels.dtype != np.uint8:
        raise InputError(
            f"its image is an array of {pixels.dtype}, expected a PIL image or uint8; leave the "
            "data set's own transform out, the backbone's is applied here"
        )
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)):
        raise InputError(
            f"its image has shape {tuple(image.shape)}, expected one image with 1, 3 or 4 channels"
        )
    return Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")


def _to_label(label: Any) -> int:
    if isinstance(label, torch.Tensor):
        label = label.numpy(force=True)
    if isinstance(label, np.ndarray) and label.size == 1:
        label = label.item()
    if isinstance(label, bool) or not isinstance(label, int | np.integer):
        raise InputError(f"its label is {label!r}, expected a whole number, one a class")
    return int(label)


def _parse(item: Any) -> tuple[Image.Image, int]:
    if isinstance(item, dict):
        image, label = _pick(item, IMAGE_KEYS, "image"), _pick(item, LABEL_KEYS, "label")
    elif isinstance(item, tuple | list) and len(item) >= 2:
        image, label = item[0], item[1]
    else:
        raise InputError(f"it is a {type(item).__name__}, {_EXPECTED}")
    return _to_rgb(image), _to_label(label)


def read_item(dataset: MapStyle, index: int) -> tuple[Image.Image, int]:
    """Reads one example.

    Args:
        dataset: Gives ``(image, label)`` or a dict with the two. The image is a PIL
            image, a uint8 array (height, width[, channels]) or a uint8 tensor
            (channels, height, width).
        index: The example's position.

    Returns:
        The image as RGB and its label.

    Raises:
        InputError: The example is of another form; the message says which.
        DataError: It cannot be read at all.
    """
    try:
        return _parse(dataset[index])
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
