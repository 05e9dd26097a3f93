"""Learners, the loop that trains them, and the ledger of where the time went."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saln._lazy import lazy_names

if TYPE_CHECKING:
    from saln.randomness import derive_generator, seeded_globally
    from saln.training.cost_ledger import Ledger
    from saln.training.learner_networks import build_head, build_learner
    from saln.training.loop import TrainSettings, evaluate, train
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "Ledger",
    "TrainSettings",
    "build_head",
    "build_learner",
    "derive_generator",
    "evaluate",
    "seeded_globally",
    "train",
]
