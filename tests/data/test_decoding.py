"""Pictures of every kind as RGB of 8 bits, and files that are no pictures."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from saln._torchvision import torchvision
from saln.data.decoding import FORMATS, array_to_rgb, load_rgb, look_at, to_rgb
from saln.data.image_sources import FileImages
from saln.data.items import read_item
from saln.errors import DataError, InputError

# Every shade once, row after row.
SHADES = np.arange(256, dtype=np.uint8).reshape(16, 16)


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png16(values, color_type):
    """A PNG of 16 bits a channel, which Pillow cannot write in color."""

    def chunk(name, content):
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    height, width = values.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


WIDE = SHADES.astype(np.uint16) * 257
WITH_ALPHA = np.stack([WIDE, np.full_like(WIDE, 65535)], axis=-1)
DEEP = {
    "PNG, 16 bits": png16(WIDE, 0),
    "PNG, 16 bits, alpha": png16(WITH_ALPHA, 4),
    "PNG, 16 bits, color": png16(np.stack([WIDE] * 3, axis=-1), 2),
    "PNG, 16 bits, color and alpha": png16(np.stack([WIDE] * 3 + [WITH_ALPHA[..., 1]], -1), 6),
    "TIFF, 16 bits": encoded(Image.fromarray(WIDE), "TIFF"),
    "TIFF, 32-bit whole numbers of 16 bits": encoded(Image.fromarray(WIDE.astype("i4")), "TIFF"),
    "TIFF, 32-bit whole numbers of 8 bits": encoded(Image.fromarray(SHADES.astype("i4")), "TIFF"),
    "TIFF, floats to 1": encoded(Image.fromarray((SHADES / 255).astype("f4")), "TIFF"),
    "TIFF, floats to 255": encoded(Image.fromarray(SHADES.astype("f4")), "TIFF"),
    "PGM, 16 bits": b"P5 16 16 65535\n" + WIDE.astype(">u2").tobytes(),
    "PGM, 12 bits": b"P5 16 16 4080\n" + (SHADES.astype("u2") * 16).astype(">u2").tobytes(),
}


@pytest.mark.parametrize("name", DEEP)
def test_pictures_of_more_than_8_bits_are_scaled_by_their_range(name):
    for found in (load_rgb(DEEP[name]), read_item([(DEEP[name], 0)], 0)[0]):
        assert found.mode == "RGB"
        # What the same picture is with 8 bits.
        np.testing.assert_allclose(np.asarray(found), np.stack([SHADES] * 3, axis=-1), atol=1)


@pytest.mark.parametrize("name", [name for name in DEEP if "color" not in name])
def test_pictures_that_a_data_set_opened_itself_are_scaled_too(name):
    with Image.open(io.BytesIO(DEEP[name])) as image:
        found, _ = read_item([(image, 0)], 0)
    np.testing.assert_allclose(np.asarray(found)[..., 1], SHADES, atol=1)


def test_a_signed_tiff_ends_at_32767():
    narrow = (SHADES.astype("<i2") * 128).tobytes()
    entries = [(256, 16), (257, 16), (258, 16), (259, 1), (262, 1), (273, 200), (277, 1)]
    entries += [(278, 16), (279, len(narrow)), (339, 2)]
    header = b"II*\0" + struct.pack("<IH", 8, len(entries))
    for tag, value in sorted(entries):
        header += struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value)
    file = (header + bytes(4)).ljust(200, b"\0") + narrow
    np.testing.assert_allclose(np.asarray(load_rgb(file))[..., 0], SHADES, atol=1)


def test_dark_pictures_stay_dark():
    dark = np.full((4, 4), 1000, dtype=np.uint16)
    assert (
        np.asarray(load_rgb(encoded(Image.fromarray(dark), "PNG"))).tolist() == [[[4] * 3] * 4] * 4
    )
    assert np.asarray(array_to_rgb(np.zeros((4, 4), np.uint16))).max() == 0
    few = (SHADES // 16).astype(np.uint16) * 257  # as an 8-bit picture it has the same shades
    assert np.array_equal(np.asarray(array_to_rgb(few))[..., 0], SHADES // 16)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (SHADES.astype(np.uint16) * 16, "at most 4080 of 65,535, and with 8 bits hardly a shade"),
        (SHADES.astype(np.float32) / 1e4, "at most 0.0255 of 1, and with 8 bits hardly a shade"),
        (SHADES.astype(np.int32) * 2**20, r"go from 0 to 2.67387e\+08, outside \[0, 65535\]"),
        (SHADES.astype(np.int32) - 9, r"go from -9 to 246, outside \[0, 65535\]"),
        (SHADES.astype(np.float32) - 9, r"go from -9 to 246, outside \[0, 1\] or \[0, 255\]"),
        (SHADES.astype(np.float32) * 9, r"go from 0 to 2295, outside \[0, 1\] or \[0, 255\]"),
        (np.where(SHADES == 7, np.nan, 0.5).astype(np.float32), "NaN or infinity"),
    ],
)
def test_a_range_that_nobody_knows_is_refused_with_the_cure(tmp_path, values, message):
    path = tmp_path / "deep.tif"
    Image.fromarray(values).save(path)
    with pytest.raises(DataError, match=rf"deep.tif cannot be read .*{message}.*with 8 bits"):
        FileImages(tmp_path, [path]).load(0)


def test_12_bits_in_colors_of_16_are_refused():
    twelve = np.stack([SHADES.astype(np.uint16) * 16] * 3, axis=-1)
    with pytest.raises(ValueError, match=r"at most 4,095 of 65,535, .* hardly a shade"):
        load_rgb(png16(twelve, 2))


COLORS = np.stack([SHADES, SHADES[::-1], SHADES.T], axis=-1)


def palette(transparency):
    image = Image.fromarray(COLORS).quantize(16)
    return encoded(image, "PNG", transparency=transparency), np.asarray(image.convert("RGB"))


def test_other_modes_are_what_pillow_makes_of_them():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for transparency in (3, bytes(range(16))):
            raw, wanted = palette(transparency)
            assert np.array_equal(np.asarray(load_rgb(raw)), wanted)
        grey_alpha = Image.merge("LA", [Image.fromarray(SHADES), Image.new("L", (16, 16), 9)])
        found = load_rgb(encoded(grey_alpha, "PNG"))
        assert np.array_equal(np.asarray(found)[..., 2], SHADES)
        cmyk = Image.fromarray(COLORS).convert("CMYK")
        assert np.array_equal(np.asarray(load_rgb(encoded(cmyk, "TIFF"))), COLORS)
        for mode in ("1", "LA", "La", "PA", "RGBA", "RGBa", "RGBX", "HSV", "LAB", "YCbCr"):
            assert to_rgb(Image.new(mode, (3, 2))).mode == "RGB"


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_picture_is_taken(kind):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    raw = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert load_rgb(raw).getpixel((4, 4)) == (255, 0, 0)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_stand_upright(kind, orientation):
    pixels = np.zeros((32, 48, 3), dtype=np.uint8)
    pixels[:16, :24] = 200  # upper left
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    raw = encoded(Image.fromarray(pixels), kind, exif=exif, **options)
    found = np.asarray(load_rgb(raw).convert("L")) > 100
    height, width = found.shape
    assert (width, height) == ((48, 32) if orientation < 5 else (32, 48))
    # Where the first row and the first column of what is stored are, by the standard.
    row, column = {
        1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "tl", 6: "tr", 7: "br", 8: "bl"
    }[orientation]  # fmt: skip
    wanted = np.zeros_like(found)
    rows = slice(0, height // 2) if row == "t" else slice(height // 2, height)
    columns = slice(0, width // 2) if column == "l" else slice(width // 2, width)
    wanted[rows, columns] = True
    assert np.mean(found == wanted) > 0.97
    assert look_at(io.BytesIO(raw)) == (48, 32) or kind == "TIFF"


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"II*\0",
        b"II*\0\x08\0\0\0\xff\xff",
        b"II*\0\xff\xff\xff\xff\1\0",
        b"MM\0*\0\0\0\x08\0\2" + struct.pack(">HHIHH", 274, 2, 9, 6, 0),
        b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHIHH", 274, 3, 1, 9, 0),
        b"no note at all",
    ],
)
def test_a_broken_note_on_orientation_breaks_no_photo(note):
    raw = encoded(Image.fromarray(COLORS), "JPEG", exif=b"Exif\0\0" + note, quality=95)
    plain = encoded(Image.fromarray(COLORS), "JPEG", quality=95)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, while it opens the file
        assert np.array_equal(np.asarray(load_rgb(raw)), np.asarray(load_rgb(plain)))


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(danger) print\nshowpage\n"


@pytest.fixture
def no_ghostscript(monkeypatch):
    from PIL import EpsImagePlugin

    def started(*arguments, **options):
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)


@pytest.mark.usefixtures("no_ghostscript")
def test_postscript_is_never_run(tmp_path):
    import datasets

    Image.init()  # as another library may have done
    (tmp_path / "cat").mkdir()
    path = tmp_path / "cat" / "a.jpg"
    path.write_bytes(EPS)
    with pytest.raises(
        DataError, match=rf"a.jpg .* no picture of the formats {', '.join(FORMATS)}"
    ):
        FileImages(tmp_path, [path]).load(0)
    with pytest.raises(DataError, match=r"a\.jpg"):
        read_item(torchvision.datasets.ImageFolder(str(tmp_path)), 0)
    table = datasets.Dataset.from_dict({"image": [str(path)], "label": [0]})
    for kind in (datasets.Image(), datasets.Value("string")):
        with pytest.raises((DataError, InputError), match="example 0 of Dataset"):
            read_item(table.cast_column("image", kind), 0)
    with pytest.raises(DataError, match="no picture of the formats"):
        read_item([(EPS, 0)], 0)

    class Pets:
        def __init__(self):
            self._images = [path]

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return Image.open(path).convert("RGB"), 0

    with pytest.raises(DataError, match="PostScript"):
        read_item(Pets(), 0)


def test_pipes_and_devices_are_refused_and_never_waited_for(tmp_path):
    (tmp_path / "cat").mkdir()
    pipe = tmp_path / "cat" / "pipe.png"
    os.mkfifo(pipe)
    (tmp_path / "cat" / "zero.png").symlink_to("/dev/zero")
    images = FileImages(tmp_path, [pipe, tmp_path / "cat" / "zero.png", tmp_path / "cat"])
    for row in range(3):
        for read in (images.load, images.header):
            with pytest.raises(DataError, match="no regular file, but a folder, a pipe or a dev"):
                read(row)
    folder = torchvision.datasets.ImageFolder(str(tmp_path))
    for index in range(2):
        with pytest.raises(DataError, match=r"example . of ImageFolder .*no regular file"):
            read_item(folder, index)
    folder.loader = lambda path: Image.open(path).convert("RGB")  # as somebody's own
    with pytest.raises(DataError, match=r"example 0 of ImageFolder .*no regular file"):
        read_item(folder, 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"no picture", "no picture of the formats"),
        (b"\x89PNG\r\n\x1a\n", ""),
        (b"<svg/>", "no picture of the formats"),
        (encoded(Image.fromarray(COLORS), "JPEG")[:300], "Truncated"),
        (encoded(Image.fromarray(COLORS), "PNG")[:60], ""),
        (encoded(Image.fromarray(COLORS), "GIF")[:100], ""),
        (encoded(Image.fromarray(COLORS), "WEBP")[:60], ""),
        (encoded(Image.fromarray(COLORS), "TIFF")[:120], ""),
        (b"P5 16 16 65536\n" + bytes(512), ""),
        (b"BM" + bytes(60), ""),
    ],
)
def test_broken_files_are_named(tmp_path, content, message):
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"broken.png cannot be read as .*({message})"):
        FileImages(tmp_path, [path]).load(0)


NOISE = np.random.Generator(np.random.PCG64(0)).integers(0, 255, (64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM"])
def test_pictures_that_are_cut_short_are_found_at_a_glance(kind, monkeypatch):
    whole = encoded(Image.fromarray(NOISE), kind)
    cut = 0
    for end in (len(whole) - 40, len(whole) * 2 // 3, len(whole) // 3):
        try:
            load_rgb(whole[:end])
        except OSError:
            cut += 1
            with pytest.raises(OSError, match=r"trunc|read|decod|buffer|image"):
                look_at(whole[:end])
    assert cut >= 2
    assert look_at(whole) == look_at(whole + bytes(100)) == (64, 64)
    assert look_at(whole + b"more of a camera" * 1000) == (64, 64)
    if kind not in ("BMP", "PPM"):
        monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)  # no pixels are decoded
        assert look_at(whole) == (64, 64)


@pytest.mark.parametrize(
    ("shape", "channels"),
    [((5, 6), 1), ((5, 6, 1), 1), ((1, 5, 6), 1), ((3, 5, 6), 3), ((5, 6, 4), 4)],
)
def test_arrays_of_every_shape(shape, channels):
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    found = np.asarray(array_to_rgb(pixels))
    assert found.shape == (5, 6, 3)
    if channels == 1:
        assert np.array_equal(found, np.stack([pixels.reshape(5, 6)] * 3, axis=-1))
    else:
        last = pixels if shape[-1] == channels and shape[0] == 5 else pixels.transpose(1, 2, 0)
        assert np.array_equal(found, last[..., :3])


@pytest.mark.parametrize(
    "pixels", [np.zeros(5), np.zeros((0, 4)), np.zeros((5, 4, 2)), np.array("a")]
)
def test_arrays_that_are_no_picture(pixels):
    with pytest.raises(ValueError, match="shape"):
        array_to_rgb(pixels)
