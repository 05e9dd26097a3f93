"""One review from its settings to the table: what ``saln labels`` does before it writes."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from saln.data.arguments import as_path
from saln.data.dataset_registry import DATASETS
from saln.errors import InputError
from saln.features.backbones import Network, build_backbone
from saln.features.dataset_features import DatasetExtraction
from saln.features.default_backbone import DefaultBackbone, default_backbone
from saln.features.network_registry import NETWORKS
from saln.features.text_encoders import TEXT_ENCODERS
from saln.files import check_new_path
from saln.labels.beliefs import check_noise_rate
from saln.labels.descriptions import Clock
from saln.messages import Placeholder, not_allowed, parameter
from saln.review.decisions import remembered
from saln.review.feature_cache import FeatureRows
from saln.review.item_features import FeatureMaker, Titled, item_features
from saln.review.item_sources import absolute_spec, open_items
from saln.review.judging import judge_items
from saln.review.review_items import ReviewItems
from saln.review.review_table import ReviewTable
from saln.review.table_items import TableItems, is_table
from saln.review.table_settings import TableSettings
from saln.review.task_tables import task_table


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """How images become features; InputError names a value that is not allowed."""

    backbone: str | None = field(default=None, metadata={"names": NETWORKS})
    """The frozen network; by default the best one on this machine. Of texts: tfidf or hf:MODEL."""
    backbone_weights: Path | None = None
    """A file with its state dict, instead of a download."""
    feature_size: int | None = None
    """Pixels that it sees; by default its own, or 224. Fewer are faster and find less."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the backbone runs."""
    workers: int = 0
    """Processes that load images; 0 loads in the process itself."""
    batch_size: int | None = None
    """Images in a forward pass; by default what suits the device."""
    strict: bool = False
    """Stop at an image that cannot be read, instead of listing it and going on."""
    cache_dir: Path | None = None
    """Where features are kept, by what the images hold; the user's cache when not given."""
    noise_rate: float | None = None
    """The share of wrong labels, where it is known: that share is called wrong."""

    def __post_init__(self) -> None:
        """Checks what needs neither images nor weights, before either is opened."""
        if self.noise_rate is not None:
            check_noise_rate(self.noise_rate)
        of_texts = self.backbone in TEXT_ENCODERS  # or of images, as hf: is both
        checked = DatasetExtraction(
            backbone="pixels" if self.backbone is None or of_texts else self.backbone,
            backbone_weights=self.backbone_weights,
            feature_size=self.feature_size,
            device=self.device,
            workers=self.workers,
            batch_size=self.batch_size,
            cache_dir=self.cache_dir,
        )
        if self.backbone_weights is not None and self.backbone is None:
            raise InputError(
                f"{parameter('backbone_weights', self.backbone_weights)} needs the name of its "
                f"network; give {parameter('backbone', Placeholder('NAME'))} too"
            )
        for name in ("backbone_weights", "cache_dir", "feature_size", "workers", "batch_size"):
            self._set(name, getattr(checked, name))

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # frozen from here on

    def default_backbone(self) -> DefaultBackbone:
        """The network that is taken where none is named, and why; else MissingExtraError."""
        return default_backbone(None if self.device == "auto" else self.device == "cuda")

    def network(self) -> Network:
        """The frozen network; errors as of :func:`saln.features.build_backbone`."""
        return build_backbone(
            self.backbone or self.default_backbone().name,
            image_size=self.feature_size,
            weights=self.backbone_weights,
        )


@dataclass(frozen=True, kw_only=True)
class ReviewSettings(ImageSettings, TableSettings):
    """Whose labels are reviewed, how, and where to; InputError names a value not allowed."""

    dataset: str = field(default="", metadata={"names": DATASETS})
    """A folder of images with one sub-folder a class, a table, or a name of 'saln list'."""
    out: Path | None = None
    """The folder for the results; by default labels-NAME in the current folder."""
    data_root: Path = Path("data")
    """Where cifar10 and oxford-pet are, in torchvision's layout."""
    download: bool = False
    """Fetch a data set that is not there."""

    def __post_init__(self) -> None:
        """Checks what needs neither images nor weights, before either is opened."""
        super().__post_init__()
        if not self.dataset and self.ids is None:
            raise InputError(
                f"a review needs {parameter('dataset')}; give a folder of images, a table, or "
                f"{parameter('features')} and {parameter('ids')}"
            )
        if self.noise_rate is not None and self.task != "classes":
            raise not_allowed("task", self.task, f"classes with {parameter('noise_rate')}")
        table = self.table_dataset(self.dataset)
        self._set("dataset", absolute_spec(self.dataset) if table is None else table)
        self._set("ids", None)  # it is the data set now
        self._set("data_root", as_path(self.data_root, "data_root"))
        if self.out is not None:
            out = as_path(self.out, "out")
            check_new_path(out.absolute(), "out")
            if out.is_file():
                raise InputError(f"{parameter('out', out)} is a file; give a folder")
            self._set("out", out)

    @property
    def folder(self) -> Path:
        """Where the review is written."""
        if self.out is not None:
            return self.out
        kind, _, argument = self.dataset.partition(":")
        path = Path(argument or kind)
        written = path.stem if is_table(self.dataset) else path.name
        name = re.sub(r"[^\w.-]+", "-", written).strip("-.") or "review"
        # Not inside of what is reviewed, where it would look like a class.
        inside = kind == "folder" and Path.cwd().is_relative_to(argument)
        return (Path(argument).parent if inside else Path()) / f"labels-{name}"


@dataclass(frozen=True)
class Review:
    """What a review gave."""

    items: ReviewItems  # What was reviewed
    table: ReviewTable  # What is believed of it
    maker: FeatureMaker  # By what features
    rows: FeatureRows  # Which these are
    seconds: dict[str, float]  # Of the parts: ``open``, ``features``, ``judge``; and ``total``
    read: TableItems | None = None  # Where it was read from a table


def run_review(settings: ReviewSettings, *, watch: Titled | None = None) -> Review:
    """Judges every label of a data set; nothing is written but the features that are kept.

    SalnError where what is asked for cannot be had, or an image cannot be read with ``strict``.
    """
    clock = Clock()
    read = settings.read_table(settings.dataset, settings.download)
    images = settings.features is None and (read is None or read.items.images is not None)
    # First: without weights no image need be opened, and no feature computed for a broken file.
    network = settings.network() if images else None
    memory = remembered(settings.folder)
    items = (
        open_items(settings.dataset, settings.data_root, download=settings.download)
        if read is None
        else read.items
    )
    clock.lap("open")
    review = review_items(items, network, settings, read=read, watch=watch, clock=clock)
    table = review.table
    known = [memory.of(*row) for row in zip(table.ids, table.keys, table.given, strict=True)]
    decision, label = [each.decision for each in known], [each.label for each in known]
    table = dataclasses.replace(table, decision=decision, label=label)
    return dataclasses.replace(review, table=table)


def review_items(
    items: ReviewItems,
    network: Network | None,
    settings: ImageSettings,
    *,
    read: TableItems | None = None,
    watch: Titled | None = None,
    clock: Clock | None = None,
) -> Review:
    """Judges the labels of examples that are opened already; see :func:`run_review`.

    ``network`` is for images; ``read`` is what was read of a table.
    """
    clock = clock or Clock()
    maker, rows = item_features(items, network, settings, watch)
    clock.lap("features")
    if read is None or read.task == "classes":
        table = judge_items(
            items,
            rows.features,
            problems=rows.problems,
            thumbnails=rows.thumbnails,
            noise_rate=settings.noise_rate,
        )
    else:
        table = task_table(read, rows.features, rows.problems, rows.thumbnails)
    clock.lap("judge")
    return Review(items, table, maker, rows, clock.seconds, read)
