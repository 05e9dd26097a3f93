"""What people give in the place of the exact types: taken where it means one thing."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from saln.data import arguments
from saln.data.arguments import (
    as_label,
    as_path,
    as_share,
    as_wholes,
    check_finite,
    first_nonfinite,
)
from saln.data.datasets import Examples, load_dataset, stratified_part
from saln.data.image_sources import ArrayImages, FileImages
from saln.data.items import read_item
from saln.data.label_noise import flip_labels
from saln.data.transforms import (
    DigitAugmentation,
    EvaluationTransform,
    Normalization,
    PhotoAugmentation,
)
from saln.errors import DataError, InputError

GREY = np.arange(36, dtype=np.uint8).reshape(6, 6)
LABELS = np.arange(40) % 4


@pytest.mark.parametrize(
    "label",
    [3, 3.0, np.int8(3), np.uint64(3), np.float32(3), torch.tensor(3), torch.tensor([3.0]),
     np.array([[3]]), [3], (3,), torch.tensor(3, dtype=torch.bfloat16)],
    ids=repr,
)  # fmt: skip
def test_a_label_of_any_type(label):
    assert as_label(label) == 3
    assert type(as_label(label)) is int
    assert read_item([(GREY, label)], 0)[1] == 3
    assert as_label(True) == as_label(np.True_) == 1
    assert as_label(2_000_000_000) == 2_000_000_000


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (-1, "its label is -1; give whole numbers from 0, and leave out what has no class"),
        (-100.0, "its label is -100.0; give whole numbers from 0"),
        (0.5, "its label is 0.5, expected a whole number, one a class"),
        (float("nan"), "its label is nan; give its class, or leave that example out"),
        (float("inf"), "its label is inf"),
        (None, "its label is None; give its class, or leave that example out"),
        (2**63, "its label is 9223372036854775808; give whole numbers from 0"),
        ("cat", "its label is 'cat', expected a whole number"),
        ([0, 1], r"its label has shape \(2,\), expected a whole number, one a class; of one-hot"),
        (torch.eye(3)[0], r"its label has shape \(3,\)"),
        ([], r"its label has shape \(0,\)"),
        (1 + 0j, r"its label is \(1\+0j\), expected a whole"),
        ({"a": 1}, "its label is a dict, expected a whole number"),
    ],
    ids=repr,
)
def test_a_label_that_is_no_class(label, message):
    with pytest.raises(InputError, match=message):
        as_label(label)
    with pytest.raises(InputError, match=f"example 0 of list cannot be used: {message}"):
        read_item([(GREY, label)], 0)


def test_settings_of_a_data_set_in_other_types():
    wanted = load_dataset("digits", Path("data"), limit=100, validation_share=0.25, split_seed=3)
    for number in (float, np.int32, np.uint8, np.float64):
        found = load_dataset(
            "digits", "data", limit=number(100), validation_share=np.float64(0.25),
            split_seed=number(3),
        )  # fmt: skip
        assert np.array_equal(found.train.rows, wanted.train.rows)
        assert np.array_equal(found.test.rows, wanted.test.rows)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"spec": Path("photos")}, "spec=.*Path.* is not allowed; give text, one of digits, cif"),
        ({"spec": None}, "spec=None is not allowed"),
        ({"spec": "Digits"}, "unknown data set 'Digits'; choose one of digits"),
        ({"spec": "folder:"}, "unknown data set 'folder:'"),
        ({"data_root": 5}, "data_root=5 is no path"),
        ({"limit": 0}, "limit=0 is not allowed; give a number of at least 1"),
        ({"limit": 2.5}, "limit=2.5 is not allowed"),
        ({"limit": "5"}, "limit='5' is not allowed"),
        ({"limit": True}, "limit=True is not allowed"),
        ({"validation_share": 1.5}, r"validation_share=1.5 is not allowed; give a share in \[0, 1"),
        ({"validation_share": float("nan")}, "validation_share=nan is not allowed"),
        ({"test_share": -0.1}, "test_share=-0.1 is not allowed"),
        ({"reference_share": "0.1"}, "reference_share='0.1' is not allowed"),
        ({"reference_share": None}, "reference_share=None is not allowed"),
        ({"split_seed": 1.5}, "split_seed=1.5 is not allowed"),
        ({"split_seed": None}, "split_seed=None is not allowed"),
        ({"validation_share": 0}, "nothing is left for validation"),
    ],
)
def test_settings_that_mean_nothing(settings, message):
    with pytest.raises(InputError, match=message):
        load_dataset(**{"spec": "digits"} | settings)


def test_parts_of_examples():
    examples = load_dataset("digits", limit=50).train
    wanted = examples.part(np.array([1, 3, 7]))
    mask = np.zeros(len(examples), dtype=bool)
    mask[[1, 3, 7]] = True
    for positions in ([7, 1, 3], (1.0, 3.0, 7.0), torch.tensor([1, 7, 3]), mask, mask.tolist()):
        part = examples.part(positions)
        assert part.rows.tolist() == wanted.rows.tolist()
        assert part.labels.tolist() == wanted.labels.tolist()
    assert len(examples.part([])) == 0
    for positions in ([-1], [len(examples)], [0.5], ["a"], [[0, 1]], [True]):
        with pytest.raises(InputError, match="positions"):
            examples.part(positions)


def test_labels_to_replace_and_to_draw_from():
    wanted = flip_labels(LABELS, 0.5, 4, 7)
    drawn = stratified_part(LABELS, 12, np.random.Generator(np.random.PCG64(1)))
    for labels in (
        LABELS.tolist(), torch.from_numpy(LABELS), LABELS.astype(float), LABELS.astype(np.uint8),
        LABELS[:, None],
    ):  # fmt: skip
        assert np.array_equal(flip_labels(labels, np.float32(0.5), 4.0, np.int64(7)), wanted)
        same = stratified_part(labels, 12.0, np.random.Generator(np.random.PCG64(1)))
        assert np.array_equal(same, drawn)
    for labels, message in (
        (LABELS - 1, "label of example 0 is -1"),
        (LABELS + 1, "label of example 3 is 4, expected 0 to 3"),
        (LABELS + 0.5, "labels are float64"),
        (["a"] * 40, "labels are <U1"),
        (None, "labels are object"),
    ):
        with pytest.raises(InputError, match=message):
            flip_labels(labels, 0.5, 4, 7)
    for share in (1, -0.1, "0.5", None, float("nan"), True):
        with pytest.raises(InputError, match=r"is not allowed; give a share in \[0, 1\), e.g. 0"):
            flip_labels(LABELS, share, 4, 7)
    with pytest.raises(InputError, match="count=41 is more than the 40 labels"):
        stratified_part(LABELS, 41, np.random.Generator(np.random.PCG64(1)))
    with pytest.raises(InputError, match=r"random=.* give a numpy.random.Generator"):
        stratified_part(LABELS, 4, random.Random(0))


def test_sizes_and_normalizations():
    image = Image.fromarray(GREY).convert("RGB")
    wanted = EvaluationTransform(4)(image)
    for size in (4.0, np.int16(4)):
        assert torch.equal(EvaluationTransform(size)(image), wanted)
        for kind in (PhotoAugmentation, DigitAugmentation):
            made = kind(size)(image, torch.Generator().manual_seed(0))
            assert torch.equal(made, kind(4)(image, torch.Generator().manual_seed(0)))
    given = Normalization([0.5, 0.5, 0.5], np.array([0.2, 0.2, 0.2]))
    assert given == Normalization((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    assert hash(given) == hash(Normalization((0.5,) * 3, (0.2,) * 3))
    for kind in (EvaluationTransform, PhotoAugmentation, DigitAugmentation):
        for size in (0, -4, 4.5, "4", None, (4, 4)):
            with pytest.raises(InputError, match=r"size=.* is not allowed"):
                kind(size)
    for mean, std in (
        ((0.5, 0.5), (0.2,) * 3), (0.5, 0.2), ((0.5,) * 3, (0.2, 0.2, 0.0)),
        ((0.5,) * 3, (0.2, 0.2, -1.0)), ((0.5, 0.5, float("nan")), (0.2,) * 3), ("abc", (1,) * 3),
    ):  # fmt: skip
        with pytest.raises(InputError, match=r"give three numbers, one a color"):
            Normalization(mean, std)


def test_sources_of_images(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    for images in (
        FileImages(str(tmp_path), [str(tmp_path / "a.png")]),
        ArrayImages(GREY[None].astype(np.int64)),
        ArrayImages(GREY[None].astype(np.uint16) * 257),
    ):
        assert np.array_equal(np.asarray(images.load(0))[..., 0], GREY)
        assert images.header(0) == (6, 6)
        assert images.name_of(0) in ("a.png", "row 0")
        Examples(images, LABELS[:1], LABELS[:1], LABELS[:1])[0]
    with pytest.raises(DataError, match=r"row 0 cannot be read as an image .its values go from -5"):
        ArrayImages(GREY[None].astype(np.int64) - 5).load(0)


def test_paths_shares_and_whole_numbers():
    assert as_path("~nobody-of-this-name/x", "out") == Path("~nobody-of-this-name/x")
    assert as_share(np.float32(0.5), "share") == 0.5
    assert as_wholes([], "rows").tolist() == []
    with pytest.raises(InputError, match=r"rows are int64 of shape \(1, 2\); give whole numbers"):
        as_wholes([[1, 2]], "rows")


ROWS = np.ones((300, 2, 3), dtype=np.float16)


def spoiled(value, *rows):
    array = ROWS.copy()
    array[list(rows), 1, 2] = value
    return array


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_the_first_row_that_is_not_finite_is_named(value, kind, monkeypatch):
    monkeypatch.setattr(arguments, "_NUMBERS", 60)  # ten rows at once
    for rows in ([0], [9, 10], [299], [128, 30, 200]):
        assert first_nonfinite(kind(spoiled(value, *rows))) == min(rows)
    with pytest.raises(
        InputError, match=r"^features of example 30 are NaN or infinite; find what made them so"
    ):
        check_finite(kind(spoiled(value, 128, 30)), "features")
    with pytest.raises(InputError, match=r"^losses of row 1030 are .* infinite; train anew$"):
        check_finite(
            kind(spoiled(value, 30)), "losses", rows=range(1000, 1300), of="row", cure="train anew"
        )


def test_what_is_finite_passes():
    widest = np.finfo(np.float64).max
    for values in (ROWS, ROWS[:0], np.full((4, 2), widest), np.arange(6), np.array([True])):
        check_finite(values, "features")
        check_finite(torch.from_numpy(values), "features")
    check_finite(torch.ones(3, dtype=torch.bfloat16, requires_grad=True), "losses")
