"""What a network says of a batch: logits, losses or embeddings, read without a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from torch.nn.parallel import DistributedDataParallel

from saln.data.torch_datasets import inference_batch_size
from saln.errors import InputError
from saln.features.backbones import inference_mode_of
from saln.loading.batch_tree import Key, cut, describe, find, leading, map_tensors
from saln.selection.candidates import PairEmbeddings

Field = Tensor | PairEmbeddings
_WHOLE = {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8}
# Where labels are looked for when nobody says.
_LABELS = ("labels", "label", "targets", "target")


def device_of(network: nn.Module) -> torch.device:
    """Where a network's parameters are; the CPU without any."""
    return next((value.device for value in network.parameters()), torch.device("cpu"))


@contextmanager
def scoring(learner: nn.Module) -> Iterator[None]:
    """Reads a network without a trace: modes, BatchNorm statistics and random state stay."""
    devices = list(range(torch.cuda.device_count()))
    # Networks may draw even in eval mode; training's own draws must not shift by that.
    with torch.random.fork_rng(devices=devices), inference_mode_of(learner):
        yield


@dataclass(frozen=True)
class BatchReader:
    """Finds a batch's parts and puts it through networks, by ``LearnerSelectedOptions``."""

    inputs: Key | None = None
    labels: Key | None = None
    indices: Key | None = None
    forward: Callable[[nn.Module, Any], Any] | None = None
    loss: Callable[[Any, Any], Tensor] | None = None
    autocast: torch.dtype | None = None
    score_size: int | None = None
    score_batch: int | None = None

    def __post_init__(self) -> None:
        for name, what in (("score_size", "pixels, 1 or more"), ("score_batch", "at least 1")):
            if (value := getattr(self, name)) is not None and value < 1:
                raise InputError(f"{name}={value} is not allowed; give {what}")

    def size(self, batch: Any) -> int:
        """How many examples a batch holds; raises InputError where no tensor says it."""
        rows = self.labels_of(batch)
        return leading(batch) if rows is None or rows.ndim == 0 else len(rows)

    def labels_of(self, batch: Any) -> Tensor | None:
        """The labels of a batch; None where nobody named them and none are found."""
        key = self._labels_at(batch)
        if key is None:
            return None
        labels = find(batch, key, "labels")
        if isinstance(labels, np.ndarray) and labels.dtype.kind in "iuf":
            labels = torch.from_numpy(labels)
        if isinstance(labels, Tensor):
            if labels.ndim == 2 and labels.shape[1] == 1 and not labels.is_floating_point():
                labels = labels[:, 0]
            return labels if labels.is_floating_point() else labels.long()
        if self.labels is None:  # something else of that name, such as lists of boxes
            return None
        raise InputError(f"labels={key!r} is {describe(labels)}, expected a tensor (n,)")

    def indices_of(self, batch: Any) -> Tensor | None:
        """Positions in the data set: int64 (n,) on the CPU; None where nobody named them."""
        if self.indices is None:
            return None
        indices = find(batch, self.indices, "indices")
        if isinstance(indices, np.ndarray) and indices.dtype.kind in "iu":
            indices = torch.from_numpy(indices.astype(np.int64))
        if isinstance(indices, Tensor) and indices.dtype in _WHOLE:
            if indices.ndim == 2 and indices.shape[1] == 1:
                indices = indices[:, 0]
            if indices.ndim == 1:
                return indices.long().cpu()
        kind = describe(indices)
        if isinstance(indices, Tensor):
            kind = f"{indices.dtype} {tuple(indices.shape)}"
        raise InputError(
            f"indices={self.indices!r} is {kind}, expected int64 (n,); "
            "indices lose digits in a float tensor"
        )

    def read(
        self, network: nn.Module, batch: Any, n: int, required: Sequence[str]
    ) -> dict[str, Any]:
        """Reads a batch of ``n`` in eval mode, a part at a time: float32 or float64, (n, ...)."""
        # Its forward pass sends buffers between ranks, which read different numbers of parts.
        if isinstance(network, DistributedDataParallel):
            network = network.module
        parts: list[dict[str, Any]] = []
        with scoring(network):
            size = self.score_batch or inference_batch_size(device_of(network))
            for start in range(0, n, size):
                rows = torch.arange(start, min(start + size, n))
                part = batch if len(rows) == n else cut(batch, rows, n)
                outputs = self._call(network, self._resized(part))
                parts.append(self.from_outputs(outputs, part, required))
        return {name: _joined([part[name] for part in parts]) for name in required}

    def read_in_training(
        self, network: nn.Module, batch: Any, required: Sequence[str]
    ) -> tuple[dict[str, Any], Tensor]:
        """As training reads a batch: what is required, without graph; the logits, with it."""
        outputs = self._call(network, batch)
        # The graph is that of the outputs; what the selector sees needs none.
        with torch.no_grad():
            fields = self.from_outputs(outputs, batch, required)
        return {name: _detached(field) for name, field in fields.items()}, _logits(outputs)

    def from_outputs(self, outputs: Any, batch: Any, required: Sequence[str]) -> dict[str, Any]:
        """What is required, from a network's outputs; InputError for those of another kind."""
        fields: dict[str, Any] = {}
        if "embeddings" in required:
            if not isinstance(outputs, PairEmbeddings):
                raise InputError(f"forward gave {describe(outputs)}, expected PairEmbeddings")
            fields["embeddings"] = PairEmbeddings(
                _wide(outputs.image), _wide(outputs.text), outputs.scale, outputs.bias
            )
        if "outputs" in required:
            fields["outputs"] = _wide(_logits(outputs))
        if "losses" in required:
            fields["losses"] = self._losses(outputs, batch)
        return fields

    def _labels_at(self, batch: Any) -> Key | None:
        if self.labels is not None:
            return self.labels
        if isinstance(batch, Mapping) or hasattr(batch, "_fields"):
            names = batch if isinstance(batch, Mapping) else batch._fields
            return next((name for name in _LABELS if name in names), None)
        return 1 if isinstance(batch, tuple | list) and len(batch) > 1 else None

    def _call(self, network: nn.Module, batch: Any) -> Any:
        device = device_of(network).type
        with torch.autocast(device, dtype=self.autocast, enabled=self.autocast is not None):
            if self.forward is not None:
                return self.forward(network, batch)
            if self.inputs is not None:
                inputs = find(batch, self.inputs, "inputs")
            elif isinstance(batch, Mapping):
                known = {self._labels_at(batch), self.indices}
                inputs = {name: part for name, part in batch.items() if name not in known}
            else:  # a tensor is its own input, as where a loader gives images alone
                inputs = batch if isinstance(batch, Tensor) else find(batch, 0, "inputs")
            return network(**inputs) if isinstance(inputs, Mapping) else network(inputs)

    def _resized(self, batch: Any) -> Any:
        size = self.score_size
        if size is None:
            return batch

        def resize(tensor: Tensor) -> Tensor:
            if tensor.ndim != 4 or not tensor.is_floating_point():
                return tensor
            return interpolate(tensor, (size, size), mode="bilinear", antialias=True)

        return map_tensors(batch, resize)

    def _losses(self, outputs: Any, batch: Any) -> Tensor:
        labels = self.labels_of(batch)
        if self.loss is not None:
            losses, who = self.loss(outputs, batch), "loss"
        else:
            logits = _logits(outputs)
            kind = None if labels is None else f"{labels.dtype} {tuple(labels.shape)}"
            is_class = labels is not None and labels.dtype == torch.int64 and labels.ndim == 1
            if labels is None or not is_class or logits.ndim != 2:
                raise InputError(
                    f"outputs {tuple(logits.shape)} with labels {kind} have no cross-entropy; "
                    "give labels=KEY of int64 (n,) labels, or loss, a function of outputs and "
                    "batch that gives one loss an example"
                )
            losses, who = cross_entropy(_wide(logits), labels, reduction="none"), "cross-entropy"
        # A mean would be taken for one loss, and broadcast to every candidate.
        n = self.size(batch)
        if not isinstance(losses, Tensor) or losses.shape != (n,):
            shape = tuple(losses.shape) if isinstance(losses, Tensor) else describe(losses)
            raise InputError(
                f"{who} gave {shape} for {n} examples, expected ({n},); "
                'give one loss an example, as reduction="none" does'
            )
        return _wide(losses)


def _logits(outputs: Any) -> Tensor:
    """The logits among a network's outputs, as tensors or as Hugging Face has them."""
    # Hugging Face's outputs are mappings, or have attributes, by version and setting.
    if isinstance(outputs, Mapping) and "logits" in outputs:
        outputs = outputs["logits"]
    outputs = getattr(outputs, "logits", outputs)
    if not isinstance(outputs, Tensor):
        raise InputError(
            f"the network gave {describe(outputs)}, expected a tensor or something with logits; "
            "give forward, a function of a network and a batch that gives its logits"
        )
    return outputs


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _detached(field: Field) -> Field:
    if isinstance(field, Tensor):
        return field.detach()
    scale, bias = (torch.as_tensor(value).detach() for value in (field.scale, field.bias))
    return PairEmbeddings(field.image.detach(), field.text.detach(), scale, bias)


def _joined(parts: list[Any]) -> Field:
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    image, text = (torch.cat([getattr(part, side) for part in parts]) for side in ("image", "text"))
    return PairEmbeddings(image, text, parts[0].scale, parts[0].bias)
