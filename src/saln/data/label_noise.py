"""Wrong labels on purpose, to see which selector copes with them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from saln.data.arguments import as_share, as_whole, as_wholes
from saln.errors import InputError
from saln.randomness import derive_seed


def flip_labels(
    labels: npt.NDArray[np.int64], share: float, n_classes: int, seed: int
) -> npt.NDArray[np.int64]:
    """Replaces a share of the labels by other classes, each equally likely (symmetric noise).

    Of ``labels``, int64, (n,), in [0, n_classes), exactly ``round(share * n)`` differ afterwards,
    in a new array; ``seed`` decides which, and by what. Raises InputError for a ``share`` outside
    [0, 1), a label that is none, or where there is no other class.
    """
    share = as_share(share, "label noise")
    n_classes = as_whole(n_classes, "n_classes", 1)
    seed = as_whole(seed, "seed")
    labels = as_wholes(labels, "labels")
    strange = (labels < 0) | (labels >= n_classes)
    if strange.any():
        row = int(strange.argmax())
        raise InputError(
            f"the label of example {row} is {labels[row]}, expected 0 to {n_classes - 1}"
        )
    noisy = labels.copy()
    count = round(share * len(labels))
    if count == 0:
        return noisy
    if n_classes < 2:
        raise InputError("label noise needs at least 2 classes; this data set has 1")
    random = np.random.Generator(np.random.PCG64(derive_seed(seed, "label noise")))
    rows = random.permutation(len(labels))[:count]
    # An offset of 1 .. n_classes - 1 is never the label itself.
    noisy[rows] = (labels[rows] + random.integers(1, n_classes, size=count)) % n_classes
    return noisy
