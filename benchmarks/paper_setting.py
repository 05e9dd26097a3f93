"""The paper's comparison as it was published: its arms beside a random choice, and no arm tuned.

    python benchmarks/paper_setting.py --dataset pets --data-root ../data --out runs/paper
    python benchmarks/study.py runs/paper/pets-* --rows results/paper-setting-pets.jsonl

A pretrained network whose last layer is trained, 25 epochs, SGD with rate 0.001 and momentum
0.9, the paper's augmentation. An augmented image depends on (seed, epoch, example) alone, and
the layers below the last are frozen: so what they make of it is computed once, and every arm and
filter ratio reads it. Each arm is charged, for every image that it reads, the
seconds that loading it and its pass through the frozen layers took; choosing, the last layer
and everything else are timed as they happen. The accuracies are those of
`saln compare --head-only`.

Each filter ratio becomes a run folder below ``--out``; with more ``--seeds`` than before, or after
a kill, finished ones are kept. ``--cache`` holds what was computed.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from saln.data import Examples
from saln.data.torch_datasets import Batch, EvaluationView, TrainingView, collate, raise_broken
from saln.data.transforms import Normalization
from saln.errors import SalnError
from saln.experiments import Config, compare, load_preset
from saln.experiments.arm import Arm
from saln.experiments.comparison import Comparison, SharedBySeed
from saln.experiments.evaluation import Measuring
from saln.experiments.reference_model import Reference
from saln.experiments.reporter import Reporter
from saln.experiments.rows import EpochRow
from saln.experiments.run_folder import read_settings
from saln.experiments.shared_inputs import SharedInputs
from saln.files import write_with
from saln.loading.epoch_batches import EpochBatches, LoadedBatches, ScoredBatches
from saln.randomness import derive_seed
from saln.training import Ledger, build_head
from saln.training.learner_networks import FrozenBody

__all__ = ["RATIOS", "StoredComparison", "main", "settings"]

RATIOS = (0.8, 0.5, 0.9)
METHODS = ("standard", "uniform", "saln", "jest")
# Images that are made at once; their seconds are shared out equally.
CHUNK = 16


class Made(NamedTuple):
    """What the frozen layers make of images, and what it took.

    Attributes:
        outputs: float32, (n, width).
        load_seconds: float64, (n,): reading and augmenting.
        body_seconds: float64, (n,): the pass through the frozen layers.
    """

    outputs: NDArray[np.float32]
    load_seconds: NDArray[np.float64]
    body_seconds: NDArray[np.float64]


def make(view: TrainingView | EvaluationView, body: FrozenBody, path: Path) -> Made:
    """Puts all images of a view through the frozen layers; reads the file if it is there."""
    if not path.exists():
        outputs: list[Tensor] = []
        seconds: list[tuple[float, float]] = []
        loader = DataLoader(view, batch_size=CHUNK, collate_fn=collate, generator=torch.Generator())
        batches = raise_broken(loader)
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                break
            loaded = time.perf_counter()
            outputs.append(body(batch.images))
            ended = time.perf_counter()
            count = len(batch.images)
            seconds += [((loaded - started) / count, (ended - loaded) / count)] * count
        table = np.array(seconds).reshape(-1, 2)

        def write(beside: Path) -> None:
            with beside.open("wb") as stream:
                np.save(stream, torch.cat(outputs).numpy())
                np.save(stream, table)

        write_with(path, write)
    with path.open("rb") as stream:
        stored, table = np.load(stream), np.load(stream)
    return Made(stored, table[:, 0], table[:, 1])


class StoredView(Dataset[Any]):
    """Examples as the last layer sees them; who reads one is charged for it.

    Args:
        made: Gives an epoch's outputs.
        rows: int64, (n,): where the examples are in them.
        labels: int64, (n,).
        charge: Given the seconds of loading and of the frozen layers at each reading.
    """

    def __init__(
        self,
        made: Callable[[int], Made],
        rows: NDArray[np.int64],
        labels: NDArray[np.int64],
        charge: Callable[[float, float], None],
    ) -> None:
        self.made = made
        self.rows = rows
        self.labels = labels
        self.charge = charge
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Makes the next examples those of the given epoch; 0: without augmentation."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        made, row = self.made(self.epoch), self.rows[index]
        self.charge(float(made.load_seconds[row]), float(made.body_seconds[row]))
        return torch.from_numpy(made.outputs[row]), int(self.labels[index]), index


class StoredMeasuring(Measuring):
    """Measures heads on all stored outputs of a split at once."""

    def _batches(self, name: str, part: Examples, body: FrozenBody | None) -> list[Batch]:
        view: Any = self.view(part)
        outputs = torch.from_numpy(view.made(0).outputs[view.rows])
        labels = torch.from_numpy(part.labels)
        return [Batch(outputs, labels, torch.arange(len(labels)))] if len(labels) else []


class StoredComparison(Comparison):
    """A comparison of last layers whose images went through the frozen layers before.

    Args:
        cache: Where what they gave is kept.
    """

    def __init__(self, *args: Any, cache: Path) -> None:
        self.cache = cache
        self.before = 0.0
        self.evaluated: dict[str, Made] = {}
        super().__init__(*args)
        self.measuring = StoredMeasuring(
            self.evaluation_view, self.config.split_seed, self.device, 0, self.processes
        )

    def _build_learner(self, seed: int) -> tuple[nn.Module, Normalization, FrozenBody | None]:
        head, self.frozen = build_head(
            self.config.learner,
            len(self.data.class_names),
            image_size=self.image_size,
            pretrained=self.config.pretrained,
            seed=seed,
        )
        network = self.frozen.network
        images = derive_seed(*(part.fingerprint() for part in self._evaluated().values()))
        self.folder = self.cache / f"{images:016x}-{network.identity()}-{self.image_size}"
        return head, network.normalization, None

    def warm_up(self) -> None:
        """The last layer alone has nothing to warm up."""

    def _count_before(self, load: float, body: float) -> None:
        self.before += load + body

    def training_view(self, examples: Examples, seed: int) -> Any:
        """Examples as they were augmented and put through the frozen layers."""
        rows = np.searchsorted(self.data.train_and_reference.rows, examples.rows)
        made = functools.lru_cache(maxsize=2)(functools.partial(self._epoch, seed))
        return StoredView(made, rows, examples.labels, self._count_before)

    def _epoch(self, seed: int, epoch: int) -> Made:
        view = super().training_view(self.data.train_and_reference, seed)
        view.set_epoch(epoch)
        return make(view, self.frozen, self.folder / f"seed{seed}-epoch{epoch:03}.npy")

    def _evaluated(self) -> dict[str, Examples]:
        data = self.data
        return {
            "test": data.test, "validation": data.validation, "train": data.train_and_reference
        }  # fmt: skip

    def evaluation_view(self, examples: Examples) -> Any:
        """Examples as they were put through the frozen layers without augmentation."""
        name, whole = next(
            (name, part)
            for name, part in self._evaluated().items()
            if part.images is examples.images and np.isin(examples.rows, part.rows).all()
        )
        path = self.folder / f"{name}.npy"
        view = super().evaluation_view(whole)
        rows = np.searchsorted(whole.rows, examples.rows)

        def made(epoch: int) -> Made:
            if str(path) not in self.evaluated:
                self.evaluated[str(path)] = make(view, self.frozen, path)
            return self.evaluated[str(path)]

        return StoredView(made, rows, examples.labels, self._count_before)

    def seed(
        self,
        seed: int,
        inputs: SharedInputs,
        reference: Reference | None = None,
        arms: Sequence[Arm] | None = None,
    ) -> SharedBySeed:
        """As of the base class; a reference model is charged for the images that it reads."""
        # Whatever the frozen layers have to do is done before any clock runs.
        if seed != self.config.seeds[0]:
            self._build_learner(seed)
        for part in self._evaluated().values():
            if len(part):
                self.evaluation_view(part).made(0)
        for epoch in range(1, max(self.config.epochs, self.config.reference_epochs or 0) + 1):
            self.reporter.note(f"outputs of the frozen layers: seed {seed}, epoch {epoch}")
            self._epoch(seed, epoch)
        self.before = 0.0
        shared = super().seed(seed, inputs, reference, arms)
        if reference is None and shared.reference is not None:
            seconds = shared.reference.seconds + self.before
            shared = dataclasses.replace(
                shared, reference=shared.reference._replace(seconds=seconds)
            )
        return shared

    def batches(
        self, arm: Arm, shared: SharedBySeed, learner: nn.Module, ledger: Ledger
    ) -> EpochBatches:
        """As of the base class; the arm is charged for the images that it reads."""
        batches = super().batches(arm, shared, learner, ledger)
        use, loaded = "train", batches
        if isinstance(batches, ScoredBatches):
            use, loaded = "score", batches.selected.batches  # type: ignore[assignment]
        assert isinstance(loaded, LoadedBatches)

        def charge(load: float, body: float) -> None:
            ledger.charge("load", load)
            ledger.charge(use, body)

        loaded.view.charge = charge  # type: ignore[attr-defined]
        return batches


def settings(args: argparse.Namespace, ratio: float) -> Config:
    """The settings at a filter ratio."""
    preset = {"pets": "offline-oxford-pet", "cifar10": "offline-cifar10"}[args.dataset]
    out = args.out / f"{args.dataset}-clean-f{ratio:g}"
    config = dataclasses.replace(
        load_preset(preset),
        data_root=args.data_root,
        methods=METHODS,
        head_only=True,
        evaluate_every=1,
        reference_epochs=args.epochs,
        epochs=args.epochs,
        filter_ratio=ratio,
        label_noise=0.0,
        seeds=args.seeds,
        threads=args.threads,
        cache_dir=args.cache,
        out=out,
        resume=(out / "config.json").exists(),
    )
    if args.dataset == "cifar10":
        spec = f"hf:{args.data_root.resolve() / 'cifar10'}"
        config = dataclasses.replace(config, dataset=spec, limit=args.limit)
    return config


class _Lines:
    """A reporter that prints what happens between the epochs."""

    def note(self, text: str) -> None:
        print(text, flush=True)

    def begin(self, what: str, total: int) -> None:
        print(f"{what}: {total:,} examples", flush=True)

    def advance(self, examples: int) -> None:
        pass

    def epoch(self, row: EpochRow, epochs: int) -> None:
        pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every filter ratio, seed by seed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", choices=("pets", "cifar10"), required=True)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="the folder of the runs")
    parser.add_argument("--cache", type=Path, default=Path("cache"), help="default %(default)s")
    parser.add_argument("--seeds", default="0,1,2", help="default %(default)s")
    parser.add_argument("--epochs", type=int, default=25, help="default %(default)s")
    parser.add_argument("--limit", type=int, default=5000, help="images of CIFAR-10, at most")
    parser.add_argument("--threads", type=int, default=1, help="default %(default)s")
    args = parser.parse_args(arguments)
    seeds = tuple(int(text) for text in args.seeds.split(","))
    reporter: Reporter = _Lines()
    parts: Any = functools.partial(StoredComparison, cache=args.cache)
    for count in range(1, len(seeds) + 1):  # so that every filter ratio has the same seeds soon
        args.seeds = seeds[:count]
        for ratio in RATIOS:
            config = settings(args, ratio)
            begun = read_settings(config.out).seeds if config.resume and config.out else ()
            if len(begun) > count and begun[:count] == args.seeds:
                continue  # it has these, and goes on with its own further ones below
            try:
                compare(config, reporter, parts)
            except SalnError as error:
                print(f"paper_setting.py: error: {error}", file=sys.stderr)
                return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
