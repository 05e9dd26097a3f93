"""The contract of every selector, written once.

A selector implements one hook, :meth:`Selector.choose`; the public call checks what
goes in and what comes out. A selector that remembers implements four more:
:meth:`~Selector.begin_epoch`, :meth:`~Selector.observe`, :meth:`~Selector.state_dict` and
:meth:`~Selector.load_state_dict`. ``saln.testing`` holds the tests that any selector,
ours or yours, must pass.
"""

from __future__ import annotations

import abc
import copy
import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, final

import numpy as np
import torch
from torch import Tensor

from saln.data.arguments import as_whole, check_finite
from saln.errors import InputError
from saln.selection.candidates import CLASS_NUMBERS, WHOLE_NUMBERS, Candidates, Selection
from saln.selection.class_balance import choose_by_class

# The fields that the features as a teacher give.
TAUGHT = frozenset({"believed", "difficulty", "teacher_losses", "teacher_outputs"})
# The fields that are known of a candidate before its image is read.
BEFORE_LOADING = frozenset({"features", "labels", "label_confidence", "neighbors"}) | TAUGHT

# Fields of one number an example; the others are rows.
_FLAT = CLASS_NUMBERS | {
    *("learner_losses", "reference_losses", "teacher_losses"),
    *("label_confidence", "difficulty"),
}


@functools.cache  # asked for every batch's state; a signature takes half a millisecond
def parameters_of(kind: type[Any]) -> tuple[str, ...]:
    """The names of the parameters that a kind of selector is made with."""
    parameters = inspect.signature(kind).parameters.values()
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return tuple(each.name for each in parameters if each.kind not in several)


def kept_values(selector: Selector) -> dict[str, Any]:
    """The values of a selector's hyperparameters, as far as it keeps them in attributes."""
    return {
        name: getattr(selector, attribute)
        for name in parameters_of(type(selector))
        for attribute in (f"_{name}", name)  # the one without an underscore wins
        if hasattr(selector, attribute)
    }


def _said(value: Any) -> str:
    """A hyperparameter as text that tells it from every other value."""
    if isinstance(value, Tensor | np.ndarray):  # whose own text leaves most numbers out
        array = value.numpy(force=True) if isinstance(value, Tensor) else value
        digest = hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=8)
        return f"<{array.dtype} {array.shape} {digest.hexdigest()}>"
    return repr(value)


class Selector(abc.ABC):
    """A rule from candidates to kept positions.

    Attributes:
        requires: The fields of :class:`~saln.selection.candidates.Candidates` that it
            reads beside the indices. One that reads only fields of
            :data:`BEFORE_LOADING` works before any image is loaded.
        is_joint: Whether the value of an example depends on which others are there.
        observes_losses: Whether it wants the losses of what was trained
            (:meth:`observe`).
        summary: One line for ``saln list``: what it keeps and what that costs.
    """

    requires: ClassVar[frozenset[str]] = frozenset()
    is_joint: ClassVar[bool] = False
    observes_losses: ClassVar[bool] = False
    summary: ClassVar[str] = ""
    # Hyperparameters that came after the class, with their defaults. States do not name one that
    # has its default, so that what was stored before it came still fits.
    _added: ClassVar[Mapping[str, Any]] = {}
    _watcher: Callable[[Candidates, Selection], None] | None = None
    _parts_classes = False  # see by_class

    def __repr__(self) -> str:
        """The call that makes it, ``Name(one=1, other=2)``: all its hyperparameters.

        What was chosen is known by it: records of a choice hold it, and a choice that was
        interrupted only goes on where it is the same. Dataclasses make their own; for others,
        each parameter of ``__init__`` is read from the attribute of its name, with an
        underscore before it or without. What it remembers is no part.
        """
        return self._call(lambda name: True)

    def _stored(self) -> str:
        """``repr`` as states hold it, without what :attr:`_added` need not name."""
        said = self._call(lambda name: not self._is_unsaid(name)) if self._added else repr(self)
        return f"{said}, by class" if self._parts_classes else said

    def _call(self, is_named: Callable[[str], bool]) -> str:
        said = dict.fromkeys(parameters_of(type(self)), "?")
        said |= {name: _said(value) for name, value in kept_values(self).items()}
        named = (f"{name}={text}" for name, text in said.items() if is_named(name))
        return f"{type(self).__name__}({', '.join(named)})"

    def _is_unsaid(self, name: str) -> bool:
        """Whether a hyperparameter came later and has the value that it had before it came."""
        return name in self._added and bool(getattr(self, name, None) == self._added[name])

    @classmethod
    def for_run(cls, *, epochs: int) -> Self:
        """A fresh selector for a training run of ``epochs`` epochs, counted from 1.

        With its defaults, and with the length of the run for those that plan by it.
        """
        return cls()

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
        # Plain integers, the usual case, cost no conversion in every step.
        k = k if isinstance(k, int) else as_whole(k, "k", 1)
        if not 1 <= k <= n:
            raise InputError(
                f"k={k} is not allowed with {n} candidates; keep 1 to {n}: "
                "lower batch_size or raise filter_ratio"
            )
        if not isinstance(generator, torch.Generator):
            raise InputError(
                f"generator is a {type(generator).__name__}; give a torch.Generator, which alone "
                "decides what is random"
            )
        # Only what is read is checked: others may hold anything.
        for name in sorted(self.requires):
            for value in candidates.tensors(name):
                self._check_field(name, value)
        with torch.no_grad():  # nothing is learned here, whatever the outputs carry
            if self._parts_classes:
                selection = choose_by_class(self.choose, candidates, k, generator)
            else:
                selection = self.choose(candidates, k, generator)
        self._check_selection(selection, n, k)
        if self._watcher is not None:
            self._watcher(candidates, selection)
        return selection

    def watch(self, watcher: Callable[[Candidates, Selection], None]) -> None:
        """Has ``watcher`` called with every choice once it is checked, for records and reports."""
        object.__setattr__(self, "_watcher", watcher)  # many selectors are frozen

    def by_class(self) -> Self:
        """One that keeps as many of each believed class, and chooses inside of each as this does.

        A class of which there are too few candidates gives all it has; which give one more than
        others is drawn. A selector with a hyperparameter ``balance`` has its own way, which is
        taken in full where none was asked for. It requires ``believed``, as
        :func:`saln.features_as_teacher` gives it, and shares what it remembers with this one.
        """
        own = getattr(self, "balance", None)
        if own or self._parts_classes:
            return self
        found = copy.copy(self)
        name, value = ("_parts_classes", True) if own is None else ("balance", type(own)(1))
        facts = {name: value, "requires": self.requires | {"believed"}, "is_joint": True}
        for fact in facts.items():
            object.__setattr__(found, *fact)  # many selectors are frozen
        return found

    @abc.abstractmethod
    def choose(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """The hook: chooses ``k`` positions from checked candidates."""

    def begin_epoch(self, epoch: int) -> None:  # noqa: B027 (most have nothing to do)
        """Called once before an epoch's first choice; remembers nothing by default.

        Within an epoch a selector may only use what it knew when the epoch began, so
        that choosing ahead, in a background thread or by prefetching, never changes the
        result. The same epoch may begin again, after a resume: nothing changes then.
        """

    def observe(self, indices: Tensor, losses: Tensor) -> None:  # noqa: B027
        """Takes the losses of a batch that was trained; does nothing by default.

        Only called where :attr:`observes_losses` is true. The losses come out of the
        training step itself: no extra pass. Where several processes share the training,
        each must observe the losses of all, or they will choose differently.

        Args:
            indices: int64, (m,): positions in the data set.
            losses: floating, (m,): before any loss weights.
        """

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as tensors and plain numbers; nothing by default."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what :meth:`state_dict` gave.

        Raises:
            InputError: The state of another kind of selector.
        """
        if state:
            raise InputError(
                f"{type(self).__name__} remembers nothing, but the state holds "
                f"{', '.join(sorted(state))}; it was saved by another selector"
            )

    def _check_field(self, name: str, value: Tensor) -> None:
        who = type(self).__name__
        if value.ndim != (1 if name in _FLAT else 2):
            expected = "(n,)" if name in _FLAT else "(n, d)"
            raise InputError(
                f"{who} needs {name} of shape {expected}, not {tuple(value.shape)}; "
                f"give one {'number' if name in _FLAT else 'row'} an example"
            )
        if name in WHOLE_NUMBERS:
            if value.dtype != torch.int64:
                raise InputError(f"{who} needs int64 {name}, not {value.dtype}; call .long()")
            if bool((value < 0).any()):
                place = (value < 0).nonzero()[0].tolist()
                what = {"labels": "label", "believed": "believed class"}.get(name, "neighbor")
                raise InputError(
                    f"the {what} of candidate {place[0]} is {int(value[tuple(place)])}; give 0 or "
                    f"more, and leave out what has no {what.rpartition(' ')[2]}"
                )
            return
        if not value.is_floating_point():
            raise InputError(f"{who} needs floating {name}, not {value.dtype}; call .float()")
        check_finite(value, name, of="candidate")

    def _check_selection(self, selection: Selection, n: int, k: int) -> None:
        positions, weights, wrong = selection.positions, selection.weights, ""
        ok = positions.dtype == torch.int64 and positions.shape == (k,)
        # Distinct and in range: a position kept twice would silently weigh double.
        ok = ok and len(torch.unique(positions)) == k and int(positions.min()) >= 0
        if not (ok and int(positions.max()) < n):
            wrong = (
                f"{positions.dtype} {tuple(positions.shape)}, expected {k} distinct int64 "
                f"positions in 0..{n - 1}"
            )
        for name, value, size in (("weights", weights, k), ("scores", selection.scores, n)):
            if value is not None and value.shape != (size,):
                wrong = wrong or f"{name} of shape {tuple(value.shape)}, expected ({size},)"
        if weights is not None and not bool((torch.isfinite(weights) & (weights >= 0)).all()):
            wrong = wrong or "weights that are not finite or below 0"
        if wrong:
            raise InputError(
                f"{type(self).__name__}.choose gave {wrong}; this is a mistake in the selector"
            )
