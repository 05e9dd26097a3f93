"""One partition's choice: the same in any process, on any machine."""

from __future__ import annotations

import copy
import io
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from saln.curation.columns import import_pyarrow
from saln.curation.feature_sources import Source, check_finite
from saln.errors import InputError
from saln.loading.candidate_fields import CandidateFields
from saln.messages import Placeholder, parameter
from saln.randomness import derive_generator
from saln.selection.candidates import kept_count
from saln.selection.contract import TAUGHT, Selector
from saln.threads import limited_threads

# What the output has beside the input's columns, ``id`` and ``label``; with beliefs, these too.
ADDED = ("score", "weight", "batch")
BELIEFS = ("label_confidence", "believed_label")
# A row of the file of beliefs: how likely the label is right, and the label that is believed.
BELIEF = np.dtype([("confidence", np.float64), ("believed", np.int64)])
# What the choice says of a kept row; its place is the one in the partition's random order.
_KEPT = np.dtype(
    [("place", np.int64), ("score", np.float64), ("weight", np.float64), ("batch", np.int64)]
)


@dataclass(frozen=True)
class PartitionJob:
    """What every partition is chosen by."""

    source: Source  # The rows
    selector: Selector  # Copied for every partition, so that none knows of another
    candidates: int  # Rows that are looked at together
    filter_ratio: float | Fraction  # The share of them to drop
    seed: int  # Decides every random choice
    partition_rows: int  # Rows of a partition, a multiple of ``candidates``
    # (n,) of ``BELIEF``, or a ``.npy`` that holds it; None for selectors that do not ask
    beliefs: Path | npt.NDArray[Any] | None = None

    def __len__(self) -> int:
        """Partitions."""
        return -(-len(self.source) // self.partition_rows)

    def bounds(self, number: int) -> tuple[int, int]:
        """The first row of a partition and the one after its last."""
        start = number * self.partition_rows
        return start, min(start + self.partition_rows, len(self.source))

    def kept(self, rows: int) -> int:
        """How many of ``rows`` candidates are kept; 0 of the few at the end that make no batch."""
        return int(kept_count(rows, self.filter_ratio)) if rows else 0  # exact, in fractions

    def choose(self, number: int) -> Any:
        """The kept rows of a partition, a ``pyarrow.Table``, batch by batch.

        Every ``candidates`` rows of the partition's random order are a batch; the last
        batch of the last partition may have fewer. Raises DataError for a row that cannot
        be read or is not finite.
        """
        start, stop = self.bounds(number)
        rows = self.source.order(start, stop, self.seed)
        part = self.source.read(rows)
        if part.features is not None:
            check_finite(self.source.path, rows, part.features)
        beliefs = self._beliefs_of(rows)
        fields = CandidateFields(
            part.features,
            part.labels if "labels" in self.selector.requires else None,
            None if beliefs is None else beliefs["confidence"].copy(),
            selector=self.selector,
            owner="saln.select",
        )
        # A copy that remembers nothing: what it keeps of one partition tells nothing of another's.
        selector = copy.deepcopy(self.selector)
        selector.begin_epoch(0)
        batches = torch.arange(len(rows)).split(self.candidates)
        kept = np.zeros(sum(self.kept(len(places)) for places in batches), dtype=_KEPT)
        numbers, done = torch.from_numpy(rows), 0
        for batch, places in enumerate(batches, start // self.candidates):
            k = self.kept(len(places))
            if k == 0:
                continue
            chosen = selector(
                fields.candidates(places, indices=numbers[places]),
                k,
                # By the batch's number among all, which no engine and no stop changes.
                generator=derive_generator(self.seed, "select", batch),
            )
            mine = kept[done : done + k]
            mine["place"] = places[chosen.positions].numpy()
            mine["score"] = np.nan
            if chosen.scores is not None:
                mine["score"] = chosen.scores.cpu()[chosen.positions].double().numpy()
            mine["weight"] = 1 if chosen.weights is None else chosen.weights.cpu().double().numpy()
            mine["batch"] = batch
            done += k
        return self._table(part.columns, kept, beliefs)

    def _beliefs_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any] | None:
        """Beliefs about some rows, of ``BELIEF``."""
        if self.beliefs is None:
            return None
        if isinstance(self.beliefs, Path):
            return np.array(np.load(self.beliefs, mmap_mode="r")[rows])  # reads these alone
        return np.array(self.beliefs[rows])

    def _table(self, columns: Any, kept: npt.NDArray[Any], beliefs: npt.NDArray[Any] | None) -> Any:
        """The output's columns: the input's, of the kept rows, and what the choice adds."""
        arrow, _ = import_pyarrow()
        scores = kept["score"].copy()
        added = {
            "score": arrow.array(scores, mask=np.isnan(scores)),  # null: it gives no scores
            "weight": arrow.array(kept["weight"].copy()),
            "batch": arrow.array(kept["batch"].copy()),
        }
        if beliefs is not None:
            mine = beliefs[kept["place"]]
            believed = arrow.array(mine["believed"].copy())
            if self.source.class_names is not None:
                believed = arrow.array(self.source.class_names).take(believed)
            added["label_confidence"] = arrow.array(mine["confidence"].copy())
            added["believed_label"] = believed
        table = columns.take(arrow.array(kept["place"].copy()))
        for name, values in added.items():
            table = table.append_column(name, values)
        return table

    def check(self) -> None:
        """Raises InputError for what cannot work, before anything is written."""
        name = type(self.selector).__name__
        # Observed losses come from a learner too, though a choice could be made without.
        if not self.selector.chooses_before_loading() or self.selector.observes_losses:
            raise InputError(
                f"{name} needs a network in training, and offline there is none; choose a selector "
                "that needs features and labels alone ('saln list' says which)"
            )
        taught = ", ".join(sorted(self.selector.requires & (TAUGHT | {"neighbors"})))
        if taught:
            raise InputError(
                f"{name} requires {taught}, which is known in training alone; choose a "
                "selector that needs features and labels alone ('saln list' says which)"
            )
        if self.candidates > len(self.source):
            raise InputError(
                f"{parameter('candidates', self.candidates)} is more than the {len(self.source):,} "
                f"rows of {self.source.path}; give fewer"
            )
        if self.kept(self.candidates) < 1:
            raise InputError(
                f"{parameter('filter_ratio', self.filter_ratio)} of "
                f"{parameter('candidates', self.candidates)} keeps "
                "nothing; lower the ratio or give more candidates"
            )
        first = self.source.read(np.zeros(1, dtype=np.int64))  # one row tells what there is
        if first.features is None and self.selector.requires & {"features", "label_confidence"}:
            raise InputError(f"{name} requires features; give them, not their number alone")
        needed = self.selector.requires & {"labels", "label_confidence"}
        if needed and first.labels is None:
            hint = parameter("labels_column", Placeholder("NAME"))
            raise InputError(f"{name} requires labels; give {hint}")
        added = (*ADDED, *(BELIEFS if "label_confidence" in needed else ()))
        # The output has them beside the input's own: twice the same name would be ambiguous.
        taken = [column for column in added if column in self.source.columns]
        if taken:
            raise InputError(
                f"{self.source.path} has columns named {', '.join(taken)}, which the output adds; "
                "rename or drop them"
            )


def content_of(job: PartitionJob, number: int) -> bytes:
    """A partition's kept rows as the bytes of a Parquet file.

    On one thread: sums of floats then come in the same order on every machine.
    """
    _, parquet = import_pyarrow()
    with limited_threads(1):
        table = job.choose(number)
    content = io.BytesIO()  # a few MB; whoever writes it may be on another machine
    parquet.write_table(table, content, write_page_checksum=True)
    return content.getvalue()
