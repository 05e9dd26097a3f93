"""Tables as people have them: columns of images and of labels, on disk and not on the hub."""

from __future__ import annotations

import datetime
import decimal
import io
import os
import socket

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from saln.data.datasets import load_dataset
from saln.data.items import read_item
from saln.errors import DataError, InputError

N = 40
LABELS = [row % 2 for row in range(N)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub-cache")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def connect(self, address):
        raise AssertionError(f"the network was asked: {address}")

    monkeypatch.setattr(socket.socket, "connect", connect)


def pixels(row):
    return np.full((6, 5, 3), 5 * row, dtype=np.uint8)


def png(row):
    stream = io.BytesIO()
    Image.fromarray(pixels(row)).save(stream, "PNG")
    return stream.getvalue()


def write(folder, images, labels=LABELS, split="train", image="image", label="label"):
    folder.mkdir(exist_ok=True)
    table = pa.table({image: images, label: labels} if label else {image: images})
    pq.write_table(table, folder / f"{split}.parquet")
    return folder


ENCODED = [png(row) for row in range(N)]
STRUCTS = [{"bytes": raw, "path": None} for raw in ENCODED]


def check(data, wanted=tuple(LABELS)):
    """Every image is its row's, and every label."""
    seen = 0
    for part in (data.train, data.validation):
        for row, label in zip(part.rows.tolist(), part.labels.tolist(), strict=True):
            assert np.array_equal(np.asarray(part.images.load(row)), pixels(row))
            assert part.images.header(row) == (5, 6)
            assert label == wanted[row]
            seen += 1
    return seen


def as_paths(folder, of):
    (folder / "pictures").mkdir(parents=True)
    for row in range(N):
        (folder / "pictures" / f"{row}.png").write_bytes(ENCODED[row])
    return [of(f"pictures/{row}.png") for row in range(N)]


def as_arrays(kind):
    return lambda folder: [pixels(row).astype(kind).tolist() for row in range(N)]


IMAGES = {
    "bytes": lambda folder: ENCODED,
    "large bytes": lambda folder: pa.array(ENCODED, pa.large_binary()),
    "struct": lambda folder: STRUCTS,
    "struct of bytes alone": lambda folder: [{"bytes": raw} for raw in ENCODED],
    "struct of paths": lambda folder: as_paths(
        folder, lambda path: {"bytes": None, "path": str(folder / path)}
    ),
    "relative paths in a struct": lambda folder: pa.array(
        as_paths(folder, lambda path: {"bytes": None, "path": path}),
        pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    ),
    "paths": lambda folder: as_paths(folder, str),
    "arrays": as_arrays(int),
    "arrays, channels first": lambda folder: [
        pixels(row).transpose(2, 0, 1).tolist() for row in range(N)
    ],
    "arrays of fractions": lambda folder: [(pixels(row) / 255).tolist() for row in range(N)],
}


@pytest.mark.parametrize("kind", IMAGES)
def test_images_of_every_kind(tmp_path, kind):
    folder = tmp_path / "data"
    images = IMAGES[kind](folder)
    if kind == "arrays":  # as pandas gives them
        images = pa.array(images, pa.list_(pa.list_(pa.list_(pa.uint8()))))
    data = load_dataset(f"hf:{write(folder, images)}")
    assert check(data) == 32
    before = data.fingerprint
    again = load_dataset(f"hf:{folder}").fingerprint
    assert again == before


def test_pixels_declared_as_arrays(tmp_path):
    features = datasets.Features(
        {"img": datasets.Array3D((6, 5, 3), "uint8"), "label": datasets.Value("int64")}
    )
    rows = {"img": [pixels(row) for row in range(N)], "label": LABELS}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "saved"))
    assert check(load_dataset(f"hf:{tmp_path / 'saved'}")) == 32


def test_what_save_to_disk_wrote(tmp_path):
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["b", "a"])}
    )
    table = datasets.Dataset.from_dict({"image": STRUCTS, "label": LABELS}, features=features)
    splits = datasets.DatasetDict({"train": table, "test": table.select(range(9, -1, -1))})
    splits.save_to_disk(str(tmp_path / "saved"))
    data = load_dataset(f"hf:{tmp_path / 'saved'}")
    assert data.class_names == ("b", "a")
    assert check(data) == N
    for row, label in enumerate(data.test.labels.tolist()):
        assert np.array_equal(np.asarray(data.test.images.load(row)), pixels(9 - row))
        assert label == (9 - row) % 2


def test_what_is_here_comes_before_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "photos", as_paths(tmp_path / "photos", str))
    assert check(load_dataset("hf:photos")) == check(load_dataset("hf:photos/train.parquet")) == 32


def test_a_file_that_cannot_be_loaded_is_one_line(tmp_path, capfd):
    folder = write(tmp_path / "data", ENCODED)
    write(folder, ENCODED, split="test", image="other")
    with pytest.raises(
        DataError, match=r"could not be loaded \(CastError: .*other.*\); give a fol"
    ):
        load_dataset(f"hf:{folder}")
    (folder / "train.parquet").write_bytes(b"PAR1 no more PAR1")
    with pytest.raises(DataError, match=r"could not be loaded \(Arrow\w+: [^\n]*\); give a folder"):
        load_dataset(f"hf:{folder}")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("ending", ["parquet", "csv", "tsv", "jsonl"])
def test_a_file_alone(tmp_path, ending):
    import pandas as pd

    folder = tmp_path / "data"
    frame = pd.DataFrame(
        {"file_name": as_paths(folder, str), "class": [("cat", "dog")[one] for one in LABELS]}
    )
    path = folder / f"table.{ending}"
    if ending == "parquet":
        frame.to_parquet(path)
    elif ending == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False, sep="\t" if ending == "tsv" else ",")
    data = load_dataset(f"hf:{path}")
    assert data.class_names == ("cat", "dog")
    assert check(data) == 32


CLASSES = {
    "text": ([("dog", "cat")[one] for one in LABELS], ("cat", "dog"), [1 - one for one in LABELS]),
    "whole": ([7 + 3 * one for one in LABELS], ("7", "10"), LABELS),
    "floats": ([float(one) for one in LABELS], ("0", "1"), LABELS),
    "yes or no": ([bool(one) for one in LABELS], ("False", "True"), LABELS),
    "negative": ([one - 1 for one in LABELS], ("-1", "0"), LABELS),
    "product numbers": ([2_000_000_000 * one + 5 for one in LABELS], ("5", "2000000005"), LABELS),
    "beyond 32 bits": ([2**62 + one for one in LABELS], (str(2**62), str(2**62 + 1)), LABELS),
    "categories": (
        pa.array([("dog", "cat")[one] for one in LABELS]).dictionary_encode(),
        ("cat", "dog"),
        [1 - one for one in LABELS],
    ),
    "unsigned": (pa.array(LABELS, pa.uint8()), ("0", "1"), LABELS),
    "half floats": (pa.array(np.array(LABELS, dtype=np.float16)), ("0", "1"), LABELS),
    "decimals": ([decimal.Decimal(one) for one in LABELS], ("0", "1"), LABELS),
    "alone in lists": ([[one] for one in LABELS], ("0", "1"), LABELS),
}


@pytest.mark.parametrize("kind", CLASSES)
def test_classes_are_numbered_and_their_names_are_kept(tmp_path, kind):
    labels, names, wanted = CLASSES[kind]
    data = load_dataset(f"hf:{write(tmp_path / 'data', ENCODED, labels)}")
    assert data.class_names == names
    check(data, wanted)


def test_many_classes_cost_no_more_than_few(tmp_path):
    random = np.random.Generator(np.random.PCG64(0))
    labels = random.integers(0, 100_000, 2000)
    images = [ENCODED[0]] * 2000
    data = load_dataset(f"hf:{write(tmp_path / 'data', images, labels)}")
    assert data.class_names == tuple(map(str, np.unique(labels)))
    for part in (data.train, data.validation, data.test):
        names = [int(data.class_names[label]) for label in part.labels]
        assert names == labels[part.rows].tolist()


BAD_LABELS = {
    "fractions": ([row / 7 for row in range(N)], InputError, "0.14.* in row 1: numbers to be pred"),
    "prices": ([float(row * 9) for row in range(N)], InputError, "40 different fractions in 40 ro"),
    "none": (
        [None, *LABELS[1:]],
        DataError,
        "no label in 1 of 40 rows, the first is row 0; remove",
    ),
    "all none": ([None] * N, DataError, "no label in 40 of 40 rows"),
    "nan": ([0.0, 1.0, float("nan"), *LABELS[3:]], DataError, r"1 of 40 .* row 2 \(nan\)"),
    "infinity": ([float("inf"), *LABELS[1:]], DataError, r"row 0 \(inf\)"),
    "lists": ([[0, 1]] * N, InputError, r"lists such as \[0, 1\]; an image has one class here"),
    "one-hot": ([[0.0, 1.0]] * N, InputError, "of one-hot or soft labels their argmax"),
    "structs": ([{"a": 1}] * N, InputError, "which are no classes; give whole numbers or names"),
    "dates": ([datetime.date(2020, 1, 1)] * N, InputError, "date32.*which are no classes; give"),
    "one class": ([3] * N, InputError, r"has one class \('3'\); there is nothing to tell apart"),
}


@pytest.mark.parametrize("kind", BAD_LABELS)
def test_labels_that_are_no_classes_are_refused(tmp_path, kind):
    labels, error, message = BAD_LABELS[kind]
    folder = write(tmp_path / "data", ENCODED, labels)
    with pytest.raises(error, match=rf"hf:{folder}.*{message}"):
        load_dataset(f"hf:{folder}")


def test_columns_that_are_not_there(tmp_path):
    folder = write(tmp_path / "one", ENCODED, label=None)
    with pytest.raises(InputError, match="no label column among image; rename the one with the"):
        load_dataset(f"hf:{folder}")
    folder = write(tmp_path / "two", list(range(N)), image="number")
    with pytest.raises(InputError, match="0 image columns, expected 1 among number, label"):
        load_dataset(f"hf:{folder}")
    folder = write(tmp_path / "three", ENCODED, ENCODED, image="a", label="b")
    with pytest.raises(InputError, match=r"2 image columns \(a, b\), expected 1 .*name the one"):
        load_dataset(f"hf:{folder}")
    folder = write(tmp_path / "four", ENCODED, split="test")
    with pytest.raises(InputError, match="has no split 'train', only test"):
        load_dataset(f"hf:{folder}")
    folder = write(tmp_path / "five", pa.array([], pa.binary()), pa.array([], pa.int64()))
    with pytest.raises((InputError, DataError), match=f"hf:{folder}"):
        load_dataset(f"hf:{folder}")


@pytest.mark.parametrize("label", [-1, None])
def test_a_test_split_whose_labels_are_secret_is_left_out(tmp_path, caplog, label):
    folder = write(tmp_path / "data", ENCODED)
    write(folder, ENCODED[:6], LABELS[:6], "validation")
    write(folder, ENCODED[:8], pa.array([label] * 8, pa.int64()), "test")
    data = load_dataset(f"hf:{folder}")
    assert "left out: split 'test', which has no labels" in caplog.text
    assert data.test.labels.tolist() == LABELS[:6]
    assert data.test.images.name == f"hf:{folder} (validation)"
    assert check(data) == N


def test_a_split_of_its_own_for_validation_is_used(tmp_path):
    folder = write(tmp_path / "data", ENCODED)
    write(folder, ENCODED[:6], LABELS[:6], "validation")
    write(folder, ENCODED[:8], LABELS[:8], "test")
    data = load_dataset(f"hf:{folder}")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [N, 6, 8]


def test_a_class_that_is_not_trained_on_is_refused(tmp_path):
    folder = write(tmp_path / "data", ENCODED)
    write(folder, ENCODED[:4], [0, 1, 5, 5], "test")
    with pytest.raises(DataError, match="label '5' in row 2 of split 'test' and 2 rows in all"):
        load_dataset(f"hf:{folder}")


def test_a_row_that_cannot_be_read_is_named(tmp_path):
    images = [b"", b"no picture", None, ENCODED[3][:45], *ENCODED[4:]]
    data = load_dataset(f"hf:{write(tmp_path / 'data', images)}")
    images = data.train.images
    for row in (0, 1, 2):
        with pytest.raises(
            DataError, match=rf"\(train\), row {row}: column 'image' cannot be read"
        ):
            images.header(row)
    for row in range(4):
        with pytest.raises(
            DataError, match=rf"\(train\), row {row}: column 'image' cannot be read"
        ):
            images.load(row)
    assert images.load(4).size == (5, 6)


def test_the_fingerprint_notices_a_changed_file_behind_a_path(tmp_path):
    folder = tmp_path / "data"
    write(folder, as_paths(folder, str))
    before = load_dataset(f"hf:{folder}").fingerprint
    assert load_dataset(f"hf:{folder}").fingerprint == before
    (folder / "pictures" / "3.png").write_bytes(b"x")
    assert load_dataset(f"hf:{folder}").fingerprint != before


def test_a_table_in_memory_gives_the_same_examples():
    for column in (ENCODED, STRUCTS, [pixels(row).tolist() for row in range(N)]):
        table = datasets.Dataset.from_dict({"image": column, "label": [float(x) for x in LABELS]})
        for row in (0, 7):
            image, label = read_item(table, row)
            assert np.array_equal(np.asarray(image), pixels(row))
            assert label == LABELS[row]
    turned = table.with_transform(lambda rows: {"image": [Image.new("RGB", (1, 1))], "label": [7]})
    assert read_item(turned, 0)[1] == 7  # what somebody chose is taken


def test_the_hub_is_not_asked_and_nothing_stays_set(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    with pytest.raises(DataError, match=r"hf:some/where could not be loaded .* with download=True"):
        load_dataset("hf:some/where", tmp_path)
    check(load_dataset(f"hf:{write(tmp_path / 'data', ENCODED)}"))
    assert "HF_HUB_OFFLINE" not in os.environ
    assert not constants.HF_HUB_OFFLINE
    assert not datasets.config.HF_HUB_OFFLINE
    asked = []
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *a, **k: asked.append(constants.HF_HUB_OFFLINE) or {}
    )
    for download in (False, True):
        with pytest.raises(InputError, match="no split 'train'"):
            load_dataset("hf:some/where", tmp_path, download=download)
    assert asked == [True, False]


def test_a_process_that_was_offline_once_may_download_later(warm, tmp_path, monkeypatch):
    (tmp_path / "script.py").write_text(
        "import sys, os\n"
        "from saln.data.datasets import load_dataset\n"
        "assert 'huggingface_hub' not in sys.modules\n"
        "try: load_dataset('hf:some/where')\n"
        "except Exception as error: print(type(error).__name__)\n"
        "from huggingface_hub import constants\n"
        "import datasets\n"
        "print(os.environ.get('HF_HUB_OFFLINE'), constants.HF_HUB_OFFLINE, "
        "datasets.config.HF_HUB_OFFLINE)\n"
    )
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    done = warm.run([], tmp_path, script=tmp_path / "script.py")
    assert done.stdout.split() == ["DataError", "None", "False", "False"], done.stderr


def test_a_user_who_is_offline_stays_so(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="hf:some/where could not be loaded"):
        load_dataset("hf:some/where", tmp_path, download=True)
    assert constants.HF_HUB_OFFLINE
