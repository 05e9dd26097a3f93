"""How likely the training labels of one seed are right, for the arms that ask."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from saln.data.datasets import DataSet
from saln.experiments.arm import Arm
from saln.experiments.reporter import Reporter
from saln.experiments.shared_inputs import SharedInputs
from saln.features.neighbors import NeighborTable
from saln.labels.teacher import FeatureTeacher, features_as_teacher
from saln.selection.cleanlab_pruned import beliefs_by_cleanlab
from saln.selection.coherence import Judge
from saln.selection.judged_beliefs import as_neighbor_beliefs, judged_beliefs
from saln.selection.neighbor_beliefs import NeighborBeliefs, label_beliefs, suspicious_labels

# Doubted labels that are listed at most.
LISTED = 100


@dataclass(frozen=True)
class LabelConfidence:
    """Attributes: what is believed of the labels, the seconds for all of it, and who judged."""

    beliefs: NeighborBeliefs
    seconds: float
    judge: Judge = "neighbors"

    @property
    def values(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """float64, (n,): the probability that each label is right."""
        return self.beliefs.confidence.numpy()


def judge_labels(
    neighbors: NeighborTable, data: DataSet, seed: int, reporter: Reporter
) -> LabelConfidence:
    """Judges the labels as given, noise and all, by those of their neighbors."""
    started = time.perf_counter()
    beliefs = label_beliefs(
        torch.from_numpy(np.array(neighbors.indices)),
        torch.from_numpy(np.array(neighbors.similarities)),
        torch.from_numpy(data.train.labels),
        len(data.class_names),
    )
    # Whoever uses the judgment pays for the neighbors, too, also where they came from the cache.
    seconds = neighbors.seconds + time.perf_counter() - started
    _note("label coherence", beliefs, seed, reporter)
    return LabelConfidence(beliefs, seconds)


def _note(what: str, beliefs: NeighborBeliefs, seed: int, reporter: Reporter) -> None:
    found = f"about {beliefs.noise_rate:.0%} of the training labels look wrong"
    reporter.note(f"{what}, seed {seed}: {beliefs.tells_nothing or found}")


def teach_for_arms(
    arms: Sequence[Arm], inputs: SharedInputs, data: DataSet, seed: int, reporter: Reporter
) -> FeatureTeacher | None:
    """What the features say of the training examples, where an arm needs it."""
    if not any(arm.needs_teacher for arm in arms):
        return None
    classes = len(data.class_names)
    teacher = features_as_teacher(inputs.features, data.train.labels, classes=classes)
    found = f"they predict {teacher.accuracy:.0%} of the training labels from the others"
    reporter.note(f"features as a teacher, seed {seed}: {teacher.beliefs.message or found}")
    return teacher


def judge_for_arms(
    arms: Sequence[Arm],
    inputs: SharedInputs,
    data: DataSet,
    seed: int,
    reporter: Reporter,
    teacher: FeatureTeacher | None = None,
) -> dict[Judge, LabelConfidence]:
    """How likely the labels of a seed are right, by every judge that an arm asks; each once.

    What ``teacher`` believes is not judged again.
    """
    found: dict[Judge, LabelConfidence] = {}
    if inputs.neighbors is not None:
        found["neighbors"] = judge_labels(inputs.neighbors, data, seed, reporter)
    if any(arm.judge == "labels" for arm in arms):
        started, classes = time.perf_counter(), len(data.class_names)
        # It has neighbors of its own.
        if teacher is None:
            beliefs = judged_beliefs(inputs.features, data.train.labels, classes)
        else:
            beliefs = as_neighbor_beliefs(teacher.beliefs, classes)
            started -= teacher.seconds
        found["labels"] = LabelConfidence(beliefs, time.perf_counter() - started, "labels")
        _note("judged labels", beliefs, seed, reporter)
    if any(arm.judge == "cleanlab" for arm in arms):
        started = time.perf_counter()
        beliefs = beliefs_by_cleanlab(inputs.features, data.train.labels, len(data.class_names))
        found["cleanlab"] = LabelConfidence(beliefs, time.perf_counter() - started, "cleanlab")
        _note("cleanlab", beliefs, seed, reporter)
    return found


def listed_confidence(found: Mapping[Judge, LabelConfidence]) -> LabelConfidence | None:
    """The one that ``labels.json`` lists: the neighbors', where an arm asks them."""
    return found.get("neighbors", found.get("labels"))


def doubted_labels(
    beliefs: NeighborBeliefs,
    data: DataSet,
    *,
    seed: int,
    noise_share: float,
    judge: Judge = "neighbors",
) -> dict[str, Any]:
    """What ``labels.json`` says: the noise that was found, and the labels least believed.

    Args:
        beliefs: About the labels of ``data.train``.
        data: With the labels that were judged.
        seed: The seed that the labels are of.
        noise_share: The share of labels that were replaced on purpose. Where it is 0, which
            labels are wrong is not known.
        judge: Who formed the beliefs; named where it is not the neighbors.

    Returns:
        Values for JSON. ``transition[c][b]``: how often a label of class ``c`` comes out as
        ``b``. Classes are positions in ``classes``; ``example`` is a position in the training
        split; ``wrong`` says whether the label was replaced, or null where none was. Where
        features or labels tell nothing, ``tells_nothing`` says why, and no rate is estimated.
    """
    train = data.train
    known = noise_share > 0
    # Labels that were replaced on purpose; those that came wrong with the data are not known.
    wrong = train.labels != train.true_labels
    listed = suspicious_labels(beliefs, torch.from_numpy(train.labels), LISTED)
    return {
        **({} if judge == "neighbors" else {"judge": judge}),
        "seed": seed,
        "classes": list(data.class_names),
        "training_labels": len(train),
        "estimated_noise_rate": None if beliefs.tells_nothing else beliefs.noise_rate,
        "tells_nothing": beliefs.tells_nothing,
        "true_noise_rate": float(wrong.mean()) if known else None,
        "doubted": int((beliefs.believed.numpy() != train.labels).sum()),
        "transition": beliefs.transition.tolist(),
        "labels": [
            {
                "example": label.example,
                "image": train.images.name_of(int(train.rows[label.example])),
                "given": label.given,
                "believed": label.believed,
                "confidence": label.confidence,
                "wrong": bool(wrong[label.example]) if known else None,
            }
            for label in listed
        ],
    }
