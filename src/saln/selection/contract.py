"""The contract of every selector, written once.

A selector implements one hook, :meth:`Selector.choose`; the public call checks what
goes in and what comes out.
"""

from __future__ import annotations

import abc
from typing import ClassVar, final

import torch
from torch import Tensor

from saln.errors import InputError
from saln.selection.candidates import Candidates, Selection

__all__ = ["BEFORE_LOADING", "Selector"]

# The fields that are known of a candidate before its image is read.
BEFORE_LOADING = frozenset({"features", "labels", "label_confidence"})


class Selector(abc.ABC):
    """A rule from candidates to kept positions.

    Attributes:
        requires: The fields of :class:`~saln.selection.candidates.Candidates` that it
            reads beside the indices. One that reads only fields of
            :data:`BEFORE_LOADING` works before any image is loaded.
        is_joint: Whether the value of an example depends on which others are there.
        summary: One line for ``saln list``.
    """

    requires: ClassVar[frozenset[str]] = frozenset()
    is_joint: ClassVar[bool] = False
    summary: ClassVar[str] = ""

    @classmethod
    def chooses_before_loading(cls) -> bool:
        """Whether a dropped example need not be read from disk."""
        return cls.requires <= BEFORE_LOADING

    @final
    def __call__(self, candidates: Candidates, k: int, *, generator: torch.Generator) -> Selection:
        """Chooses ``k`` of the candidates.

        Args:
            candidates: With every field that the selector requires.
            k: How many to keep, 1 to n.
            generator: The only source of randomness; a CPU generator.

        Returns:
            ``k`` distinct positions.

        Raises:
            InputError: ``k`` out of range, a required field that is missing, of the
                wrong kind or not finite.
        """
        n = len(candidates)
        if not 1 <= k <= n:
            raise InputError(
                f"k={k} is not allowed with {n} candidates; keep 1 to {n}: "
                "lower batch_size or raise filter_ratio"
            )
        for name in sorted(self.requires):
            self._check_field(name, candidates.need(name))
        selection = self.choose(candidates, k, generator)
        self._check_selection(selection, n, k)
        return selection

    @abc.abstractmethod
    def choose(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """The hook: chooses ``k`` positions from checked candidates."""

    def _check_field(self, name: str, value: Tensor) -> None:
        who = type(self).__name__
        if name == "labels":
            if value.dtype != torch.int64:
                raise InputError(f"{who} needs int64 labels, not {value.dtype}; call .long()")
            return
        if not value.is_floating_point():
            raise InputError(f"{who} needs floating {name}, not {value.dtype}; call .float()")
        finite = torch.isfinite(value.reshape(len(value), -1)).all(dim=1)
        if not bool(finite.all()):
            row = int((~finite).nonzero()[0])
            raise InputError(
                f"{name} of candidate {row} are NaN or infinite; "
                "find what made them so, or leave that example out"
            )

    def _check_selection(self, selection: Selection, n: int, k: int) -> None:
        positions = selection.positions
        ok = positions.dtype == torch.int64 and positions.shape == (k,)
        if ok:
            ok = len(torch.unique(positions)) == k and int(positions.min()) >= 0
            ok = ok and int(positions.max()) < n
        if not ok:
            raise InputError(
                f"{type(self).__name__}.choose gave {positions.dtype} "
                f"{tuple(positions.shape)}, expected {k} distinct int64 positions in 0..{n - 1}; "
                "this is a mistake in the selector"
            )
