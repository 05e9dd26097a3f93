"""Choosing before loading: a batch sampler that only ever names the kept examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Sampler

from saln.errors import InputError
from saln.features.store import FeatureStore
from saln.randomness import derive_generator
from saln.selection.candidates import Candidates, candidates_needed
from saln.selection.coherence import store_beliefs
from saln.selection.contract import BEFORE_LOADING, Selector

__all__ = ["Phase", "SelectedBatches", "no_phase"]

# Times a part of a step under a name; see saln.training.ledger.
Phase = Callable[[str], AbstractContextManager[Any]]


def no_phase(name: str) -> AbstractContextManager[Any]:
    """Times nothing."""
    return nullcontext()


class SelectedBatches(Sampler[list[int]]):
    """A batch sampler that chooses each batch among candidates before any is loaded.

    An epoch goes through the examples in a shuffled order, ``n`` candidates at a time,
    and keeps ``k = batch_size`` of each; the last examples of the order, too few for
    ``n`` candidates, are left out. The order depends on (seed, epoch) alone, so that
    samplers with different selectors see the same candidates.

    Args:
        features: A feature store, an (N, d) array, or N itself for a selector that
            needs no features.
        selector: Any selector that chooses before loading.
        batch_size: ``k``, the size of every batch.
        filter_ratio: ``f``, the share of candidates to drop, in [0, 1).
        seed: Decides the order and, with it, every choice.
        labels: int64, (N,); by default the store's.
        label_confidence: floating, (N,): how likely each label is right; by default, where
            a feature store is given, what its neighbours make of the labels.
        phase: Times the selection.

    Raises:
        InputError: A selector that needs the learner, features and labels of different
            lengths, or fewer examples than candidates for one batch.
    """

    def __init__(
        self,
        features: FeatureStore | npt.NDArray[Any] | int,
        *,
        selector: Selector,
        batch_size: int,
        filter_ratio: float,
        seed: int,
        labels: npt.NDArray[np.int64] | None = None,
        label_confidence: npt.NDArray[np.floating[Any]] | None = None,
        phase: Phase = no_phase,
    ) -> None:
        rows: npt.NDArray[Any] | None
        if isinstance(features, FeatureStore):
            labels = features.labels if labels is None else labels
            rows = features.features
        else:
            rows = None if isinstance(features, int) else features
        self.length = features if isinstance(features, int) else len(features)
        name = type(selector).__name__
        if not selector.chooses_before_loading():
            needs = ", ".join(sorted(selector.requires - BEFORE_LOADING))
            raise InputError(
                f"{name} requires {needs}, which only the learner can give; "
                "use saln.LearnerSelected, which chooses after loading"
            )
        if (
            isinstance(features, FeatureStore)
            and label_confidence is None
            and "label_confidence" in selector.requires
        ):
            label_confidence = store_beliefs(features, labels).confidence.numpy()
        for field, given in (
            ("features", rows),
            ("labels", labels),
            ("label_confidence", label_confidence),
        ):
            if field in selector.requires and given is None:
                raise InputError(f"{name} requires {field}; give them to SelectedBatches")
        if labels is not None and len(labels) != self.length:
            raise InputError(
                f"{self.length} rows of features but {len(labels)} labels; give one label a row"
            )
        if label_confidence is not None and len(label_confidence) != self.length:
            raise InputError(
                f"{self.length} examples but {len(label_confidence)} confidences; give one each"
            )
        self.n_candidates = candidates_needed(batch_size, filter_ratio)
        if self.n_candidates > self.length:
            raise InputError(
                f"batch size {batch_size} at filter ratio {filter_ratio} needs "
                f"{self.n_candidates} candidates, but there are {self.length} examples; "
                "lower the batch size or the filter ratio"
            )
        self.rows = rows
        self.labels = labels
        self.label_confidence = label_confidence
        self.selector = selector
        self.batch_size = batch_size
        self.seed = seed
        self.phase = phase
        self.epoch = 0
        self._weights: torch.Tensor | None = None

    def __len__(self) -> int:
        """The number of batches of an epoch."""
        return self.length // self.n_candidates

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration the given epoch's."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        """Yields the kept indices of one batch after the other."""
        self.selector.begin_epoch(self.epoch)
        order = torch.randperm(
            self.length, generator=derive_generator(self.seed, "order", self.epoch)
        )
        for step in range(len(self)):
            with self.phase("select"):
                start = step * self.n_candidates
                kept = self._choose(order[start : start + self.n_candidates], step)
            yield kept

    def _choose(self, indices: torch.Tensor, step: int) -> list[int]:
        requires = self.selector.requires
        features = labels = confidence = None
        if "features" in requires and self.rows is not None:
            features = torch.from_numpy(np.asarray(self.rows[indices.numpy()]))
        if "labels" in requires and self.labels is not None:
            labels = torch.from_numpy(np.asarray(self.labels[indices.numpy()]))
        if "label_confidence" in requires and self.label_confidence is not None:
            confidence = torch.from_numpy(np.asarray(self.label_confidence[indices.numpy()]))
        candidates = Candidates(
            indices=indices, features=features, labels=labels, label_confidence=confidence
        )
        generator = derive_generator(self.seed, "select", self.epoch, step)
        selection = self.selector(candidates, self.batch_size, generator=generator)
        chosen = indices[selection.positions]
        if selection.weights is not None:
            if self._weights is None:
                self._weights = torch.ones(self.length)
            self._weights[chosen] = selection.weights.float().cpu()
        kept: list[int] = chosen.tolist()
        return kept

    def weights_of(self, indices: torch.Tensor) -> torch.Tensor | None:
        """Loss weights of examples that this epoch has named: float32, (m,), or None.

        None where the selector gives none: all weigh the same. An index is named at most
        once in an epoch, so it says which weight is meant.
        """
        return None if self._weights is None else self._weights[indices]

    def observe(self, indices: torch.Tensor, losses: torch.Tensor) -> None:
        """Tells the selector, where it asks for them, the losses of a batch just trained.

        Args:
            indices: int64, (m,).
            losses: floating, (m,): one an example, before any weights.
        """
        if self.selector.observes_losses:
            self.selector.observe(indices, losses)
