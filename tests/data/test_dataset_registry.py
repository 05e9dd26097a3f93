"""A new data set is one function: added from outside, it is compared like the others."""

import json
import re

import numpy as np
import pytest

from saln.cli import main
from saln.data import ArrayImages, ImageSplit, LoadedSplits, load_dataset, register_dataset
from saln.data.dataset_registry import DATASETS, DatasetRequest
from saln.errors import DataError, InputError

# What figures look like is the business of tests/report/.
pytestmark = pytest.mark.usefixtures("quick_figures")

PACKAGE = '''\
"""A package that somebody else has made."""

import numpy as np

from saln.data import ArrayImages, ImageSplit, LoadedSplits


def stripes(request):
    """Stripes that lie or stand.

    More is said here.
    """
    pixels = np.zeros((40, 8, 8), dtype=np.uint8)
    pixels[::2, ::2, :] = 255
    pixels[1::2, :, ::2] = 255
    return LoadedSplits(ImageSplit(ArrayImages(pixels), np.arange(40) % 2), ("lying", "standing"))
'''


@pytest.fixture(autouse=True)
def own_names(monkeypatch):
    """What a test registers is gone after it; our own names, registered once, are not."""
    DATASETS.entries()
    monkeypatch.setattr(DATASETS, "_entries", dict(DATASETS._entries))
    monkeypatch.setattr(DATASETS, "_seen", set())


def brightness(count, seed, argument=""):
    """Gray squares: class 1 is bright; ``argument`` says by how much."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    light = labels * int(argument or 128)
    pixels = random.integers(0, 64, (count, 8, 8), dtype=np.uint8) + light[:, None, None]
    return ImageSplit(ArrayImages(pixels.astype(np.uint8)), labels)


def test_one_function_is_a_data_set_that_compare_takes(tmp_path, capsys):
    requests = []

    @register_dataset("squares:", "gray squares", argument="LIGHT", needs="nothing", image_size=8)
    def squares(request):
        requests.append(request)
        parts = [brightness(count, seed, request.argument) for seed, count in enumerate((90, 40))]
        return LoadedSplits(parts[0], ("dark", "bright"), test=parts[1])

    flags = [
        "--dataset", "squares:150", "--data-root", str(tmp_path), "--methods", "standard,uniform",
        "--learner", "small-cnn", "--backbone", "pixels", "--epochs", "8", "--batch-size", "8",
        "--filter-ratio", "0.5", "--seeds", "0", "--learning-rate", "0.02",
        "--cache-dir", str(tmp_path / "features"), "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    assert main(["compare", *flags]) == 0
    assert requests == [DatasetRequest("150", tmp_path, False)]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["dataset"] == "squares:150"
    # Two classes that differ in light alone are told apart by any network that learns at all.
    assert summary["arms"]["standard"]["test_accuracy"]["mean"] > 0.9
    capsys.readouterr()
    assert main(["list"]) == 0
    assert re.search(r"  squares:LIGHT +gray squares \(nothing\)\n", capsys.readouterr().out)
    assert main(["compare", "--help"]) == 0
    assert "squares:LIGHT" in capsys.readouterr().out
    assert main(["compare", "--dataset", "circles"]) == 2
    assert "hf:NAME-OR-PATH, squares:LIGHT" in capsys.readouterr().err


def test_an_installed_package_adds_one_by_an_entry_point(tmp_path, monkeypatch):
    about = tmp_path / "stripes-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: stripes\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[saln.datasets]\nstripes = stripes_package:stripes\nbroken = stripes_package:nothing\n"
    )
    (tmp_path / "stripes_package.py").write_text(PACKAGE)
    assert "stripes" not in DATASETS
    monkeypatch.syspath_prepend(tmp_path)
    data = load_dataset("stripes")
    assert data.class_names == ("lying", "standing")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [29, 3, 8]
    assert DATASETS.help()["stripes"] == "Stripes that lie or stand."
    # What fails in it hides neither the other names nor that it failed.
    assert "broken" not in DATASETS
    assert list(DATASETS.help())[:3] == ["digits", "cifar10", "oxford-pet"]


def test_an_entry_point_that_fails_is_said(tmp_path, monkeypatch, caplog):
    about = tmp_path / "broken-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[saln.datasets]\nbroken = no_such_module:load\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="unknown data set 'broken'; choose one of digits"):
        load_dataset("broken")
    assert "the data set broken of an installed package (no_such_module:load) cannot be used" in (
        caplog.text
    )


def test_names_are_taken_once():
    @register_dataset("mine", "the first")
    def first(request):
        raise NotImplementedError

    with pytest.raises(InputError, match="there is a data set 'mine' already; choose another"):
        register_dataset("mine", "another")(brightness)
    register_dataset("mine", "the same function, registered again")(first)
    assert DATASETS.help()["mine"] == "the same function, registered again"


@pytest.mark.parametrize(
    ("name", "argument"),
    [("", ""), (" x", ""), ("a,b", ""), ("a:b", ""), ("a:", ""), ("a", "PATH"), (5, "")],
)
def test_names_that_no_flag_could_hold_are_refused(name, argument):
    with pytest.raises(InputError, match=r"data set .* is not allowed; give a name"):
        register_dataset(name, "what it is", argument=argument)(brightness)


def test_a_prefix_needs_something_behind_it():
    with pytest.raises(InputError, match="unknown data set 'folder:'; choose one of digits"):
        load_dataset("folder:")
    with pytest.raises(
        InputError,
        match=r"the prefix 'tar:' is not registered \(registered: folder:PATH, hf:NAME-OR-PATH\)",
    ):
        load_dataset("tar:x")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: brightness(8, 0), "the loader of broken gives a ImageSplit, not LoadedSplits"),
        (
            lambda: LoadedSplits(brightness(8, 0), ("dark",)),
            "the train split has label 1, but there are 1 class names",
        ),
        (
            lambda: ImageSplit(ArrayImages(np.zeros((3, 8, 8), np.uint8)), [0, 1]),
            r"a split of 3 images cannot be: .*labels \(2,\)",
        ),
        (
            lambda: ImageSplit(ArrayImages(np.zeros((2, 8, 8), np.uint8)), [0, -1]),
            "the label of example 1 is -1",
        ),
        (
            lambda: ImageSplit(ArrayImages(np.zeros((2, 8, 8), np.uint8)), ["a", "b"]),
            "the labels of a split are texts; give positions in the class names",
        ),
    ],
)
def test_what_a_loader_gives_is_checked(make, message):
    register_dataset("broken", "gives something else")(lambda request: make())
    with pytest.raises(DataError, match=message):
        load_dataset("broken")


@pytest.mark.parametrize(
    ("spec", "meant"),
    [
        ("photos", "folder:photos"),
        ("../photos", "folder:../photos"),
        ("~/photos", "folder:~/photos"),
        ("rows.parquet", "hf:rows.parquet"),
        ("someone/birds", "hf:someone/birds or folder:someone/birds"),
        ("cifar-10", "cifar10"),
        ("digit", "digits"),
    ],
)
def test_what_somebody_may_have_meant_is_named(tmp_path, monkeypatch, spec, meant):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        load_dataset(spec)
    assert str(caught.value).endswith(f"(did you mean {meant}?)")


def test_nothing_is_guessed_of_a_name_like_no_other():
    for spec in ("imagenet", "tar:x/y", "folder:"):
        with pytest.raises(InputError) as caught:
            load_dataset(spec)
        assert "did you mean" not in str(caught.value)
