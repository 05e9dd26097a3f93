"""What a report reads beside rows and summary: what was chosen, and the final weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from saln.errors import DataError
from saln.experiments.kept_examples import ArmChoices, SeedExamples, read_choices, read_examples
from saln.experiments.rows import Summary


class Chosen(NamedTuple):
    """All choices of a run.

    Attributes:
        examples: Seed -> its examples.
        choices: Seed -> arm -> its choices.
        truth: Whether it is known which labels are wrong.
    """

    examples: Mapping[int, SeedExamples]
    choices: Mapping[int, Mapping[str, ArmChoices]]
    truth: bool

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that every seed has."""
        first, *others = self.choices.values()
        return tuple(arm for arm in first if all(arm in other for other in others))


def read_chosen(folder: Path, summary: Summary) -> Chosen | None:
    """Reads what a run keeps of its choices; None for a run without.

    Raises:
        DataError: A file is broken.
    """
    examples: dict[int, SeedExamples] = {}
    choices: dict[int, dict[str, ArmChoices]] = {}
    for seed in summary.seeds:
        with _named(folder / "choices" / f"examples-seed{seed}.npz"):
            of_seed = read_examples(folder, seed)
        if of_seed is None:
            continue
        examples[seed], choices[seed] = of_seed, {}
        for arm in summary.finished:
            with _named(folder / "choices" / f"{arm}-seed{seed}.npz"):
                found = read_choices(folder, arm, seed, len(of_seed.labels))
            if found is not None:
                choices[seed][arm] = found
    return Chosen(examples, choices, summary.knows_truth) if examples else None


def final_weights(folder: Path, summary: Summary) -> dict[str, npt.NDArray[np.float32]]:
    """Arm -> float32, (classes, d), of the first seed; arms without a checkpoint are left out.

    Raises:
        DataError: A checkpoint is broken.
    """
    import torch  # a second or two, for a page that may have no checkpoints

    found = {}
    first = [(arm, seed) for arm in summary.finished for seed in summary.seeds[:1]]
    for arm, seed in first:
        path = folder / "checkpoints" / f"{arm}-seed{seed}.pt"
        if not path.exists():
            continue
        with _named(path, "it to draw the report without its weights"):
            state = torch.load(path, map_location="cpu", weights_only=True)
            heads = [
                value.flatten(1)  # a head may be a convolution of one pixel
                for value in state.values()
                if value.ndim >= 2 and len(value) == summary.classes
            ]
        if heads:
            found[arm] = heads[-1].float().numpy()
    return found


@contextlib.contextmanager
def _named(path: Path, cure: str = "") -> Iterator[None]:
    """Says which file it is that holds something else, of a run that has no checksums."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # a broken file raises anything from KeyError to struct.error
        cure = cure or f"the folder {path.parent} to draw the report without what was chosen"
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}); put the file back, or remove {cure}"
        ) from error
