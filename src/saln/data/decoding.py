"""From what a picture is stored as to RGB of 8 bits: files, encoded bytes, arrays.

The one place that opens pictures. Pillow guesses a file's format from its content, and knows
formats that start other programs (PostScript), so only :data:`FORMATS` are ever tried.
"""

from __future__ import annotations

import contextlib
import io
import operator
import os
import stat
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

# The formats that a picture may have, whatever its file is called. JPEG includes the
# multi-picture files of some cameras.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# The files of a folder that are pictures.
EXTENSIONS = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
# What turns a photo upright, by the orientation that its camera noted.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXIF_SHORT = 3  # the kind of a number of 16 bits
# How PostScript begins: as text, and with a preview.
_POSTSCRIPT = (b"%!PS", b"\xc5\xd0\xd3\xc6")
# Bytes at a file's end that are read.
_TAIL = 4096
# The brightest value of an 8-bit and of a 16-bit picture.
_BYTE, _WORD = 255, 65535
# No more shades than these are no picture any more: 4,095 of 65,535, so 12 bits in 16.
_FEW_SHADES = 16

Pixels = npt.NDArray[Any]


def refuse_special(path: Path) -> None:
    """Raises OSError for a pipe or device, which is waited for, and for PostScript, a program."""
    if not path.exists():
        return  # whoever opens it says so
    _refuse_irregular(path.stat())
    with path.open("rb") as stream:
        if stream.read(4) in _POSTSCRIPT:
            raise OSError("it is PostScript, and no picture")


def _refuse_irregular(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError("it is no regular file, but a folder, a pipe or a device")


def read_encoded(path: Path) -> bytes:
    """A picture's file as it is, whatever is in it; OSError where it is none or unreadable."""
    # Before it is opened: a pipe without a writer would be waited for, without end.
    _refuse_irregular(path.stat())
    return path.read_bytes()


@contextlib.contextmanager
def _opened(source: Path | bytes | BinaryIO) -> Iterator[Image.Image]:
    """Gives the picture with its header read and its pixels not yet."""
    with contextlib.ExitStack() as stack:
        stream: Any = source
        if isinstance(source, Path):
            # Before it is opened: a pipe without a writer would be waited for, without end.
            found = source.stat()
            _refuse_irregular(found)
            if found.st_size == 0:
                raise OSError("the file is empty")
            stream = stack.enter_context(source.open("rb"))
        elif isinstance(source, bytes):
            if not source:
                raise OSError("it is empty")
            stream = io.BytesIO(source)
        try:
            image = stack.enter_context(Image.open(stream, formats=FORMATS))
        except UnidentifiedImageError as error:
            # Pillow's own words hold an address in memory, another one in every process.
            raise UnidentifiedImageError(
                f"it is no picture of the formats {', '.join(FORMATS)}"
            ) from error
        yield image


def look_at(source: Path | bytes | BinaryIO) -> tuple[int, int]:
    """Width and height as stored, read from the header, and a look whether the end is there.

    The pixels are decoded only where the end is not what it should be: some cameras write more
    behind it, and most of what is cut short is recognized at no cost. Decoders raise many kinds
    of Exception; all mean that it is no picture, or one cut short.
    """
    with _opened(source) as image:
        size = image.size
        if not _has_its_end(image):
            image.load()
        return size


def _has_its_end(image: Any) -> bool:
    stream, kind = image.fp, image.format
    place = stream.tell()
    length = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, length - _TAIL))
    tail = stream.read(_TAIL)
    stream.seek(4)
    promised = int.from_bytes(stream.read(4), "little")
    stream.seek(place)
    if kind in ("JPEG", "MPO"):
        return b"\xff\xd9" in tail
    if kind == "PNG":
        return b"IEND" in tail
    if kind == "GIF":
        return bool(tail.rstrip(b"\0").endswith(b";"))
    if kind == "WEBP":
        return bool(promised + 8 <= length)
    if kind == "TIFF":
        # Where each strip or tile begins, and how long it is.
        for starts, lengths in ((273, 279), (324, 325)):
            places = image.tag_v2.get(starts, ()), image.tag_v2.get(lengths, ())
            if places[0] and len(places[0]) == len(places[1]):
                return bool(max(map(operator.add, *places)) <= length)
    return False


def load_rgb(source: Any, *, least: int | None = None) -> Image.Image:
    """Opens a picture, upright, as RGB of 8 bits; of several in a file the first.

    ``source`` is a file's path, its encoded bytes, a mapping with one of both under ``"path"`` and
    ``"bytes"`` (as Hugging Face stores pictures), or pixels as nested lists or an array. With
    ``least`` a JPEG may come smaller, both sides at least so long: a half, a quarter or an eighth
    of its size costs far less to decode. Decoders raise many kinds of Exception; all mean the
    same.
    """
    if isinstance(source, Mapping):
        encoded, path = source.get("bytes"), source.get("path")
        if encoded is None and path is None:
            raise ValueError("it holds neither bytes nor a path")
        return load_rgb(path if encoded is None else encoded, least=least)
    if isinstance(source, bytearray | memoryview):
        source = bytes(source)
    if isinstance(source, str):
        source = Path(source)
    if not isinstance(source, bytes | Path):
        return array_to_rgb(np.asarray(source))
    with _opened(source) as image:
        if least is not None:
            image.draft(None, (least, least))  # other formats take no notice
        # How the values lie in the file; forgotten once they are read.
        stored = str(getattr(image, "tile", ""))
        rgb = _convert(image, stored)
        # Of colors of 16 bits Pillow keeps the upper 8 by itself.
        cut = ";16" in stored and image.mode not in ("I", "I;16")
        if cut and np.asarray(rgb).max() < _FEW_SHADES:
            raise ValueError(_few_shades("at most 4,095", _WORD))
        # Pillow turns TIFF files itself while it reads them.
        noted = None if image.format == "TIFF" else image.info.get("exif")
        turn = _TURNS.get(_orientation(noted))
        return rgb if turn is None else rgb.transpose(turn)


def _orientation(noted: Any) -> int:
    """The orientation in what a camera noted (EXIF: a small TIFF), 1 for upright or unknown."""
    content = noted.removeprefix(b"Exif\0\0") if isinstance(noted, bytes) else b""
    order = {b"II": "<", b"MM": ">"}.get(content[:2])
    if order is None or len(content) < 10:
        return 1
    (start,) = struct.unpack_from(f"{order}I", content, 4)
    if start + 2 > len(content):
        return 1
    (entries,) = struct.unpack_from(f"{order}H", content, start)
    for place in range(start + 2, min(start + 2 + 12 * entries, len(content) - 11), 12):
        tag, kind, count, value = struct.unpack_from(f"{order}HHIH", content, place)
        if tag == ExifTags.Base.Orientation:
            return int(value) if (kind, count) == (_EXIF_SHORT, 1) else 1
    return 1


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode as RGB of 8 bits; transparency is dropped.

    Pillow's own conversion cuts off what is above 255. Here pictures of more than 8 bits are
    scaled by the range of their kind: whole numbers of 16 bits by 65,535, fractions by 1 or
    255. Raises ValueError where the range is not known, or hardly a shade would be left; it has
    the cure.
    """
    return _convert(image, str(getattr(image, "tile", "")))


def _convert(image: Image.Image, stored: str) -> Image.Image:
    mode = image.mode
    if mode in ("I", "F") or mode.startswith("I;16"):
        whole = None
        if mode == "I" and image.format == "PPM":
            whole = _WORD  # Pillow has spread it over 16 bits
        elif "I;16S" in stored:
            whole = int(np.iinfo(np.int16).max)
        return Image.fromarray(_to_bytes(np.asarray(image), whole)).convert("RGB")
    if mode == "P" and isinstance(image.info.get("transparency"), bytes):
        image = image.convert("RGBA")  # else Pillow warns
    elif mode == "La":
        image = image.convert("LA")
    return image.convert("RGB")


def array_to_rgb(pixels: Pixels) -> Image.Image:
    """Pixels as a picture of RGB with 8 bits; ValueError for another shape or range.

    They are (height, width), (height, width, c) or (c, height, width) with c 1, 3 or 4;
    booleans, whole numbers, or fractions in [0, 1] or [0, 255]; see :func:`to_rgb`.
    """
    shape = pixels.shape
    if pixels.ndim == 3 and shape[2] not in (1, 3, 4) and shape[0] in (1, 3, 4):
        pixels = pixels.transpose(1, 2, 0)  # torch's order
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)):
        raise ValueError(f"it has shape {tuple(shape)}, expected one image with 1, 3 or 4 channels")
    if pixels.size == 0:
        raise ValueError(f"it has shape {tuple(shape)}, and so no pixels")
    if pixels.dtype != np.uint8:
        if pixels.dtype.kind not in "biuf":
            raise ValueError(f"it is an array of {pixels.dtype}, which are no pixels")
        pixels = _to_bytes(pixels)
    return Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")


def _few_shades(reach: str, top: int) -> str:
    return (
        f"its values are {reach} of {top:,}, and with 8 bits hardly a shade would be left; save it "
        "with 8 bits, scaled by the range that the data set's values have"
    )


def _to_bytes(values: Pixels, whole: int | None = None) -> npt.NDArray[np.uint8]:
    """Values as uint8, 255 for the brightest that there can be: ``whole``, where that is known."""
    kind = values.dtype.kind
    if kind == "b":
        return values.astype(np.uint8) * np.uint8(_BYTE)
    if kind == "f" and not np.isfinite(values).all():
        raise ValueError("it holds NaN or infinity; save it with 8 bits")
    low, high = values.min(), values.max()
    top = whole
    if top is None and kind == "u" and values.dtype.itemsize <= 2:
        top = _BYTE if values.dtype.itemsize == 1 else _WORD
    if top is None:
        known = (1, _BYTE) if kind == "f" else (_BYTE, _WORD)
        top = next((each for each in known if high <= each), None)
    if low < 0 or top is None:
        allowed = "[0, 1] or [0, 255]" if kind == "f" else "[0, 65535]"
        raise ValueError(
            f"its values go from {low:.6g} to {high:.6g}, outside {allowed}, so that nobody knows "
            "what black and white are; save it with 8 bits, scaled by the range that the data "
            "set's values have"
        )
    scaled = np.rint(values * (_BYTE / top)).astype(np.uint8)
    lost = top != _BYTE or kind == "f"
    if lost and scaled.max() <= _FEW_SHADES and len(np.unique(values)) > len(np.unique(scaled)):
        raise ValueError(_few_shades(f"at most {high:.6g}", top))
    return scaled
