from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from saln.data import dataset_loaders
from saln.data.datasets import load_dataset, stratified_part
from saln.errors import DataError, InputError


@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    share=st.floats(0, 1),
    seed=st.integers(0, 1_000),
)
def test_a_stratified_part_has_each_class_in_proportion(counts, share, seed):
    random = np.random.Generator(np.random.PCG64(seed))
    labels = random.permutation(np.repeat(np.arange(len(counts)), counts))
    wanted = round(share * len(labels))
    part = stratified_part(labels, wanted, random)
    assert len(part) == len(set(part.tolist())) == wanted
    found = np.bincount(labels[part], minlength=len(counts))
    exact = np.array(counts) * wanted / len(labels)
    assert (np.abs(found - exact) < 1 + 1e-9).all()


def test_digits_are_split_once_for_all():
    data = load_dataset("digits", reference_share=0.1)
    parts = [data.train, data.reference, data.validation, data.test]
    rows = np.concatenate([part.rows for part in parts])
    assert sorted(rows.tolist()) == list(range(1797))  # every example is in one part
    assert [len(part) for part in parts] == [1165, 129, 144, 359]
    again = load_dataset("digits", reference_share=0.1)
    assert np.array_equal(again.train.rows, data.train.rows)
    other = load_dataset("digits", reference_share=0.1, split_seed=1)
    assert not np.array_equal(other.train.rows, data.train.rows)
    for part in parts:
        share = np.bincount(part.labels, minlength=10) / len(part)
        assert np.abs(share - 0.1).max() < 0.02


def test_the_reference_part_is_all_that_a_reference_costs():
    without, with_ = load_dataset("digits"), load_dataset("digits", reference_share=0.1)
    assert np.array_equal(without.train.rows, with_.train_and_reference.rows)
    assert np.array_equal(without.test.rows, with_.test.rows)


def test_limit_caps_training_and_test_images():
    data = load_dataset("digits", limit=100, reference_share=0.1)
    assert len(data.train) + len(data.reference) + len(data.validation) == 100
    assert len(data.test) == 100


def test_label_noise_touches_training_alone_and_keeps_the_truth():
    clean = load_dataset("digits", reference_share=0.1)
    noisy = clean.with_label_noise(0.4, seed=0)
    for name in ("train", "reference"):
        part = getattr(noisy, name)
        assert np.mean(part.labels != part.true_labels) == pytest.approx(0.4, abs=0.005)
        assert np.array_equal(part.true_labels, getattr(clean, name).labels)
    for name in ("validation", "test"):
        assert np.array_equal(getattr(noisy, name).labels, getattr(clean, name).labels)
    assert clean.with_label_noise(0.0, seed=0) is clean


def test_a_digit_is_an_rgb_image_of_its_own_pixels():
    data = load_dataset("digits")
    image = data.train.images.load(0)
    assert (image.mode, image.size) == ("RGB", (8, 8))
    assert np.asarray(image).max() > 200


def test_folder(image_folder):
    data = load_dataset(f"folder:{image_folder}")
    assert data.class_names == ("blue", "red")
    for row, label in zip(data.train.rows, data.train.labels, strict=True):
        pixels = np.asarray(data.train.images.load(int(row))).reshape(-1, 3).mean(axis=0)
        assert (pixels[0] > pixels[2]) == (label == 1)  # the label is the picture's own


def test_the_fingerprint_notices_a_changed_folder(image_folder):
    before = load_dataset(f"folder:{image_folder}").fingerprint
    assert load_dataset(f"folder:{image_folder}").fingerprint == before
    first = image_folder / "red" / "00.png"
    first.rename(image_folder / "red" / "zz.png")
    renamed = load_dataset(f"folder:{image_folder}").fingerprint
    assert renamed != before
    (image_folder / "red" / "01.png").write_bytes(first.parent.joinpath("zz.png").read_bytes()[:-9])
    assert load_dataset(f"folder:{image_folder}").fingerprint not in (before, renamed)


def test_a_broken_image_names_its_file(image_folder):
    broken = image_folder / "blue" / "07.png"
    broken.write_bytes(b"no image")
    data = load_dataset(f"folder:{image_folder}")
    row = [path.name for path in data.train.images.paths].index("07.png")
    with pytest.raises(DataError, match=r"blue/07\.png cannot be read as an image"):
        data.train.images.load(row)


def test_hugging_face_folder(image_folder, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    data = load_dataset(f"hf:{image_folder}")
    assert set(data.class_names) == {"blue", "red"}
    row, label = int(data.train.rows[5]), int(data.train.labels[5])
    pixels = np.asarray(data.train.images.load(row)).reshape(-1, 3).mean(axis=0)
    assert data.class_names[label] == ("red" if pixels[0] > pixels[2] else "blue")
    assert data.train.images.name_of(row) == f"row {row}"


def test_hugging_face_path_that_is_not_there():
    with pytest.raises(InputError, match=r"hf:\./nowhere does not exist"):
        load_dataset("hf:./nowhere")


def test_real_pets(data_root):
    data = load_dataset("oxford-pet", data_root, reference_share=0.1)
    parts = len(data.train), len(data.reference), len(data.validation)
    assert sum(parts) == 3680
    assert len(data.test) == 3669
    assert len(data.class_names) == 37
    # The file's name says the breed.
    for row, label in list(zip(data.train.rows, data.train.labels, strict=True))[::200]:
        breed = data.train.images.paths[int(row)].stem.rsplit("_", 1)[0]
        assert breed.replace("_", " ").lower() == data.class_names[int(label)].lower()


def test_real_cifar10(data_root):
    data = load_dataset(f"hf:{data_root / 'cifar10'}", data_root, limit=1000)
    assert len(data.train) + len(data.validation) == 1000
    assert len(data.test) == 1000
    assert len(data.class_names) == 10
    assert data.train.images.load(0).size == (32, 32)
    assert data.default_image_size == 32


@pytest.mark.parametrize("is_there", [True, False])
def test_digits_are_those_of_scikit_learn_also_where_its_file_is_elsewhere(monkeypatch, is_there):
    bunch = load_digits()
    if not is_there:
        monkeypatch.setattr(dataset_loaders.importlib.util, "find_spec", lambda name: None)
    images, targets = dataset_loaders._digits_of_scikit_learn()
    np.testing.assert_array_equal(images, bunch.images)
    np.testing.assert_array_equal(targets, bunch.target)
    assert targets.dtype == np.int64
