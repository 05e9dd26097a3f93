"""The set-up of a comparison: the data set, and the features that its arms choose by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from saln.data.arguments import as_path
from saln.data.datasets import DataSet, load_dataset
from saln.data.headers import check_headers
from saln.errors import InputError, SalnError
from saln.experiments.arm import Arm
from saln.experiments.config import Config
from saln.experiments.reporter import FeatureProgress, Reporter
from saln.features.backbone_weights import read_weights
from saln.features.backbones import build_network, feature_size
from saln.features.dataset_features import named_backbone
from saln.features.extraction import extract_features
from saln.features.neighbors import NeighborTable, neighbor_table
from saln.features.store import FeatureStore
from saln.loading.mmap_rows import MmapRows
from saln.messages import first_line, parameter
from saln.selection.neighbor_beliefs import NEIGHBORS

# The share of the training data that trains reference models, when any arm needs one.
REFERENCE_SHARE = 0.1


class StoredRows:
    """Some rows, int64 (n,), of a feature store, read when asked for: never all in memory."""

    ndim = 2

    def __init__(self, store: FeatureStore, rows: npt.NDArray[np.int64]) -> None:
        self.rows = rows
        self.shape = (len(rows), store.features.shape[1])
        self.size = self.shape[0] * self.shape[1]
        self.dtype = store.features.dtype
        self._stored = MmapRows(store.features)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> npt.NDArray[Any]:
        """Copies rows: ``index`` is a slice, or int64 (m,)."""
        # MmapRows reads them from the file, so that no page of it counts as this process's.
        return self._stored[torch.from_numpy(self.rows[index])].numpy()


@dataclass(frozen=True)
class SharedInputs:
    """What all seeds and arms share, made once."""

    data: DataSet  # Without label noise
    features: StoredRows | None = None  # The training examples' rows, where an arm chooses by them
    # Of the training examples, where an arm has its labels judged by them, or asks for them
    neighbors: NeighborTable | None = None
    seconds: float = 0.0  # What the features took when they were made

    def cost(self, arm: Arm) -> tuple[float, int]:
        """Seconds and examples of what an arm needs of it."""
        if not arm.needs_features:
            return 0.0, 0
        return self.seconds, len(self.data.train_and_reference)


def load_data(config: Config) -> DataSet:
    """The data set, with a part for reference models where an arm needs one; else InputError.

    Files of weights are looked at first, and tried before anything is computed.
    """
    check_weights(config)
    data = load_dataset(
        config.dataset,
        config.data_root.expanduser(),
        limit=config.limit,
        reference_share=REFERENCE_SHARE if any(arm.needs_reference for arm in config.arms) else 0.0,
        split_seed=config.split_seed,
        download=config.download,
    )
    check_headers(data)
    n = candidates_of_step(config)
    if n > len(data.train):
        raise InputError(
            f"{parameter('batch_size', config.batch_size)} at {parameter('filter_ratio')} "
            f"{config.filter_schedule()} needs {n} candidates for a step, but {config.dataset} has "
            f"{len(data.train)} training images here; lower one of the two"
        )
    check_weights(config, config.image_size or data.default_image_size)
    return data


def check_weights(config: Config, image_size: int | None = None) -> None:
    """Looks at the files of weights of learner and backbone; names what is wrong with either.

    Whether they fit their networks can be said where the ``image_size`` is known. Raises as
    ``read_weights`` and, with an image size, ``build_network``; an InputError where both are
    wrong.
    """
    files = {"weights": (config.learner, config.weights, image_size)}
    if any(arm.needs_features for arm in config.arms):
        size = image_size and (config.feature_size or feature_size(config.backbone, image_size))
        files["backbone_weights"] = (config.backbone, config.backbone_weights, size)
    given = {named: values for named, values in files.items() if values[1] is not None}
    if image_size is not None and len(given) < 2:
        return  # a single one is tried where it is used, which is soon
    faults: dict[str, SalnError] = {}
    for named, (name, file, size) in given.items():
        try:
            if image_size is None:
                read_weights(as_path(file, named))
            else:
                build_network(name, image_size=size, pretrained=False, weights=file, named=named)
        except SalnError as error:
            faults[named] = error
    if len(faults) == 1:
        raise next(iter(faults.values()))
    if faults:
        lines = (f"{parameter(named)}: {first_line(error)}" for named, error in faults.items())
        raise InputError("; and ".join(lines))


def candidates_of_step(config: Config) -> int:
    """The most candidates that a step has."""
    if all(arm.keeps_all for arm in config.arms):
        return config.batch_size
    return config.filter_schedule().candidates(config.batch_size)


def make_inputs(
    config: Config, data: DataSet, image_size: int, device: torch.device, reporter: Reporter
) -> SharedInputs:
    """Computes, or finds in the cache, what the arms choose by; raises as that does."""
    # A backbone may take a download, so none is built that no arm asks for.
    if not any(arm.needs_features for arm in config.arms):
        return SharedInputs(data)
    network = named_backbone(
        config.backbone, image_size, size=config.feature_size, weights=config.backbone_weights
    )
    # The reference part too, so that the store serves comparisons with and without it.
    pool = data.train_and_reference
    computed = FeatureProgress(reporter, f"features: {config.backbone} at {network.image_size} px")
    store = extract_features(
        pool,
        network,
        name=config.dataset,
        cache_dir=config.cache_dir.expanduser(),
        device=device,
        workers=config.workers,
        progress=computed,
    )
    if computed.rows == 0:
        reporter.note(f"features: reused {store.path}")
    # The store holds the pool in order; the arms see the part that trains no reference model.
    rows = np.searchsorted(pool.rows, data.train.rows)
    neighbors = None
    if any(arm.judge == "neighbors" or "neighbors" in arm.requires for arm in config.arms):
        # Among the examples that the arms see: the reference model's part must not vote.
        neighbors = neighbor_table(store, NEIGHBORS, rows=rows if len(rows) < len(pool) else None)
    return SharedInputs(data, StoredRows(store, rows), neighbors, store.seconds)
