"""What a report reads beside rows and summary: what was chosen, and the final weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from saln.errors import DataError
from saln.experiments.kept_examples import ArmChoices, SeedExamples, read_choices, read_examples
from saln.experiments.rows import Summary
from saln.experiments.run_folder import RunFolder


class Chosen(NamedTuple):
    """All choices of a run: by seed its examples, and by seed and arm what was chosen of them."""

    examples: Mapping[int, SeedExamples]
    choices: Mapping[int, Mapping[str, ArmChoices]]
    truth: bool  # whether it is known which labels are wrong

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
        of_seed = read_examples(folder, seed)
        if of_seed is not None:
            examples[seed], total = of_seed, len(of_seed.labels)
            chosen = {arm: read_choices(folder, arm, seed, total) for arm in summary.finished}
            choices[seed] = {arm: each for arm, each in chosen.items() if each is not None}
    return Chosen(examples, choices, summary.knows_truth) if examples else None


def final_weights(folder: Path, summary: Summary) -> dict[str, npt.NDArray[np.float32]]:
    """Arm -> float32, (classes, d), of the first seed; arms without a checkpoint are left out.

    Raises:
        DataError: A checkpoint is broken.
    """
    import torch  # a second or two, for a page that may have no checkpoints

    weights = {}
    for arm, seed in ((arm, seed) for arm in summary.finished for seed in summary.seeds[:1]):
        path = RunFolder(folder).checkpoint(arm, seed)
        if not path.exists():
            continue
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            heads = [
                value.flatten(1)  # a head may be a convolution of one pixel
                for value in state.values()
                if value.ndim >= 2 and len(value) == summary.classes
            ]
        except Exception as error:  # a broken file raises anything from EOFError to KeyError
            raise DataError(
                f"{path} cannot be read ({type(error).__name__}); put the file back, or remove it "
                "to draw the report without its weights"
            ) from error
        if heads:
            weights[arm] = heads[-1].float().numpy()
    return weights
