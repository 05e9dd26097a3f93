"""How features are extracted: what may be asked for, checked once, and what it means here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

import torch
from torch import nn

from saln.data.arguments import as_path, as_whole
from saln.data.transforms import IMAGENET, Normalization
from saln.distributed import Rank
from saln.errors import InputError
from saln.features.backbones import Network, build_backbone, device_of, wrap_backbone
from saln.messages import not_allowed

# A multiple of every batch size in use. A kill costs at most one or two shards of rows.
SHARD_ROWS = 1024


class ExtractionOptions(TypedDict, total=False):
    """What :func:`saln.extract_features` takes beside the data set, the backbone and the folder.

    The same holds for :func:`saln.integrations.ray.extract_features_on_ray`.
    """

    weights: str | Path | None
    """A state dict on disk, in the place of the published weights."""
    image_size: int | None
    """Pixels; when not given the network's own, or 224, which those made for ImageNet expect."""
    normalization: Normalization | None
    """For a module: what it expects of its input; ImageNet's when not given."""
    name: str | None
    """The data set's name, for the folder's; its class's when not given."""
    device: torch.device | str | None
    """Where the backbone runs; when not given a GPU where there is one, and for a module where
    it is."""
    batch_size: int | None
    """Images a forward pass; what suits the device when not given."""
    workers: int
    """Processes that load images."""
    mixed_precision: bool | None
    """Run the backbone under autocast; when not given, on a GPU."""
    shard_rows: int
    """How many rows are made durable at once."""
    unreadable: Literal["raise", "skip"]
    """What to do about examples that cannot be read: ``"raise"`` ends at the first, and finished
    shards are kept; ``"skip"`` lists them in the store's ``skipped`` and manifest, by file and
    reason. Their rows are NaN and their labels -1, and neither ``SelectedBatches`` nor ``select``
    chooses them."""


@dataclass(frozen=True, kw_only=True)
class ExtractionSettings:
    """:class:`ExtractionOptions` with what holds where nothing is given; else InputError."""

    weights: str | Path | None = None
    image_size: int | None = None
    normalization: Normalization | None = None
    name: str | None = None
    device: torch.device | str | None = None
    batch_size: int | None = None
    workers: int = 0
    mixed_precision: bool | None = None
    shard_rows: int = SHARD_ROWS
    unreadable: Literal["raise", "skip"] = "raise"

    def __post_init__(self) -> None:
        if self.unreadable not in ("raise", "skip"):
            raise not_allowed("unreadable", self.unreadable, "'raise' or 'skip'")
        for name, low in (("shard_rows", 1), ("workers", 0), ("batch_size", 1), ("image_size", 1)):
            if getattr(self, name) is not None or name in ("shard_rows", "workers"):
                whole = as_whole(getattr(self, name), name, low)
                object.__setattr__(self, name, whole)  # frozen from here on
        if self.name is not None and not isinstance(self.name, str):
            raise not_allowed("name", self.name, "text")
        if self.normalization is not None and not isinstance(self.normalization, Normalization):
            allowed = "saln.data.transforms.Normalization(mean, std)"
            raise not_allowed("normalization", self.normalization, allowed)

    def device_for(self, backbone: str | nn.Module) -> torch.device:
        """Where a backbone runs; InputError where there is no such device, or no GPU."""
        own = device_of(backbone) if isinstance(backbone, nn.Module) else None
        if self.device is None and own is not None:
            return own
        if self.device is None and torch.cuda.is_available():
            # torchrun says which GPU of the machine is this process's.
            local_rank = int(os.environ.get("LOCAL_RANK", torch.cuda.current_device()))
            return torch.device("cuda", local_rank % torch.cuda.device_count())
        try:
            found = torch.device(self.device or "cpu")
        except (RuntimeError, TypeError) as error:
            raise InputError(
                f"device {self.device!r} is not known; give 'cpu' or 'cuda'"
            ) from error
        if found.type == "cuda" and not torch.cuda.is_available():
            raise InputError(f"device {found} is not allowed: torch sees no GPU here; give 'cpu'")
        return found

    def precision_on(self, device: torch.device) -> torch.dtype | None:
        """What autocast computes in; None where it is not used."""
        mixed = device.type == "cuda" if self.mixed_precision is None else self.mixed_precision
        if not mixed:
            return None
        # bfloat16 has float32's range, so no activation becomes infinite; older GPUs lack it.
        brain = device.type != "cuda" or torch.cuda.is_bf16_supported()
        return torch.bfloat16 if brain else torch.float16

    def network(self, backbone: str | Network | nn.Module) -> Network:
        """The backbone, built by its name or wrapped; InputError where it cannot be had."""
        if isinstance(backbone, str):
            if self.normalization is not None:
                raise InputError(f"{backbone} has its own normalization; leave normalization out")
            # 224 pixels would be right for neither: they are made for small images.
            if self.image_size is None and backbone in ("pixels", "small-cnn", "small-resnet"):
                raise InputError(f"{backbone} has no usual image size; give image_size, e.g. 32")
            file = None if self.weights is None else as_path(self.weights, "weights")
            return build_backbone(backbone, image_size=self.image_size, weights=file)
        if self.weights is not None:
            raise InputError("weights are for a backbone that is a name; load the module's before")
        if isinstance(backbone, Network):
            if self.image_size not in (None, backbone.image_size) or self.normalization is not None:
                raise InputError(
                    f"the network {backbone.name} was built for {backbone.image_size} pixels and "
                    "has its own normalization; leave image_size and normalization out"
                )
            return backbone
        if not isinstance(backbone, nn.Module):
            allowed = "a name ('saln list' names all) or a torch.nn.Module"
            raise not_allowed("backbone", backbone, allowed)
        if self.image_size is None:
            raise InputError(
                "a backbone that is a module needs image_size; give the pixels it expects"
            )
        expected = self.normalization or IMAGENET
        return wrap_backbone(backbone, image_size=self.image_size, normalization=expected)


def rank_among(rank: int | None, world_size: int | None) -> Rank:
    """Which of the processes that make one store together this is; InputError where it is none.

    Unlike in training, a number beside the process group's is allowed: nothing is sent between
    the processes, so no group is needed, and ``torchrun`` alone says enough.
    """
    if rank is None and world_size is None:
        if (group := Rank.group()) is not None:
            return group
        rank = int(os.environ.get("RANK", "0"))
        world_size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = None if rank is None else as_whole(rank, "rank", 0)
    world_size = None if world_size is None else as_whole(world_size, "world_size", 1)
    if rank is None or world_size is None or not 0 <= rank < world_size:
        raise InputError(
            f"rank={rank} of world_size={world_size} is not allowed; give both, with rank from 0 "
            "to world_size - 1, or neither"
        )
    return Rank(rank, world_size)
