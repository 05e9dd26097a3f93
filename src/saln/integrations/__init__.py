"""Chosen batches in other people's training loops; one file a library, none imported unasked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saln._lazy import lazy_names

if TYPE_CHECKING:
    from saln.integrations.accelerate import prepare
    from saln.integrations.lightning import ObserveLosses, SelectedDataModule
    from saln.integrations.ray import extract_features_on_ray
    from saln.integrations.transformers import SelectedTrainerMixin
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "ObserveLosses",
    "SelectedDataModule",
    "SelectedTrainerMixin",
    "extract_features_on_ray",
    "prepare",
]
