"""Frozen backbones and the rows that they make of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saln._lazy import lazy_names

if TYPE_CHECKING:
    from saln.features.backbones import build_backbone
    from saln.features.dataset_features import DatasetExtraction
    from saln.features.extraction import extract_features
    from saln.features.from_arrays import write_store
    from saln.features.neighbors import nearest_neighbors
    from saln.features.network_registry import BuiltNetwork, register_network
    from saln.features.store import FeatureStore
    from saln.features.text_encoders import text_features
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "BuiltNetwork",
    "DatasetExtraction",
    "FeatureStore",
    "build_backbone",
    "extract_features",
    "nearest_neighbors",
    "register_network",
    "text_features",
    "write_store",
]
