"""Coherence: keeps examples in proportion to how likely their label is right.

What that is judged by stands in :mod:`saln.selection.neighbor_beliefs` and :mod:`saln.labels`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from saln.errors import InputError
from saln.selection.candidates import Candidates, Selection
from saln.selection.contract import Selector
from saln.selection.hyperparameters import Bounds, check_hyperparameters
from saln.selection.neighbor_beliefs import beliefs_by_neighbors
from saln.selection.sampling import gumbel_top_k

# Neighbors that vote among candidates, and the noise that their classes share.
CANDIDATE_NEIGHBORS = 10
CANDIDATE_SHARED_NOISE = 5.0

# The power of what saln.judge_labels says, which knows the sure from the likely.
JUDGED_POWER = 4.0

# Who says how likely labels are right: the votes of neighbors, saln.judge_labels, or cleanlab,
# which says 0 or 1.
Judge = Literal["neighbors", "labels", "cleanlab"]


def candidate_neighbors(features: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` nearest of each candidate among the others, by cosine of centered features.

    Args:
        features: floating, (n, d); half precision is computed in float32.
        k: At least 1; all others where there are fewer.

    Returns:
        int64 (n, k) positions and floating (n, k) similarities, nearest first.
    """
    return _nearest(_similarities(features), k)


def _nearest(similarities: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` largest of each row, or all but the row's own."""
    found = torch.topk(similarities, min(k, similarities.shape[1] - 1), dim=1)
    return found.indices, found.values


def _similarities(features: Tensor) -> Tensor:
    """Cosines of centered rows, (n, n): 0 with rows that centering leaves nothing of, -inf own."""
    wide = features.double()
    mean = wide.mean(dim=0)
    centered = wide - mean
    lengths = torch.linalg.vector_norm(centered, dim=1, keepdim=True)
    # What centering leaves of rows that are all the same is rounding, not a direction.
    floor = 1e-12 * torch.linalg.vector_norm(mean).clamp_min(torch.finfo(torch.float64).tiny)
    unit = torch.where(lengths > floor, centered / torch.maximum(lengths, floor), 0.0)
    unit = unit.to(torch.promote_types(torch.float32, features.dtype))
    # The whole matrix, unlike a search in blocks: copies are searched again below.
    return (unit @ unit.T).fill_diagonal_(-torch.inf)


def _log(confidence: Tensor) -> Tensor:
    # A confidence of 0 is drawn last, not never: k are always found.
    return confidence.double().clamp_min(torch.finfo(torch.float64).tiny).log()


def log_confidence(candidates: Candidates) -> Tensor:
    """The logarithm of how likely each label is right: float64, (n,), finite.

    Raises:
        InputError: A confidence below 0.
    """
    confidence = candidates.need("label_confidence")
    if bool((confidence < 0).any()):
        row = int((confidence < 0).nonzero()[0])
        raise InputError(
            f"label_confidence of candidate {row} is {float(confidence[row]):g}; "
            "give probabilities, 0 to 1"
        )
    return _log(confidence)


class Coherence(Selector):
    """Keeps examples whose labels are likely right, drawn by a power of that probability.

    The probability comes with the candidates. Whoever feeds the selector has it formed for a
    whole data set, once: by :func:`saln.judge_labels`, or by :func:`label_beliefs` from the
    neighbors of every example (:func:`saln.features.neighbors.nearest_neighbors`).

    Args:
        judge: Who says it where it is not given: ``"labels"``, which is
            :func:`saln.judge_labels`, or ``"neighbors"``.
        power: Examples are drawn in proportion to this power of it: above 1 the sure ones are
            trusted more. None: 4 with the judge ``"labels"``, 1 with ``"neighbors"``.

    Raises:
        InputError: Another judge, or a power that is not above 0.
    """

    # Of the class, too, for classes derived from this one whose __init__ does not call this one.
    judge: Judge = "labels"
    power: float | None = None

    requires: ClassVar[frozenset[str]] = frozenset({"label_confidence"})
    summary: ClassVar[str] = (
        "in proportion to how likely the label is right, by all the others (ours); costs features "
        "and one judging of all labels before the first step"
    )
    # What states and labels without a word of them mean: those of when there was one judge.
    _added: ClassVar[Mapping[str, Any]] = {"judge": "neighbors", "power": 1.0}

    def __init__(
        self,
        judge: Literal["labels", "neighbors"] = "labels",
        power: Annotated[float | None, Bounds(above=0)] = None,
    ) -> None:
        self.judge = judge
        self.power = power
        check_hyperparameters(self, Coherence)

    @property
    def sharpness(self) -> float:
        """The power that is taken."""
        usual = JUDGED_POWER if self.judge == "labels" else 1.0
        return usual if self.power is None else self.power

    def _is_unsaid(self, name: str) -> bool:
        return super()._is_unsaid(name) or (name == "power" and self.sharpness == 1.0)

    def choose(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Draws by Gumbel-top-k.

        Raises:
            InputError: A confidence below 0.
        """
        logits = self.sharpness * log_confidence(candidates)
        confidence = candidates.need("label_confidence")
        return Selection(gumbel_top_k(logits, k, generator), scores=confidence.cpu())


def judge_of(selector: Selector) -> Judge | None:
    """Who is to say how likely labels are right; None for a selector that does not ask."""
    if "label_confidence" not in selector.requires:
        return None
    judge: Judge = getattr(selector, "judge", "labels")
    # Another's selector may call something else its judge.
    return judge if judge in get_args(Judge) else "labels"


@dataclass(frozen=True)
class BatchCoherence(Selector):
    """:class:`Coherence` with the neighbors sought among the candidates alone.

    Needs no table of the data set. Sees less: the candidates of one step are few a class.

    Args:
        neighbors: How many vote for each candidate.

    Raises:
        InputError: ``neighbors`` is below 1.
    """

    neighbors: Annotated[int, Bounds(low=1)] = CANDIDATE_NEIGHBORS

    requires: ClassVar[frozenset[str]] = frozenset({"features", "labels"})
    is_joint: ClassVar[bool] = True
    summary: ClassVar[str] = (
        "as coherence, by neighbors among the candidates; costs features and a small matrix a step"
    )

    def __post_init__(self) -> None:
        check_hyperparameters(self)

    def choose(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Judges the labels by :func:`label_beliefs` and draws by Gumbel-top-k."""
        similarities = _similarities(candidates.need("features"))

        def search(
            which: npt.NDArray[np.int64], among: npt.NDArray[np.int64]
        ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
            rows, columns = (
                torch.from_numpy(one).to(similarities.device) for one in (which, among)
            )
            places, near = _nearest(similarities[rows][:, columns], self.neighbors)
            return among[places.numpy(force=True)], near.double().numpy(force=True)

        # Candidates are too few to learn a level of noise from: classes share it.
        indices, near = _nearest(similarities, self.neighbors)
        beliefs = beliefs_by_neighbors(
            indices.numpy(force=True),
            near.double().numpy(force=True),
            candidates.need("labels").numpy(force=True),
            0,
            shared_noise=CANDIDATE_SHARED_NOISE,
            calibrated=False,
            search=search,
        )
        confidence = beliefs.confidence
        return Selection(gumbel_top_k(_log(confidence), k, generator), scores=confidence.cpu())
