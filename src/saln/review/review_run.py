"""One review from its settings to its files: what ``saln labels`` does."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from saln.data.arguments import as_path
from saln.data.dataset_registry import DATASETS
from saln.errors import InputError
from saln.features.backbones import Network
from saln.features.dataset_features import DatasetExtraction, named_backbone
from saln.features.default_backbone import default_backbone
from saln.features.extraction import Progress
from saln.features.network_registry import NETWORKS
from saln.files import check_new_path
from saln.labels.descriptions import Clock
from saln.messages import Placeholder, parameter
from saln.review.feature_cache import FeatureCache, FeatureRows, default_review_cache
from saln.review.item_sources import absolute_spec, open_items
from saln.review.judging import judge_items
from saln.review.review_items import ReviewItems
from saln.review.review_table import ReviewTable


@dataclass(frozen=True, kw_only=True)
class ReviewSettings:
    """Whose labels are reviewed, and how.

    Raises:
        InputError: A value that is not allowed; the message names it.
    """

    dataset: str = field(metadata={"names": DATASETS})
    """A folder of images with one sub-folder a class, or a data set that 'saln list' names."""
    backbone: str | None = field(default=None, metadata={"names": NETWORKS})
    """The frozen network; when not given, the best one whose weights are on this machine."""
    backbone_weights: Path | None = None
    """Its state dict, in the place of a download."""
    feature_size: int = 224
    """Pixels that it sees: fewer are quicker, and find less."""
    out: Path | None = None
    """The folder for what is written; labels-NAME in the current folder when not given."""
    data_root: Path = Path("data")
    """Where cifar10 and oxford-pet are, in torchvision's layout."""
    download: bool = False
    """Fetch a data set that is not there."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the backbone runs."""
    workers: int = 0
    """Processes that load images; 0 loads in the process itself."""
    batch_size: int | None = None
    """Images a forward pass; what suits the device when not given."""
    strict: bool = False
    """Stop at an image that cannot be read; else it is listed, and the others are judged."""
    cache_dir: Path | None = None
    """Where features are kept, by what the images hold; the user's cache when not given."""

    def __post_init__(self) -> None:
        """Checks what needs neither images nor weights, before either is opened."""
        dataset = absolute_spec(self.dataset)
        checked = DatasetExtraction(
            dataset=dataset,
            data_root=self.data_root,
            backbone=self.backbone or "pixels",
            backbone_weights=self.backbone_weights,
            feature_size=self.feature_size,
            device=self.device,
            workers=self.workers,
            batch_size=self.batch_size,
            cache_dir=self.cache_dir,
        )
        out = None if self.out is None else as_path(self.out, "out")
        if out is not None:
            check_new_path(out.absolute(), "out")
        if out is not None and out.is_file():
            raise InputError(f"{parameter('out', out)} is a file; give a folder")
        if self.backbone_weights is not None and self.backbone is None:
            raise InputError(
                f"{parameter('backbone_weights', self.backbone_weights)} needs the name of its "
                f"network; give {parameter('backbone', Placeholder('NAME'))} too"
            )
        for name in ("data_root", "backbone_weights", "cache_dir"):
            object.__setattr__(self, name, getattr(checked, name))  # frozen from here on
        object.__setattr__(self, "dataset", dataset)
        object.__setattr__(self, "out", out)

    @property
    def folder(self) -> Path:
        """Where the review is written."""
        return _default_out(self.dataset) if self.out is None else self.out


def _default_out(dataset: str) -> Path:
    """``labels-NAME`` in the current folder, or beside the data set where that lies inside it."""
    kind, _, argument = dataset.partition(":")
    name = re.sub(r"[^\w.-]+", "-", Path(argument or kind).name).strip("-.") or "review"
    inside = kind == "folder" and Path.cwd().is_relative_to(argument)
    return (Path(argument).parent if inside else Path()) / f"labels-{name}"


@dataclass(frozen=True)
class Review:
    """What a review gave.

    Attributes:
        items: What was reviewed.
        table: What is believed of it.
        network: By whose features.
        rows: The features.
        seconds: Of the parts: ``open``, ``features``, ``judge``; and ``total``.
    """

    items: ReviewItems
    table: ReviewTable
    network: Network
    rows: FeatureRows
    seconds: dict[str, float]


def review_network(settings: ReviewSettings) -> Network:
    """The frozen network of a review.

    Raises:
        SalnError: As :func:`saln.features.build_backbone`.
    """
    name = settings.backbone or default_backbone()
    return named_backbone(
        name, settings.feature_size, size=settings.feature_size, weights=settings.backbone_weights
    )


def run_review(
    settings: ReviewSettings,
    *,
    note: Callable[[str], None] = lambda text: None,
    progress: Callable[[str], Callable[[Progress], None]] | None = None,
) -> Review:
    """Judges every label of a data set; nothing is written but the features that are kept.

    Args:
        settings: Of the review.
        note: Called with what begins, for people who watch.
        progress: Called with the title of the features; gives what is called after every batch.

    Raises:
        SalnError: What is asked for cannot be had, or an image cannot be read with ``strict``.
    """
    clock = Clock()
    network = review_network(settings)  # first: without weights no image need be opened
    items = open_items(settings.dataset, settings.data_root, download=settings.download)
    clock.lap("open")
    if items.images is None:
        raise InputError(f"{settings.dataset} holds no images; give a data set of images")
    cache = FeatureCache(
        settings.cache_dir or default_review_cache(),
        network,
        device=None if settings.device == "auto" else settings.device,
        batch_size=settings.batch_size,
        workers=settings.workers,
    )
    title = f"features: {network.name} at {network.image_size} px"
    rows = cache.rows(
        items.images,
        items.keys,
        strict=settings.strict,
        progress=None if progress is None else progress(title),
    )
    clock.lap("features")
    note(f"judging {len(items):,} labels")
    table = judge_items(
        items, rows.features, problems=[p and f"unreadable: {p}" for p in rows.problems]
    )
    clock.lap("judge")
    return Review(items, table, network, rows, clock.seconds)
