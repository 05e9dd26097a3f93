"""As many of each class as the candidates allow: quotas by the order inside of the classes."""

from __future__ import annotations

from collections.abc import Callable, Set

import torch
from torch import Tensor

from saln.selection.candidates import Candidates, Selection

# What :meth:`saln.Selector.choose` is.
Choice = Callable[[Candidates, int, torch.Generator], Selection]


def with_balance(requires: Set[str], balance: float | bool) -> frozenset[str]:
    """What a selector requires that parts this share of the kept among the believed classes."""
    return frozenset(requires) | ({"believed"} if balance else set())


def keep_highest(
    candidates: Candidates,
    keys: Tensor,
    k: int,
    generator: torch.Generator,
    balance: float,
) -> Tensor:
    """Keeps the ``k`` highest keys, with this share parted equally among the believed classes."""
    if not balance:
        return torch.argsort(keys.cpu(), descending=True, stable=True)[:k]
    return balanced_top_k(keys, candidates.need("believed"), k, generator, share=balance)


def balanced_top_k(
    keys: Tensor, classes: Tensor, k: int, generator: torch.Generator, *, share: float = 1.0
) -> Tensor:
    """Keeps the highest keys of every class, as many of each class as equal as can be.

    A class of which there are too few gives all it has. Which classes give one more than others,
    where ``k`` cannot be parted equally, is drawn: every set of them is equally likely.

    Args:
        keys: floating, (n,), finite.
        classes: int64, (n,), at least 0.
        k: How many to keep, 1 to n.
        generator: Draws the classes that give one more.
        share: Which share of the ``k``, rounded down, is parted so; the others are those with the
            highest keys of what is left, of whatever class. In [0, 1].

    Returns:
        int64, (k,), on the CPU.
    """
    keys, classes = keys.cpu(), classes.cpu()
    best_first = torch.argsort(keys, descending=True, stable=True)
    count = int(share * k + 1e-9)
    if count == 0:
        return best_first[:k]
    numbers, counts = torch.unique(classes, return_inverse=True, return_counts=True)[1:]
    # By class, and inside of each by key, so that places are counted from where a class begins.
    order = best_first[torch.argsort(numbers[best_first], stable=True)]
    starts = torch.cumsum(counts, 0) - counts
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order)) - starts[numbers[order]]
    # First the best of every class, then the second best: the last round is cut by chance.
    turn = torch.randperm(len(counts), generator=generator)
    rounds = rank * len(counts) + turn[numbers]
    parted = torch.argsort(rounds)[:count]
    if len(parted) == k:
        return parted
    left = torch.ones(len(keys), dtype=torch.bool)
    left[parted] = False
    others = best_first[left[best_first]][: k - len(parted)]
    return torch.cat([parted, others])


def class_quotas(believed: Tensor, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """How many of each believed class are kept where classes are parted equally.

    Gives int64 (n,) numbers of the classes, from 0 in the order of the believed ones, and int64
    (C,) quotas, ``k`` together; which classes give one more is drawn.
    """
    numbers, counts = torch.unique(believed.cpu(), return_inverse=True, return_counts=True)[1:]
    even = balanced_top_k(torch.zeros(len(numbers)), numbers, k, generator)
    return numbers, torch.bincount(numbers[even], minlength=len(counts))


def choose_by_class(
    choose: Choice, candidates: Candidates, k: int, generator: torch.Generator
) -> Selection:
    """Lets each believed class have its quota, chosen as if its candidates were all there are."""
    numbers, quotas = class_quotas(candidates.need("believed"), k, generator)
    inside = [(numbers == number).nonzero()[:, 0] for number in range(len(quotas))]
    asked = [(rows, int(quota)) for rows, quota in zip(inside, quotas, strict=True) if quota]
    parts = [choose(candidates.at(rows), quota, generator) for rows, quota in asked]
    rows = [each for each, _ in asked]
    positions = torch.cat([own[part.positions] for own, part in zip(rows, parts, strict=True)])
    weights = [part.weights for part in parts if part.weights is not None]
    scores = [part.scores for part in parts if part.scores is not None]
    by_candidate = None
    # Not where a class without a quota was not asked: what is not known is not 0.
    if len(scores) == len(inside):
        by_candidate = torch.cat(scores)[torch.argsort(torch.cat(rows))]
    return Selection(positions, torch.cat(weights) if weights else None, by_candidate)
