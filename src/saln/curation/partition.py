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
from saln.selection.contract import Selector
from saln.threads import limited_threads

# What the output has beside the input's columns, ``id`` and ``label``; with beliefs, these too.
ADDED = ("score", "weight", "batch")
BELIEFS = ("label_confidence", "believed_label")
# A row of the file of beliefs: how likely the label is right, and the label that is believed.
BELIEF = np.dtype([("confidence", np.float64), ("believed", np.int64)])


@dataclass(frozen=True)
class PartitionJob:
    """What every partition is chosen by.

    Attributes:
        source: The rows.
        selector: Copied for every partition, so that none knows of another.
        candidates: Rows that are looked at together.
        filter_ratio: The share of them to drop.
        seed: Decides every random choice.
        partition_rows: Rows of a partition, a multiple of ``candidates``.
        beliefs: (n,) of ``BELIEF``, or a ``.npy`` that holds it; None for selectors that do
            not ask.
    """

    source: Source
    selector: Selector
    candidates: int
    filter_ratio: float | Fraction
    seed: int
    partition_rows: int
    beliefs: Path | npt.NDArray[Any] | None = None

    def __len__(self) -> int:
        """Partitions."""
        return -(-len(self.source) // self.partition_rows)

    def bounds(self, number: int) -> tuple[int, int]:
        """The first row of a partition and the one after its last."""
        start = number * self.partition_rows
        return start, min(start + self.partition_rows, len(self.source))

    def kept(self, rows: int) -> int:
        """How many of so many candidates stay; 0 of a few left-over ones."""
        return int(kept_count(rows, self.filter_ratio)) if rows else 0

    def choose(self, number: int) -> Any:
        """The kept rows of a partition, a ``pyarrow.Table``, batch by batch.

        Every ``candidates`` rows of the partition's random order are a batch; the last batch
        of the last partition may have fewer.

        Raises:
            DataError: A row that cannot be read, or features that are not finite.
        """
        arrow, _ = import_pyarrow()
        start, stop = self.bounds(number)
        rows = self.source.order(start, stop, self.seed)
        part = self.source.read(rows)
        if part.features is not None:
            check_finite(self.source.path, rows, part.features)
        beliefs = None
        if self.beliefs is not None:
            all_beliefs = self.beliefs
            if isinstance(all_beliefs, Path):
                all_beliefs = np.load(all_beliefs, mmap_mode="r")
            beliefs = np.array(all_beliefs[rows])
        fields = CandidateFields(
            part.features,
            part.labels if "labels" in self.selector.requires else None,
            None if beliefs is None else beliefs["confidence"].copy(),
            selector=self.selector,
            owner="saln.select",
        )
        selector = copy.deepcopy(self.selector)
        selector.begin_epoch(0)
        first_batch = start // self.candidates
        places, scores, weights, batches = [], [], [], []
        numbers = torch.from_numpy(rows)
        for step, positions in enumerate(torch.arange(len(rows)).split(self.candidates)):
            k = self.kept(len(positions))
            if k == 0:
                continue
            batch = first_batch + step
            chosen = selector(
                fields.candidates(positions, indices=numbers[positions]),
                k,
                generator=derive_generator(self.seed, "select", batch),
            )
            places.append(positions[chosen.positions])
            nothing = torch.full((len(positions),), torch.nan)
            found = nothing if chosen.scores is None else chosen.scores.cpu()
            scores.append(found[chosen.positions].double())
            given = torch.ones(k) if chosen.weights is None else chosen.weights.cpu()
            weights.append(given.double())
            batches.append(torch.full((k,), batch))
        empty = torch.empty(0)
        kept = torch.cat(places or [empty.long()])
        table = part.columns.take(arrow.array(kept.numpy()))
        scored = torch.cat(scores or [empty.double()]).numpy()
        table = table.append_column("score", arrow.array(scored, mask=np.isnan(scored)))
        table = table.append_column(
            "weight", arrow.array(torch.cat(weights or [empty.double()]).numpy())
        )
        table = table.append_column(
            "batch", arrow.array(torch.cat(batches or [empty.long()]).numpy())
        )
        if beliefs is not None:
            mine = beliefs[kept.numpy()]
            believed = arrow.array(mine["believed"])
            if self.source.class_names is not None:
                believed = arrow.array(self.source.class_names).take(believed)
            table = table.append_column("label_confidence", arrow.array(mine["confidence"]))
            table = table.append_column("believed_label", believed)
        return table

    def check(self) -> None:
        """Refuses what cannot work, before anything is written.

        Raises:
            InputError: A selector that needs what is not there, or sizes that do not fit.
        """
        name = type(self.selector).__name__
        if not self.selector.chooses_before_loading() or self.selector.observes_losses:
            raise InputError(
                f"{name} needs a network in training, and offline there is none; choose a selector "
                "that needs features and labels alone ('saln list' says which)"
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
        first = self.source.read(np.zeros(1, dtype=np.int64))
        if first.features is None and self.selector.requires & {"features", "label_confidence"}:
            raise InputError(f"{name} requires features; give them, not their number alone")
        needed = self.selector.requires & {"labels", "label_confidence"}
        if needed and first.labels is None:
            hint = parameter("labels_column", Placeholder("NAME"))
            raise InputError(f"{name} requires labels; give {hint}")
        added = (*ADDED, *(BELIEFS if "label_confidence" in needed else ()))
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
    content = io.BytesIO()
    parquet.write_table(table, content, write_page_checksum=True)
    return content.getvalue()
