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
    """What made features: its name, the hash of its weights, and the pixels that it saw."""

    name: str
    identity: str
    image_size: int | None = None


def item_features(
    items: ReviewItems, network: Network | None, settings: Any, watch: Titled | None
) -> tuple[FeatureMaker, FeatureRows]:
    """The features of all items, and what made them.

    Args:
        items: What is reviewed.
        network: For images; None for texts and given features.
        settings: :class:`~saln.review.review_run.ReviewSettings`.
        watch: See :data:`Titled`.

    Raises:
        SalnError: They cannot be had.
    """
    if network is not None:
        return _image_features(settings, items, network, watch)
    # Of settings of images alone there are none.
    if (path := getattr(settings, "features", None)) is not None:
        return _given_features(path)
    return _text_features(settings, items, watch)


def _image_features(
    settings: Any,
    items: ReviewItems,
    network: Network,
    watch: Titled | None,
) -> tuple[FeatureMaker, FeatureRows]:
    if items.images is None:
        raise InputError(f"{items.dataset} holds no images; give a data set of images")
    cache = FeatureCache(
        settings.cache_dir or default_review_cache(),
        network,
        device=None if settings.device == "auto" else settings.device,
        batch_size=settings.batch_size,
        workers=settings.workers,
    )
    title = f"features: {network.name} at {network.image_size} px"
    rows = cache.rows(
        items.images,
        items.keys,
        strict=settings.strict,
        progress=None if watch is None else watch(title),
    )
    return FeatureMaker(network.name, network.identity(), network.image_size), rows


def _text_features(
    settings: Any,
    items: ReviewItems,
    watch: Titled | None,
) -> tuple[FeatureMaker, FeatureRows]:
    encoder = text_encoder(
        settings.backbone or "tfidf",
        device=None if settings.device == "auto" else settings.device,
        batch_size=settings.batch_size,
    )
    rows = text_rows(
        items.texts or (),
        items.keys,
        encoder,
        settings.cache_dir or default_review_cache(),
        progress=None if watch is None else watch(f"features: {encoder.name}"),
    )
    return FeatureMaker(encoder.name, encoder.identity), rows


def _given_features(path: Path) -> tuple[FeatureMaker, FeatureRows]:
    features = read_features(path)
    finite = np.isfinite(features).all(axis=1).tolist()
    problems = ["" if good else "unreadable: its features are NaN or infinite" for good in finite]
    return FeatureMaker(path.name, file_checksum(path)), FeatureRows(features, problems, 0, 0.0)
