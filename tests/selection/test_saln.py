"""The listing's set, against scikit-learn's cosine similarity and NumPy's dense eigensolver."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles.dense_fiedler import second, stable_choice

from saln.data.datasets import load_dataset
from saln.features.backbones import build_backbone
from saln.features.extraction import extract_features
from saln.randomness import derive_generator
from saln.selection import SALN, Candidates

# Candidates of one step with f = 0.8 and 0.5, below and above where the solver changes.
SIZES = [(10, 2), (40, 8), (160, 32), (160, 80), (320, 64)]


def kept(features, k):
    candidates = Candidates(indices=torch.arange(len(features)), features=features)
    selection = SALN()(candidates, k, generator=derive_generator("unused"))
    magnitudes = np.abs(second(features.double().numpy())[1])
    if k < len(features):
        # Its scores are the listing's vector, as far as that is determined.
        order = np.argsort(-selection.scores.numpy(), kind="stable")[:k]
        assert magnitudes[order].sum() == pytest.approx(np.sort(magnitudes)[-k:].sum(), abs=1e-6)
    return frozenset(selection.positions.tolist())


def assert_is_the_listings(batches, k):
    """Equal wherever the oracle's own answer is stable, and that must be nearly everywhere."""
    stable = 0
    for features in batches:
        expected = stable_choice(features.double().numpy(), k)
        found = kept(features, k)
        assert len(found) == k
        if expected is not None:
            stable += 1
            assert found == expected
    assert stable >= 0.7 * len(batches)


@pytest.fixture(scope="module")
def real_features(data_root, tmp_path_factory):
    """EfficientNet-Lite0 features of 640 real pets and 640 CIFAR-10 images, float16."""
    backbone = build_backbone("efficientnet-lite0", image_size=32)
    cache = tmp_path_factory.mktemp("features")
    found = {}
    for spec in ("oxford-pet", f"hf:{data_root / 'cifar10'}"):
        data = load_dataset(spec, data_root, limit=800)
        store = extract_features(
            data.train.part(np.arange(640)), backbone, name=spec, cache_dir=cache,
        )  # fmt: skip
        order = torch.randperm(640, generator=derive_generator("order"))
        found[spec.split(":")[0]] = torch.from_numpy(np.array(store.features))[order]
    return found


@pytest.mark.parametrize(("n", "k"), SIZES)
def test_real_features(real_features, n, k):
    for features in real_features.values():
        starts = range(0, 640 - n + 1, n)
        assert_is_the_listings([features[start : start + n] for start in starts][:4], k)


@pytest.mark.parametrize(("n", "k"), SIZES)
def test_features_with_negative_similarities(n, k):
    """Where 0 is no longer the smallest eigenvalue, the second smallest is still the listing's."""
    batches = [torch.randn(n, 30, generator=derive_generator("negative", n, i)) for i in range(4)]
    values = [np.linalg.eigvalsh(_laplacian(batch)) for batch in batches]
    assert any(spectrum[0] < -0.1 for spectrum in values) or n < 40
    assert_is_the_listings(batches, k)


@pytest.mark.parametrize(("n", "k"), SIZES)
def test_random_features(n, k):
    batches = [torch.rand(n, 50, generator=derive_generator("random", n, i)) for i in range(4)]
    assert_is_the_listings(batches, k)


def test_normalized_pixels_as_in_the_listing():
    """The listing flattens the normalized images themselves, whose similarities have any sign."""
    from saln.data.transforms import EvaluationTransform

    data = load_dataset("digits")
    transform = EvaluationTransform(16)
    images = [transform(data.train.images.load(int(row))) for row in data.train.rows[:160]]
    assert_is_the_listings([torch.stack(images).flatten(1)], 32)


def test_nothing_is_random():
    features = torch.rand(50, 20, generator=derive_generator("fixed"))
    candidates = Candidates(indices=torch.arange(50), features=features)
    first, second_ = (
        SALN()(candidates, 10, generator=derive_generator("draw", seed)).positions
        for seed in (0, 1)
    )
    assert torch.equal(first, second_)


def test_an_outlier_is_kept_first():
    """On such features the vector sits on the example that is least like the rest."""
    features = torch.rand(60, 20, generator=derive_generator("cloud")) + 1
    features[23] = 0
    features[23, 3] = 5
    candidates = Candidates(indices=torch.arange(60), features=features)
    assert SALN()(candidates, 12, generator=derive_generator(0)).positions[0] == 23


def _laplacian(features):
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    similarity = unit @ unit.T
    return (torch.diag(similarity.sum(dim=1)) - similarity).numpy()
