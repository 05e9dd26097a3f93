"""Images, labels, splits, augmentation: what everything after it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saln._lazy import lazy_names

if TYPE_CHECKING:
    from saln.data.dataset_registry import (
        DatasetRequest,
        ImageSplit,
        LoadedSplits,
        register_dataset,
    )
    from saln.data.datasets import DataSet, Examples, load_dataset
    from saln.data.image_sources import ArrayImages
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "ArrayImages",
    "DataSet",
    "DatasetRequest",
    "Examples",
    "ImageSplit",
    "LoadedSplits",
    "load_dataset",
    "register_dataset",
]
