"""What learner and reference say of loaded candidates, brought together from all ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from saln.data.arguments import as_array
from saln.distributed import Rank, gather_rows, share_bounds
from saln.errors import InputError, TrainingError
from saln.loading.batch_tree import cut, move
from saln.loading.network_outputs import BatchReader, Field
from saln.selection.candidates import PairEmbeddings
from saln.selection.contract import Selector

# What is read of a network; of the learner and of the reference.
_READ = ("outputs", "losses", "embeddings")


@dataclass(eq=False)
class CandidateScores:
    """Reads of two networks what a selector requires; the arguments are LearnerSelected's."""

    selector: Selector
    reader: BatchReader
    learner: nn.Module
    reference: nn.Module | None
    reference_outputs: Any
    device: torch.device
    reuse_forward: bool
    examples_scored: int = 0  # How many examples the learner has been asked about, by this rank

    def __post_init__(self) -> None:
        outputs = self.reference_outputs
        if outputs is not None and not isinstance(outputs, Tensor):
            self.reference_outputs = torch.from_numpy(as_array(outputs, "reference_outputs"))

    def of(
        self, batch: Any, indices: Tensor, n: int, rank: Rank, where: str
    ) -> tuple[dict[str, Any], Any, Tensor | None]:
        """The required fields of both networks for all ``n`` candidates; each rank reads a share.

        Also the batch, on the device where all of it went there, and the learner's outputs with
        their graph, where they are reused. Raises TrainingError for a field that is not finite.
        """
        # No number of ranks need divide the candidates: shares differ by one at most.
        start, end = share_bounds(n, rank.index, rank.count)
        mine = batch if rank.count == 1 else cut(batch, torch.arange(start, end), n)
        mine = move(mine, self.device)
        fields: dict[str, Any] = {}
        trained: Tensor | None = None
        for whose, network in (("learner", self.learner), ("reference", self.reference)):
            required = [what for what in _READ if f"{whose}_{what}" in self.selector.requires]
            if not required:
                continue
            if network is None:  # the reference, whose outputs were made before
                table = self.reference_outputs
                # By position in the data set; the table may stay on the CPU.
                rows = table[indices[start:end].to(table.device)].to(self.device)
                read = self.reader.from_outputs(rows, mine, required)
            elif whose == "learner" and self.reuse_forward:
                read, trained = self.reader.read_in_training(network, mine, required)
            else:
                read = self.reader.read(network, mine, end - start, required)
            self.examples_scored += end - start if whose == "learner" else 0
            fields |= {f"{whose}_{what}": field for what, field in read.items()}
        if rank.count > 1:
            fields = {name: self._gathered(field, n, rank) for name, field in fields.items()}
        _check_finite(fields, where)
        # With several ranks only a share went to the device; what is kept is moved later.
        return fields, mine if rank.count == 1 else batch, trained

    def _gathered(self, field: Field, n: int, rank: Rank) -> Field:
        if isinstance(field, Tensor):
            return gather_rows(field, n, rank.count, self.device)
        image, text = (
            gather_rows(side, n, rank.count, self.device) for side in (field.image, field.text)
        )
        # These are the network's, the same on every rank.
        scale, bias = (torch.as_tensor(value).cpu() for value in (field.scale, field.bias))
        return PairEmbeddings(image, text, scale, bias)


def _check_finite(fields: dict[str, Field], where: str) -> None:
    """Raises on every rank alike, as each has the fields of all, so that none waits for another."""
    for name, field in fields.items():
        sides = (field,) if isinstance(field, Tensor) else (field.image, field.text)
        if not all(bool(torch.isfinite(side).all()) for side in sides):
            whose, what = name.split("_")
            raise TrainingError(
                f"the {whose}'s {what} are not finite in {where}; lower the learning rate"
            )


def check_scoring(scores: CandidateScores, world_size: int) -> None:
    """Raises InputError for what a selector lacks, and for options that exclude each other."""
    name, requires, reader = type(scores.selector).__name__, scores.selector.requires, scores.reader
    if scores.reference is not None and scores.reference_outputs is not None:
        raise InputError("give reference or reference_outputs, not both")
    if scores.reference_outputs is not None and reader.indices is None:
        refuse_counted_indices("reference_outputs")
    has_reference = scores.reference is not None or scores.reference_outputs is not None
    for field in sorted(requires):
        if field.startswith("reference_") and not has_reference:
            raise InputError(
                f"{name} requires {field}; train a reference model and give it as "
                "reference, or its logits for every example as reference_outputs"
            )
        if field == "reference_embeddings" and scores.reference is None:
            raise InputError(f"{name} requires {field}; give the network as reference")
        if field.endswith("_embeddings") and reader.forward is None:
            raise InputError(
                f"{name} requires {field}; give forward, a function of a network and a "
                "batch that gives PairEmbeddings"
            )
    # The outputs of scoring serve training only where they are those of training.
    reads_learner = any(field.startswith("learner_") for field in requires)
    excluded = {
        "score_size": reader.score_size is not None,
        "several ranks": world_size > 1,
        f"{name}, which reads no output of the learner": not reads_learner,
    }
    other = next((other for other, is_asked in excluded.items() if is_asked), None)
    if scores.reuse_forward and other is not None:
        raise InputError(
            f"reuse_forward does not go with {other}; leave one of the two out: the "
            "training step needs this rank's own forward pass, at full size"
        )


def refuse_counted_indices(name: str) -> NoReturn:
    """Raises where rows are looked up by position, but no batch says its examples' positions."""
    raise InputError(
        f"{name} has rows by position in the data set, but counted indices do not "
        "say it; let the batches hold their positions and give indices=KEY"
    )
