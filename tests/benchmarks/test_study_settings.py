"""Prepared folders: what is stored is what is read, whatever the size and the coding."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scratch_plans import Noise, Setup, write_images
from study_settings import SETTINGS, prepare_decoded, split_cifar10
from tuned_scratch import ScratchStudy
from tuned_study import Cell, Point


def decoded(path):
    random = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", 30), ("test", 20)):
        arrays[f"{part}_images"] = random.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
        arrays[f"{part}_labels"] = np.arange(n) % 10
    np.savez(path, **arrays)
    return arrays


def test_decoded_images_are_parted_by_rows(tmp_path):
    arrays = decoded(tmp_path / "cifar10.npz")
    rows = {"train": np.arange(3, 30), "validation": np.arange(5), "test": np.arange(5, 20)}
    prepare_decoded(tmp_path / "all", "cifar10-all", tmp_path / "cifar10.npz", rows)
    setup = Setup(tmp_path / "all")
    assert setup.setting() == "cifar10-all"
    parts = setup.images(32)
    np.testing.assert_array_equal(parts["train"].images, arrays["train_images"][3:])
    np.testing.assert_array_equal(parts["validation"].labels, arrays["test_labels"][:5])
    np.testing.assert_array_equal(parts["test"].images, arrays["test_images"][5:])
    np.testing.assert_array_equal(setup.true_labels(), arrays["train_labels"][3:])


def test_rows_of_test_and_validation_are_disjoint_and_of_all_classes():
    labels = np.arange(10_000) % 10
    tested, validated = split_cifar10(labels)
    assert not set(tested) & set(validated)
    assert np.bincount(labels[tested]).tolist() == [500] * 10
    assert np.bincount(labels[validated]).tolist() == [250] * 10


def test_coded_images_of_another_size_are_resized(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(np.full((96, 96, 3), 77, dtype=np.uint8)).save(stream, "PNG")
    part = ([stream.getvalue()] * 2, np.array([0, 1]))
    write_images(tmp_path, dict.fromkeys(("train", "validation", "test"), part))
    images = Setup(tmp_path).images(64)["test"].images
    np.testing.assert_array_equal(images, np.full((2, 64, 64, 3), 77))
    assert Setup(tmp_path).setting() == "cifar10"  # as folders were before there were others


def test_clean_labels_are_kept_once_for_all_seeds():
    assert {Noise("clean", 0.0, seed).labels for seed in (0, 1)} == {"clean"}
    assert Noise("symmetric", 0.4, 1).labels == "symmetric-0.4-1"


@pytest.mark.parametrize(("name", "steps"), [("pets-64", 11), ("pets-fine-tune", 11)])
def test_the_steps_of_a_run_are_those_of_its_candidates(name, steps, tmp_path):
    arrays = {"train-images": np.zeros((3679, 1, 1, 3), dtype=np.uint8)}
    np.savez(tmp_path / "images.npz", **arrays, **{"train-labels": np.arange(3679) % 37})
    (tmp_path / "setting.json").write_text(f'{{"setting": "{name}"}}')
    study = ScratchStudy(
        Setup(tmp_path), 4, SETTINGS[name].epochs, cells={}, grid=[Point(0.1, 0)],
        tuning_seeds=[100], seeds=[0], rows=[],
    )  # fmt: skip
    assert study.steps(Cell(name, "clean", 0.0)) == steps * SETTINGS[name].epochs
    assert study.steps(Cell(name, "clean", 0.0, 0.0)) == 57 * SETTINGS[name].epochs
