"""Images, labels, splits, augmentation: what everything after it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saln._lazy import lazy_names

if TYPE_CHECKING:
    from saln.data.dataset_registry import ImageSplit, LoadedSplits, register_dataset
    from saln.data.datasets import DataSet, Examples, load_dataset, stratified_part
    from saln.data.image_sources import ArrayImages
    from saln.data.label_noise import flip_labels
    from saln.data.torch_datasets import EvaluationView, TrainingView
else:
    _HOMES = {
        "saln.data.dataset_registry": ("ImageSplit", "LoadedSplits", "register_dataset"),
        "saln.data.datasets": ("DataSet", "Examples", "load_dataset", "stratified_part"),
        "saln.data.image_sources": ("ArrayImages",),
        "saln.data.label_noise": ("flip_labels",),
        "saln.data.torch_datasets": ("EvaluationView", "TrainingView"),
    }
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)

__all__ = [
    "ArrayImages",
    "DataSet",
    "EvaluationView",
    "Examples",
    "ImageSplit",
    "LoadedSplits",
    "TrainingView",
    "flip_labels",
    "load_dataset",
    "register_dataset",
    "stratified_part",
]
