"""What is known of every example, looked up in one place; and other arguments made plain."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from saln.data.arguments import as_array, as_labels, as_whole, check_finite
from saln.errors import InputError
from saln.features.neighbors import NeighborTable, nearest_neighbors, neighbor_table
from saln.features.store import FeatureStore
from saln.labels.beliefs import LabelBeliefs
from saln.labels.judge import judge_labels
from saln.labels.teacher import FeatureTeacher, features_as_teacher
from saln.loading.mmap_rows import MmapRows
from saln.messages import not_allowed
from saln.selection.candidates import Candidates
from saln.selection.cleanlab_pruned import beliefs_by_cleanlab
from saln.selection.coherence import judge_of
from saln.selection.contract import BEFORE_LOADING, TAUGHT, Selector
from saln.selection.neighbor_beliefs import NEIGHBORS, NeighborBeliefs, store_beliefs
from saln.selection.registry import SELECTORS, read_selector


def as_selector(selector: Any) -> Selector:
    """A selector, from one, its class, or its name; raises InputError for what is none."""
    if isinstance(selector, Selector):
        return selector
    if isinstance(selector, str):
        try:
            return read_selector(selector)
        except InputError as error:
            raise InputError(f"selector {error}") from error
    if isinstance(selector, type) and issubclass(selector, Selector):
        needed = [
            name
            for name, parameter in inspect.signature(selector).parameters.items()
            if parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]
        if needed or inspect.isabstract(selector):
            raise InputError(
                f"selector {selector.__name__} is a class, which needs "
                f"{', '.join(needed) or 'its method choose'}; give an object of it"
            )
        return selector()
    raise InputError(
        f"selector {selector!r} is not allowed; give a saln.Selector, such as saln.SALN(), or the "
        f"name of one: {', '.join(SELECTORS)}"
    )


def as_indices(indices: Any) -> Tensor:
    """Positions in the data set: int64, (m,), on the CPU; raises InputError for other numbers."""
    array = as_array(indices, "indices").reshape(-1)
    if array.size and array.dtype.kind not in "iu":
        raise InputError(
            f"indices are {array.dtype}, expected whole numbers: a float loses their digits"
        )
    return torch.from_numpy(array.astype(np.int64))


def as_losses(losses: Any, n: int) -> Tensor:
    """Floating, (n,), from a tensor, array or list; raises InputError without one an example."""
    if not isinstance(losses, Tensor):
        losses = torch.from_numpy(as_array(losses, "losses").astype(np.float64))
    # What is remembered must not keep the graph of a step alive.
    losses = losses.detach()
    if losses.numel() != n:
        raise InputError(
            f"{losses.numel()} losses for {n} indices; give one an example, before the mean: "
            'reduction="none"'
        )
    losses = losses.reshape(-1)
    values: Tensor = losses if losses.is_floating_point() else losses.float()
    return values


class CandidateFields:
    """What is known of the examples of a data set before they are loaded, checked once.

    Args:
        features: A feature store; numbers (N, d) as an array, memory-mapped or not, a tensor on
            any device, a list of rows or a data frame; N alone, or None, for selectors that need
            none. What lies in a file is read from there, row by row.
        labels: (N,) or (N, 1): classes, by number or name; by default the store's.
        label_confidence: How likely each label is right: numbers (N,), what
            :func:`saln.judge_labels` or ``neighbor_beliefs.store_beliefs`` gave, or who is to
            judge: ``"labels"`` (or ``"judge"``) for the first, ``"neighbors"`` for the second;
            ``"cleanlab"`` says 0 or 1. By default the selector's own ``judge``, where there are
            features and labels; the second where it names none. Nothing is written.
        teacher: What :func:`saln.features_as_teacher` gave, for selectors that require
            ``believed``, ``difficulty`` or ``teacher_losses``; made here where features and labels
            are given. Its beliefs say how likely each label is right, where nothing else does.
        neighbors: What :func:`saln.features.nearest_neighbors` gave, for selectors that require
            them; sought here where features are given.
        selector: Reads them; ``owner`` asks, for messages.
        requires: What to hold; by default all that the selector requires of them.

    Attributes:
        rows: Name of a field -> its rows.
        teacher: The one that was given, or made; None where the selector asks none.
        skipped: int64, (s,): rows of the store that hold nothing, as they could not be read, and
            those that a teacher who is asked had no features of; ``readable`` are the others,
            int64, (m,), in order, or None where that is all of them.

    Raises:
        InputError: Something that is required is missing, of another kind or length, or not
            finite. A UserWarning says that features and labels tell nothing.
    """

    def __init__(
        self,
        features: Any = None,
        labels: Any = None,
        label_confidence: Any = None,
        *,
        teacher: FeatureTeacher | None = None,
        neighbors: NeighborTable | None = None,
        selector: Selector,
        owner: str,
        requires: Collection[str] | None = None,
    ) -> None:
        requires = selector.requires & BEFORE_LOADING if requires is None else frozenset(requires)
        store = features if isinstance(features, FeatureStore) else None
        self.teacher: FeatureTeacher | None = None
        self._length: int | None = None
        self._counted = "examples"  # what the other fields must have as many of
        array = None
        if store is not None:
            array = store.features
        elif features is not None and not hasattr(features, "__len__"):  # N alone
            self._length = as_whole(features, "features", 1)
        elif features is not None:
            array = as_rows(features)
        if array is not None:
            self._length, self._counted = len(array), "rows of features"
        if labels is not None:
            labels = as_array(labels, "labels")
            self._check_length(labels, "labels")
            labels = as_labels(labels, (len(labels),))[0]
        elif store is not None:
            labels = store.labels
        by_name = {"features": array, "labels": labels}
        judged = requires & (TAUGHT | {"label_confidence"})
        if store is None and array is not None and judged:
            _check_finite("features", MmapRows(array))  # before they are judged by
        rows = array if store is None else store
        if teacher is not None or requires & TAUGHT:
            self.teacher = _teacher(teacher, rows, labels)
            taught = {} if self.teacher is None else _taught(self.teacher)
            if taught:
                self._check_length(taught["believed"], "examples that the teacher knows")
            by_name |= taught
            if "teacher_outputs" in requires and self.teacher is not None:  # large: N x C
                likely = self.teacher.leave_one_out
                by_name["teacher_outputs"] = likely.clamp_min(torch.finfo(likely.dtype).tiny).log()
            # The beliefs of the teacher, where nothing else says how likely a label is right.
            if label_confidence is None and requires & TAUGHT and judge_of(selector) == "labels":
                label_confidence = taught.get("label_confidence")
        # What is given is checked even where it is not required; nothing is judged for nothing.
        if label_confidence is not None or "label_confidence" in requires:
            judge = label_confidence
            if judge is None and array is not None and labels is not None:
                judge = judge_of(selector)
            confidence = _confidence(judge, rows, labels, requires)
            if confidence is not None:
                self._check_length(confidence, "label_confidence")
            by_name["label_confidence"] = confidence
        if "neighbors" in requires:
            by_name["neighbors"] = _neighbors(neighbors, rows)
            if by_name["neighbors"] is not None:
                self._check_length(by_name["neighbors"], "rows of neighbors")
        self.rows: dict[str, MmapRows] = {}
        for name in sorted(requires):
            values = by_name.get(name)
            if values is None:
                made_of_labels = name in judged and array is not None
                raise InputError(
                    f"{type(selector).__name__} requires {name}; give them to {owner}"
                    + (", or labels, of which it is made" if made_of_labels else "")
                )
            self.rows[name] = MmapRows(values)
            # Rows of a store are finite, but for those that it names as skipped.
            if name != "neighbors" and (store is None or name != "features"):
                _check_finite(name, self.rows[name])
        believed = by_name.get("believed") if requires & TAUGHT else None
        self.skipped, self.readable = _left_out(store, believed, self._length)

    def __len__(self) -> int:
        """N; 0 where nothing says it."""
        return self._length or 0

    def candidates(
        self,
        rows: Tensor,
        *,
        indices: Tensor | None = None,
        device: torch.device | str = "cpu",
        **others: Any,
    ) -> Candidates:
        """Looks up ``rows``, int64 (n,); raises InputError where there is no such row.

        ``indices`` are their positions in the data set, where other than the rows; ``others`` are
        fields that are not known before loading.
        """
        known: dict[str, Any] = {}
        if self.rows and len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(self):
            # NumPy would count a negative index from the end, and look up another example.
            raise InputError(
                f"the candidates are examples {int(rows.min())} to {int(rows.max())}, but there "
                f"are {len(self)} {self._counted}; give those of this data set"
            )
        for name, held in self.rows.items():
            values = held[rows].to(device)
            # Whole numbers become floating here, not in a copy of all of them.
            whole = name == "features" and not values.is_floating_point()
            known[name] = values.float() if whole else values
        return Candidates(indices=rows if indices is None else indices, **known | others)

    def _check_length(self, values: Any, name: str) -> None:
        if values.ndim == 0:
            raise InputError(f"{name} is one {type(values.item()).__name__}; give one an example")
        if self._length is not None and len(values) != self._length:
            raise InputError(
                f"{self._length} {self._counted} but {len(values)} {name}; give one a row"
            )
        self._length = len(values)


def as_rows(features: Any) -> npt.NDArray[Any] | Any:
    """Features as an array (N, d); what lies in a file stays there. InputError for others."""
    # What looks like an array stays what it is: np.asarray would read a mapped file as a whole
    # where it is of another library, and forget that it is mapped.
    is_array = hasattr(features, "ndim") and hasattr(features, "shape")
    if not is_array or isinstance(features, Tensor) or hasattr(features, "to_numpy"):
        features = as_array(features, "features")
    kind = getattr(getattr(features, "dtype", None), "kind", "f")
    if features.ndim != 2 or kind not in "fiub":
        raise InputError(
            f"features are {features.dtype} {tuple(features.shape)}; give numbers, (n, d): one row "
            "an example"
        )
    return features


def _left_out(
    store: FeatureStore | None, believed: Tensor | None, length: int | None
) -> tuple[Tensor, Tensor | None]:
    """What is never a candidate, and what is: int64, in order; None where that is all."""
    rows = {entry.row for entry in (() if store is None else store.skipped)}
    if believed is not None:  # -1: the teacher was made without features of it, and knows nothing
        rows |= set((believed < 0).nonzero()[:, 0].tolist())
    skipped = torch.tensor(sorted(rows), dtype=torch.int64)
    if not rows or length is None:
        return skipped, None
    kept = torch.ones(length, dtype=torch.bool)
    kept[skipped] = False
    return skipped, kept.nonzero()[:, 0]


def _teacher(teacher: Any, features: Any, labels: Any) -> FeatureTeacher | None:
    """The teacher that was given, or one of features and labels; None where nothing makes one."""
    if teacher is None and features is not None and labels is not None:
        teacher = features_as_teacher(features, labels)
        if not teacher.beliefs.informative:
            # At the line that made what chooses.
            warnings.warn(f"the teacher knows little: {teacher.beliefs.message}", stacklevel=5)
    if teacher is not None and not isinstance(teacher, FeatureTeacher):
        what = "what saln.features_as_teacher gave, or None"
        raise not_allowed("teacher", type(teacher).__name__, what)
    return teacher


def _taught(teacher: FeatureTeacher) -> dict[str, Tensor]:
    """What a teacher knows of every example, by field."""
    return {
        "believed": teacher.believed,
        "difficulty": teacher.difficulty,
        "teacher_losses": teacher.losses(),
        # NaN: there is no label, or there are no features.
        "label_confidence": teacher.beliefs.confidence.nan_to_num(nan=0.0),
    }


def _confidence(
    value: Any, features: Any, labels: Any, requires: Collection[str]
) -> npt.NDArray[Any] | None:
    """How likely each label is right, floating (N,), from whatever says it; None: nothing does."""
    if isinstance(value, LabelBeliefs | NeighborBeliefs):
        return _believed(value)
    if value is not None and not isinstance(value, str):
        return _as_confidence(as_array(value, "label_confidence"))
    if value not in (None, "labels", "judge", "neighbors", "cleanlab"):
        who = "'labels' (saln.judge_labels), 'neighbors', 'cleanlab', what one of them gave"
        raise not_allowed("label_confidence", value, f"{who}, or one number an example")
    if "label_confidence" not in requires:
        return None
    if features is None or labels is None:
        if value is None:
            return None
        raise InputError(
            f"label_confidence={value!r} judges labels by features; give both, or one number an "
            "example"
        )
    if value in ("labels", "judge"):
        return _believed(judge_labels(features, labels))
    if value == "cleanlab":
        return _believed(beliefs_by_cleanlab(features, labels, int(np.max(labels, initial=0)) + 1))
    return _believed(store_beliefs(_floating(features), labels, keep=False))


def _floating(features: Any) -> Any:
    """Rows as the search for neighbors takes them; others are few, as they were no file."""
    whole = isinstance(features, np.ndarray) and features.dtype.kind != "f"
    return features.astype(np.float32) if whole else features


def _neighbors(table: Any, features: Any) -> npt.NDArray[np.int32] | None:
    """Of every example, (N, m); of those that a store skipped none are asked for."""
    if table is not None and not isinstance(table, NeighborTable):
        what = "what saln.features.nearest_neighbors gave, or None"
        raise not_allowed("neighbors", type(table).__name__, what)
    if table is None and features is None:
        return None
    if table is None and isinstance(features, FeatureStore):
        readable = features.readable
        table = neighbor_table(features, NEIGHBORS, rows=readable, keep=False)
        if readable is not None:  # the table counts these alone
            found = np.zeros((len(features), table.indices.shape[1]), dtype=np.int32)
            found[readable] = readable[table.indices]
            return found
    table = nearest_neighbors(_floating(features), NEIGHBORS) if table is None else table
    given: npt.NDArray[np.int32] = table.indices
    return given


def _believed(beliefs: LabelBeliefs | NeighborBeliefs) -> npt.NDArray[np.float64]:
    if isinstance(beliefs, NeighborBeliefs):
        nothing = beliefs.tells_nothing
    else:
        nothing = None if beliefs.informative else beliefs.message
    if nothing is not None:
        # At the line that made what chooses: above this are four calls of SALN's own.
        warnings.warn(f"coherence chooses at random: {nothing}", UserWarning, stacklevel=5)
    # NaN: there is no label, or there are no features. What has no label is never the better one.
    confidence: npt.NDArray[np.float64] = beliefs.confidence.nan_to_num(nan=0.0).numpy(force=True)
    return confidence


def _as_confidence(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "fiub":
        raise InputError(
            f"label_confidence is {values.dtype} {values.shape}; give numbers, (n,): how likely "
            "each label is right"
        )
    return values if values.dtype.kind == "f" else values.astype(np.float32)


def _check_finite(name: str, values: MmapRows) -> None:
    # In blocks: np.isfinite of all would be half as large as the rows themselves.
    for start, block in values.blocks():
        check_finite(block, name, rows=range(start, start + len(block)))
