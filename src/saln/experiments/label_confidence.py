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
# Who judges, as notes call what they make.
_NAMES: dict[Judge, str] = {
    "neighbors": "label coherence", "labels": "judged labels", "cleanlab": "cleanlab",
}  # fmt: skip
# What a judgment is made of, where that was there before.
Source = NeighborTable | FeatureTeacher | None


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
    """How likely the labels as given are right, by every judge that an arm asks; each once.

    What ``teacher`` believes is not judged again.
    """
    sources: dict[Judge, Source] = {"neighbors": inputs.neighbors, "labels": teacher}
    found: dict[Judge, LabelConfidence] = {}
    for judge, what in _NAMES.items():
        if all(arm.judge != judge for arm in arms):
            continue
        started, source = time.perf_counter(), sources.get(judge)
        beliefs = _beliefs(judge, source, inputs, data)
        # Whoever uses the judgment pays for its source, too, also where that came from the cache.
        seconds = time.perf_counter() - started + (0.0 if source is None else source.seconds)
        found[judge] = LabelConfidence(beliefs, seconds, judge)
        rate = f"about {beliefs.noise_rate:.0%} of the training labels look wrong"
        reporter.note(f"{what}, seed {seed}: {beliefs.tells_nothing or rate}")
    return found


def _beliefs(judge: Judge, source: Source, inputs: SharedInputs, data: DataSet) -> NeighborBeliefs:
    labels, classes = data.train.labels, len(data.class_names)
    if isinstance(source, NeighborTable):
        table = np.array(source.indices), np.array(source.similarities), labels
        indices, similarities, given = map(torch.from_numpy, table)
        return label_beliefs(indices, similarities, given, classes)
    if isinstance(source, FeatureTeacher):
        return as_neighbor_beliefs(source.beliefs, classes)
    judging = beliefs_by_cleanlab if judge == "cleanlab" else judged_beliefs
    return judging(inputs.features, labels, classes)


def listed_confidence(found: Mapping[Judge, LabelConfidence]) -> LabelConfidence | None:
    """The one that ``labels.json`` lists: of :func:`saln.judge_labels`, where an arm asks it."""
    return found.get("labels", found.get("neighbors"))


def doubted_labels(
    confidence: LabelConfidence, data: DataSet, *, seed: int, noise_share: float
) -> dict[str, Any]:
    """What ``labels.json`` says: the noise that was found, and the labels least believed.

    ``noise_share`` is the share of the labels of ``data.train`` that were replaced on purpose;
    where it is 0, which are wrong is not known. ``transition[c][b]``: how often a label of class
    ``c`` comes out as ``b``. Classes are positions in ``classes``; ``example`` is a position in
    the training split; ``wrong`` says whether the label was replaced, or null where none was.
    Where features or labels tell nothing, ``tells_nothing`` says why, and no rate is estimated.
    """
    train, beliefs, judge = data.train, confidence.beliefs, confidence.judge
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
