"""What is reviewed: the examples of all splits of a data set, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from saln.data.image_sources import ImageSource


@dataclass(frozen=True)
class ReviewItems:
    """The examples of all splits, with their labels.

    Attributes:
        dataset: The data set's specification, with absolute paths: ``folder:/home/me/photos``.
        class_names: One name a class.
        ids: (n,): what a person finds each example by, distinct: a path below the folder, an id.
        splits: (n,): ``"train"``, ``"validation"``, ``"test"``; empty where there are no splits.
        given: int64, (n,): positions in ``class_names``; -1 where there is no label.
        keys: (n,): a hash of each example's content (not of its name or label): by it features
            and decisions are found again when a file has moved.
        images: (n,): the images; None where the examples are none.
        texts: (n,): the texts; None where the examples are none.
    """

    dataset: str
    class_names: tuple[str, ...]
    ids: Sequence[str]
    splits: Sequence[str]
    given: npt.NDArray[np.int64]
    keys: Sequence[str]
    images: ImageSource | None = None
    texts: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.ids)
