"""The features of a data set's training images, data set and network both by name.

What ``saln features`` makes, and ``saln compare`` finds again: the same data set, network and
size lead to the same store.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from saln.data.arguments import as_path, as_whole
from saln.data.dataset_registry import DATASETS
from saln.data.datasets import DataSet, load_dataset
from saln.features.backbone_weights import read_weights
from saln.features.backbones import Network, build_backbone, feature_size
from saln.features.default_backbone import named_network
from saln.features.extraction import Progress, extract_features
from saln.features.network_registry import NETWORKS
from saln.features.store import FeatureStore
from saln.messages import not_allowed


def default_cache_dir() -> Path:
    """Where features are kept when nobody says where: the user's cache folder."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "saln" / "features"


def named_backbone(
    name: str, image_size: int, *, size: int | None = None, weights: Path | None = None
) -> Network:
    """The frozen network for images that a learner sees at ``image_size`` pixels.

    Its own ``size``, when not given, is the same, but for networks made for ImageNet at least 96,
    and for those of other libraries what they expect. Errors as of :func:`build_backbone`.
    """
    # Small images are enlarged: features of fewer pixels are worth little.
    pixels = feature_size(name, image_size) if size is None else size
    return build_backbone(name, image_size=pixels, weights=weights)


@dataclass(frozen=True, kw_only=True)
class DatasetExtraction:
    """Whose features are made, and how; settings of `saln compare` have the same names.

    Raises:
        InputError: A value that is not allowed; the message names it.
    """

    dataset: str = field(default="digits", metadata={"names": DATASETS})
    """Whose training images."""
    data_root: Path = Path("data")
    """Where cifar10 and oxford-pet are, in torchvision's layout."""
    download: bool = False
    """Fetch a data set that is not there."""
    backbone: str = field(default="resnet50", metadata={"names": NETWORKS})
    """The frozen network."""
    backbone_weights: Path | None = None
    """A file with its state dict, instead of a download."""
    feature_size: int | None = None
    """Pixels that it sees; when not given the network's own, or the data set's, at least 96."""
    limit: int | None = None
    """Use at most this many training images."""
    split_seed: int = 0
    """Decides which examples are for training."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the backbone runs."""
    workers: int = 0
    """Processes that load images; 0 loads in the process itself."""
    batch_size: int | None = None
    """Images a forward pass; what suits the device when not given."""
    skip_unreadable: bool = False
    """List images that cannot be read in the store and go on without them."""
    cache_dir: Path | None = None
    """Where features are kept; when not given, where saln compare looks for them."""

    def __post_init__(self) -> None:
        """Checks what needs neither the data nor the network, before either is opened."""
        for name, low, high in (
            ("feature_size", 8, 2048),
            ("limit", 1, None),
            ("workers", 0, 1000),
            ("batch_size", 1, None),
            ("split_seed", -(2**63), 2**63 - 1),
        ):
            if getattr(self, name) is not None:
                self._set(name, as_whole(getattr(self, name), name, low, high))
        for name in ("data_root", "backbone_weights", "cache_dir"):
            if getattr(self, name) is not None:
                self._set(name, as_path(getattr(self, name), name))
        for name, known in (("dataset", DATASETS), ("backbone", NETWORKS)):
            if (spec := getattr(self, name)) not in known:
                raise not_allowed(name, spec, known.choices(spec))
        if self.device not in ("auto", "cpu", "cuda"):
            raise not_allowed("device", self.device, "auto, cpu or cuda")
        self._set("backbone", named_network(self.backbone, self.device))

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # frozen from here on

    def open(self) -> OpenedExtraction:
        """Opens the data set and builds the network.

        Raises:
            SalnError: As :func:`saln.data.datasets.load_dataset` and
                :func:`saln.features.backbones.build_backbone`.
        """
        if self.backbone_weights is not None:
            read_weights(self.backbone_weights)  # before a large folder is listed
        data = load_dataset(
            self.dataset,
            self.data_root,
            limit=self.limit,
            split_seed=self.split_seed,
            download=self.download,
        )
        network = named_backbone(
            self.backbone,
            data.default_image_size,
            size=self.feature_size,
            weights=self.backbone_weights,
        )
        return OpenedExtraction(self, data, network)


@dataclass(frozen=True)
class OpenedExtraction:
    """An extraction whose data set and network are there; nothing is computed yet."""

    settings: DatasetExtraction
    data: DataSet
    network: Network

    @property
    def title(self) -> str:
        """What is computed, for people, e.g. ``features: resnet50 at 224 px``."""
        return f"features: {self.network.name} at {self.network.image_size} px"

    def run(
        self,
        *,
        progress: Callable[[Progress], None] | None = None,
        # Handed in, not chosen by name here: Ray's is of a package that comes after this one.
        extract: Callable[..., FeatureStore] = extract_features,
    ) -> FeatureStore:
        """Computes what the store lacks, by :func:`extract_features` or what takes the same.

        ``progress`` is called after every batch, and once before the first.
        """
        settings = self.settings
        options: dict[str, Any] = {
            "name": settings.dataset,
            "cache_dir": settings.cache_dir or default_cache_dir(),
            "device": None if settings.device == "auto" else settings.device,
            "batch_size": settings.batch_size,
            "workers": settings.workers,
            "unreadable": "skip" if settings.skip_unreadable else "raise",
        }
        return extract(self.data.train, self.network, progress=progress, **options)
