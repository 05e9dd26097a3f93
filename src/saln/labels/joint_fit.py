"""How kinds of evidence are joined into probabilities: what each counts for, and its fit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from saln._optimizers import LBFGS
from saln.labels.evidence import Evidence

# Where t and b start.
START = (8.0, 0.8)
# What a score means: ``s + STEEPER * log(max(s, 0) + LEAST)``. Between almost nothing and a tenth
# lies more than between two large scores.
STEEPER, LEAST = 0.2, 0.1
# More is not better: of a few dozen examples the likeliest joint has no votes, by luck.
STEPS = 30

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Joint:
    """How much each kind of evidence counts.

    Attributes:
        scores: t.
        votes: b.
        levels: float64, (C,).
    """

    scores: float
    votes: float
    levels: Tensor

    @classmethod
    def start(cls, classes: int) -> Joint:
        """What learning begins with."""
        return cls(*START, torch.zeros(classes, dtype=torch.float64))

    def logits(self, evidence: Evidence, part: slice = slice(None)) -> Tensor:
        """The logarithms of ``Q``, but for one number a row: float64 (b, m)."""
        found = self.scores * link(torch.from_numpy(evidence.scores[part]).double())
        if evidence.votes is not None:
            found += self.votes * torch.from_numpy(evidence.votes[part]).double()
        return found.add_(_levels_of(self.levels, _classes_of(evidence, part)))

    def probabilities(self, evidence: Evidence, part: slice = slice(None)) -> tuple[Floats, Floats]:
        """``Q``: of the classes that are held, (b, m), and of all others together, (b,)."""
        sizes = torch.tensor([self.scores, self.votes], dtype=torch.float64)
        beside = _left_out(evidence, sizes, self.levels, part)
        found = _softmax(torch.cat([self.logits(evidence, part), beside[:, None]], dim=1)).numpy()
        return found[:, :-1], found[:, -1]


def _classes_of(evidence: Evidence, part: slice = slice(None)) -> Tensor | None:
    """Those that are held; None where all are, which then stand in their order."""
    return torch.from_numpy(evidence.classes[part].astype(np.int64)) if evidence.left else None


def _levels_of(levels: Tensor, classes: Tensor | None) -> Tensor:
    """The levels of some classes, (b, m); of all in their order, (C,), where they are None."""
    if classes is None:
        return levels
    return levels.index_select(0, classes.flatten()).view(classes.shape)


def _softmax(logits: Tensor) -> Tensor:
    """Of each row, in place: torch's own takes three times as long for a few dozen classes."""
    found = logits.sub_(logits.amax(dim=1, keepdim=True)).exp_()
    return found.div_(found.sum(dim=1, keepdim=True))


def link(scores: Tensor) -> Tensor:
    """The filter's scores as logits, but for their size."""
    return scores + STEEPER * (scores.clamp_min(0.0) + LEAST).log()


def _left_out(
    evidence: Evidence, sizes: Tensor, levels: Tensor, part: slice = slice(None)
) -> Tensor:
    """The logit of all classes together that an example does not hold: (b,).

    As if their scores were normal: the mean of ``exp(t s)`` is ``exp(t mean + t^2 spread^2 / 2)``,
    and is no more than at three spreads above the mean. Their level is that of all classes: else
    large levels would favor those that are held, of which the given label is always one.
    """
    typical, spread = (
        torch.from_numpy(values[part]).double() for values in (evidence.typical, evidence.spread)
    )
    if evidence.left == 0:
        return torch.full_like(typical, -torch.inf)
    moved = sizes[0] * spread
    found = sizes[0] * link(typical) + torch.minimum(moved.square() / 2, 3 * moved)
    if evidence.votes is not None:
        found = found + sizes[1] * evidence.unvoted
    level = levels.logsumexp(dim=0) - math.log(len(levels))
    return found + level + math.log(evidence.left)


class JointLoss:
    """Minus the mean log-likelihood of labels, and its gradient.

    By the logarithms of t and b, and the levels. With ``R(c) = Q(c) T(c, y) / sum Q T``, the
    derivative by the logits is ``Q - R``.

    Args:
        evidence: About labeled examples.
        voices: What each example counts for: (b,).
    """

    def __init__(self, evidence: Evidence, voices: Floats) -> None:
        self.evidence = evidence
        self.scores = link(torch.from_numpy(evidence.scores).double())
        self.votes = None if evidence.votes is None else torch.from_numpy(evidence.votes).double()
        self.classes = _classes_of(evidence)
        self.typical = link(torch.from_numpy(evidence.typical).double())
        self.spread = torch.from_numpy(evidence.spread).double()
        counts = torch.from_numpy(voices).double()
        self.counts = counts / counts.sum()

    def under(self, likelihoods: Floats, other: float) -> JointLoss:
        """The same with other noise.

        Args:
            likelihoods: ``T(c, y_i)``: float64 (b, m).
            other: ``T(c, y_i)`` of a class that an example does not hold.
        """
        self.by_class = torch.nn.functional.pad(torch.from_numpy(likelihoods), (0, 1), value=other)
        return self

    def fit(self, start: Joint, levels: bool = True) -> Joint:
        """The joint under which the given labels are likeliest; ``start`` where it is that.

        Args:
            start: Where to begin.
            levels: Whether the levels are sought as well.
        """
        # As logarithms: neither may speak against what it says.
        sizes = torch.tensor([start.scores, start.votes], dtype=torch.float64).log()
        first = torch.cat([sizes, start.levels])
        place = (first if levels else sizes).clone().requires_grad_()
        optimizer = LBFGS(
            [place], max_iter=STEPS, line_search_fn="strong_wolfe", tolerance_change=1e-7
        )

        def closure() -> Tensor:
            at = place.detach()
            value, gradient = self(at if levels else torch.cat([at, start.levels]))
            place.grad = gradient[: len(at)]
            return value

        optimizer.step(closure)
        found = place.detach()
        if torch.equal(found, first[: len(found)]):
            return start
        t, b = found[:2].exp().clamp(1e-6, 1e4).tolist()
        return Joint(t, b, found[2:] if levels else start.levels)

    def __call__(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """At ``log t``, ``log b`` and the levels: (2 + C,)."""
        sizes, levels = place[:2].exp(), place[2:]
        t, b = sizes.tolist()
        n, held = self.scores.shape
        logits = torch.empty(n, held + 1, dtype=torch.float64)
        own = torch.mul(self.scores, t, out=logits[:, :held])
        if self.votes is not None:
            own.add_(self.votes, alpha=b)
        own += _levels_of(levels, self.classes)
        logits[:, held] = _left_out(self.evidence, sizes, levels)
        joined = _softmax(logits)
        explained = joined * self.by_class
        found = explained.sum(dim=1)
        slopes = joined.sub_(explained.div_(found[:, None])).mul_(self.counts[:, None])
        slopes, beside = slopes[:, :held], slopes[:, held]
        moved = t * self.spread
        by_t = self.typical + torch.where(moved < 6, t * self.spread.square(), 3 * self.spread)
        by_sizes = torch.zeros_like(sizes)
        by_sizes[0] = (slopes * self.scores).sum() + beside @ by_t
        if self.votes is not None:
            by_sizes[1] = (slopes * self.votes).sum() + beside.sum() * self.evidence.unvoted
        if self.classes is None:
            by_levels = slopes.sum(dim=0)
        else:
            by_levels = beside.sum() * torch.softmax(levels, dim=0)
            by_levels.scatter_add_(0, self.classes.flatten(), slopes.flatten())
        # Classes of few examples, and evidence that says nothing, stay where they are.
        prior = torch.cat([2 * place[:2] / 1e3, levels]) / n
        loss = prior @ place / 2 - self.counts @ found.log()
        return loss, torch.cat([by_sizes * sizes, by_levels]) + prior
