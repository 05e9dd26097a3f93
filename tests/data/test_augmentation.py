from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from saln.data.datasets import load_dataset
from saln.data.torch_datasets import EvaluationView, TrainingView, collate
from saln.data.transforms import (
    IMAGENET,
    DigitAugmentation,
    EvaluationTransform,
    Normalization,
    PhotoAugmentation,
    functional,
)
from saln.errors import DataError
from saln.randomness import derive_generator


def gradient_image(width: int = 40, height: int = 30) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))


def test_normalization_is_the_papers():
    grey = Image.new("RGB", (2, 2), (124, 116, 104))
    found = IMAGENET(grey)[:, 0, 0]
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = (np.array([124, 116, 104]) / 255 - mean) / std
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_normalization_gives_the_bits_of_torchvision():
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(32, 8, 3)  # a shade a pixel
    image = Image.fromarray(every)
    expected = functional.normalize(functional.to_tensor(image), IMAGENET.mean, IMAGENET.std)
    found = IMAGENET(image)
    assert torch.equal(found, expected)
    assert found.is_contiguous()


def test_evaluation_crops_the_middle():
    image = gradient_image(60, 30)
    plain = Normalization((0, 0, 0), (1, 1, 1))
    pixels = EvaluationTransform(30, plain)(image)
    assert pixels.shape == (3, 30, 30)
    expected = np.asarray(image)[:, 15:45].transpose(2, 0, 1) / 255
    np.testing.assert_allclose(pixels.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("kind", [PhotoAugmentation, DigitAugmentation])
def test_augmentation_depends_on_its_generator_alone(kind):
    image, augment = gradient_image(), kind(16)
    first, second = (augment(image, derive_generator("a", 1)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (3, 16, 16)
    assert not torch.equal(first, augment(image, derive_generator("a", 2)))


def test_about_half_of_the_photos_are_flipped():
    image = gradient_image()
    still = PhotoAugmentation(16, degrees=0.0, jitter=0.0, hue=0.0)
    flipped = 0
    for number in range(400):
        red = still(image, derive_generator("flip", number))[0]
        flipped += bool(red[:, 0].mean() > red[:, -1].mean())
    assert 160 < flipped < 240


def test_jitter_moves_brightness_within_its_bounds():
    grey = Image.new("RGB", (8, 8), (100, 100, 100))
    plain = Normalization((0, 0, 0), (1, 1, 1))
    augment = PhotoAugmentation(8, plain, degrees=0.0)
    values = [float(augment(grey, derive_generator("b", i)).mean()) * 255 for i in range(300)]
    # Of a uniform grey only brightness changes: contrast, saturation and hue keep it.
    assert 78 <= min(values) < 84
    assert 116 < max(values) <= 122


def test_a_digit_is_never_mirrored():
    left = Image.new("RGB", (8, 8))
    left.paste((255, 255, 255), (0, 0, 3, 8))
    augment = DigitAugmentation(16)
    for number in range(200):
        pixels = augment(left, derive_generator("digit", number))[0]
        assert pixels[:, :8].mean() > pixels[:, 8:].mean()


def test_a_view_depends_on_seed_epoch_and_example_alone():
    data = load_dataset("digits")
    views = [TrainingView(data.train, DigitAugmentation(16), seed=3) for _ in range(2)]
    for view in views:
        view.set_epoch(5)
    [views[0][i] for i in range(10)]  # read others first
    image, label, index = views[0][20]
    assert torch.equal(image, views[1][20][0])
    assert (label, index) == (int(data.train.labels[20]), 20)
    views[1].set_epoch(6)
    assert not torch.equal(image, views[1][20][0])
    other = TrainingView(data.train, DigitAugmentation(16), seed=4)
    other.set_epoch(5)
    assert not torch.equal(image, other[20][0])


def test_a_broken_image_travels_as_an_error(image_folder):
    (image_folder / "blue" / "00.png").write_bytes(b"no image")
    data = load_dataset(f"folder:{image_folder}", test_share=0.02, validation_share=0.02)
    view = EvaluationView(data.train, EvaluationTransform(8))
    items = [view[index] for index in range(len(view))]
    error = collate(items)
    assert isinstance(error, DataError)
    assert "00.png" in str(error)
