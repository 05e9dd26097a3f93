"""The features of what is reviewed: a network's of images, an encoder's of texts, or given ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from saln.errors import InputError
from saln.features.backbones import Network
from saln.features.extraction import Progress
from saln.features.text_encoders import text_encoder
from saln.files import file_checksum
from saln.review.feature_cache import FeatureCache, FeatureRows, default_review_cache
from saln.review.review_items import ReviewItems
from saln.review.table_items import read_features
from saln.review.text_rows import text_rows

# Called with a title; gives what is called after every batch.
Titled = Callable[[str], Callable[[Progress], None]]


class FeatureMaker(NamedTuple):
    """What made features."""

    name: str
    identity: str  # The hash of its weights
    image_size: int | None = None  # The pixels that it saw


def item_features(
    items: ReviewItems, network: Network | None, settings: Any, watch: Titled | None
) -> tuple[FeatureMaker, FeatureRows]:
    """The features of all items, and what made them; SalnError where they cannot be had.

    The network is for images, and None for texts and given features; ``settings`` are those of
    :class:`~saln.review.review_run.ReviewSettings`.
    """
    # Of settings of images alone there are none.
    path = getattr(settings, "features", None)
    if network is None and path is not None:
        return _given_features(path)
    folder = settings.cache_dir or default_review_cache()
    options = {
        "device": None if settings.device == "auto" else settings.device,
        "batch_size": settings.batch_size,
    }
    if network is None:
        encoder = text_encoder(settings.backbone or "tfidf", **options)
        progress = watch and watch(f"features: {encoder.name}")
        rows = text_rows(items.texts or (), items.keys, encoder, folder, progress=progress)
        return FeatureMaker(encoder.name, encoder.identity), rows
    if items.images is None:
        raise InputError(f"{items.dataset} holds no images; give a data set of images")
    cache = FeatureCache(folder, network, workers=settings.workers, **options)
    progress = watch and watch(f"features: {network.name} at {network.image_size} px")
    rows = cache.rows(items.images, items.keys, strict=settings.strict, progress=progress)
    return FeatureMaker(network.name, network.identity(), network.image_size), rows


def _given_features(path: Path) -> tuple[FeatureMaker, FeatureRows]:
    features = read_features(path)
    finite = np.isfinite(features).all(axis=1).tolist()
    problems = ["" if good else "unreadable: its features are NaN or infinite" for good in finite]
    return FeatureMaker(path.name, file_checksum(path)), FeatureRows(features, problems, 0, 0.0)
