"""Where the time of each preset of `saln compare` goes, and what limits it.

    python benchmarks/bottlenecks.py --data-root ../data            a table
    python benchmarks/bottlenecks.py --data-root ../data --json     one JSON object a line
    python benchmarks/bottlenecks.py --presets study,photos --compile

The parts of a preset's own comparison are measured for some batches: an image is read and
augmented, a batch trained on, a batch put through the network without gradients. The counts of its
arms, epochs and evaluations make a whole run of one seed of that, on one thread, with as many
images as the preset has; choosing before loading and what is made once (features, reference models)
are left out. ``--compile`` trains with torch.compile, too. Weights are random, which costs the
same.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from evidence_tables.scale import bottlenecks_table
from torch.profiler import ProfilerActivity, profile

from saln.experiments import Config, load_preset
from saln.experiments.comparison import Comparison
from saln.experiments.config import preset_names
from saln.experiments.environment import environment
from saln.experiments.evaluation import KEPT_BYTES, TRAIN_LIMIT
from saln.loading.network_outputs import scoring
from saln.randomness import seeded_globally
from saln.training.loop import cast_to
from saln.training.processes import ALONE

__all__ = ["measured", "whole_run"]

# Where data sets lie that presets name otherwise, or leave to be given.
DATASETS = {"cifar10": "hf:{}/cifar10", "folder:photos": "oxford-pet"}
IMAGES = 48
Row = dict[str, Any]


class _Silent:
    """A reporter that tells nobody."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *values: None


def _seconds(work: Callable[[], object], rounds: int = 3) -> float:
    """Processor seconds of the fastest of some rounds, after one that nobody counts."""
    found = []
    for _ in range(rounds + 1):
        started = time.process_time()  # of one thread, so that a busy machine changes little
        work()
        found.append(time.process_time() - started)
    return min(found[1:])


def _comparison(preset: str, data_root: Path, **changes: Any) -> Comparison:
    config = load_preset(preset)
    dataset = DATASETS.get(config.dataset, config.dataset).format(data_root)
    same: dict[str, Any] = {"dataset": dataset, "data_root": data_root, "pretrained": False}
    config = dataclasses.replace(config, **same, tune=0, device="cpu", seeds=(0,), **changes)
    return Comparison(config, _Silent(), torch.device("cpu"), ALONE)


def _train(comparison: Comparison, images: torch.Tensor) -> Callable[[], None]:
    """A training step as the loop takes it, on the same batch each time."""
    config, body = comparison.config, comparison.first_body
    learner = comparison.fresh(comparison.first_learner).train()
    optimizer = torch.optim.SGD(learner.parameters(), lr=1e-6, momentum=0.9)
    labels = torch.zeros(len(images), dtype=torch.int64)

    def step() -> None:
        with seeded_globally("bottlenecks"), cast_to(comparison.device, config.autocast):
            outputs = learner(images if body is None else body(images)).float()
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(outputs, labels).backward()
        optimizer.step()

    return step


def measured(preset: str, data_root: Path, with_compile: bool = False) -> Row:
    """Seconds of a preset's parts, for one image or one step, and the counts of its data.

    Args:
        preset: Its name.
        data_root: Folder that holds ``oxford-iiit-pet`` and ``cifar10``.
        with_compile: Measure a compiled step, too, which takes a minute.

    Raises:
        SalnError: The data are not there.
    """
    comparison = _comparison(preset, data_root)
    config, data, size = comparison.config, comparison.data, comparison.image_size
    rows = range(min(IMAGES, len(data.train)))
    view = comparison.training_view(data.train, 0)
    decode = _seconds(lambda: [data.train.images.load(int(data.train.rows[i])) for i in rows])
    load = _seconds(lambda: [view[i] for i in rows])
    images = torch.rand(config.batch_size, 3, size, size, generator=torch.Generator())
    step = _train(comparison, images)
    train = _seconds(step)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        step()
    operations = sorted(seen.key_averages(), key=lambda each: -each.self_cpu_time_total)
    whole = sum(each.self_cpu_time_total for each in operations)
    learner, body = comparison.fresh(comparison.first_learner), comparison.first_body
    part = images[: max(4, min(16, 16 * 96**2 // size**2))]
    with scoring(learner):
        forward = _seconds(lambda: learner(part if body is None else body(part))) / len(part)
    row: Row = {
        "preset": preset,
        "learner": config.learner + (", last layer" if config.head_only else ""),
        "image_size": size,
        "batch_size": config.batch_size,
        "images": {"train": len(data.train), "measured": _measured_images(comparison)},
        "seconds": {
            "decode": decode / len(rows), "load": load / len(rows), "step": train,
            "forward": forward,
        },
        "operations": {
            each.key: round(each.self_cpu_time_total / whole, 3) for each in operations[:3]
        },
    }  # fmt: skip
    if with_compile and not config.head_only:
        started = time.perf_counter()
        compiled = _train(_comparison(preset, data_root, compile=True), images)
        compiled()
        row["compiled"] = {"start": time.perf_counter() - started, "step": _seconds(compiled, 8)}
        row["compiled"]["plain_step"] = _seconds(step, 8)
    return {**row, **whole_run(row, config)}


def _measured_images(comparison: Comparison) -> dict[str, int]:
    data = comparison.data
    counts = {"validation": len(data.validation), "test": len(data.test)}
    return {"train": min(TRAIN_LIMIT, len(data.train)), **counts}


def whole_run(row: Row, config: Config) -> Row:
    """Seconds of all arms of a seed by phase, of what :func:`measured` gives."""
    cost, k, n_train = row["seconds"], config.batch_size, row["images"]["train"]
    every = config.epochs * (n_train // k)
    chosen = config.filter_schedule().steps(n_train, k)
    looks = -(-config.epochs // config.evaluate_every)
    found: dict[str, float] = dict.fromkeys(("load", "score", "train", "evaluate"), 0.0)
    for arm in config.arms:
        scored = any(name.startswith("learner_") for name in arm.requires)
        steps = every if arm.keeps_all else chosen
        loaded = k * every if arm.keeps_all or scored else k * chosen
        found["load"] += loaded * cost["load"]
        found["score"] += loaded * cost["forward"] if scored else 0.0
        found["train"] += steps * cost["step"]
        for count in row["images"]["measured"].values():
            # Images that fit are read once for all arms; what a frozen body says of them, too.
            fits = count * 12 * row["image_size"] ** 2 <= KEPT_BYTES or config.head_only
            reads = looks if not fits else float(arm is config.arms[0])
            passes = float(arm is config.arms[0]) if config.head_only else looks
            found["evaluate"] += count * (reads * cost["load"] + passes * cost["forward"])
    return {"arms": len(config.arms), "evaluations": looks, "run": found}


def main() -> None:
    """Measures every preset and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-root", type=Path, default=Path("../data"))
    parser.add_argument("--presets", default=",".join(preset_names()))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.json:
        about = {"environment": environment(torch.device("cpu"))}
        print(json.dumps(about), flush=True)
    rows = []
    for preset in args.presets.split(","):
        rows.append(measured(preset, args.data_root, args.compile))
        if args.json:
            print(json.dumps(rows[-1]), flush=True)
    if not args.json:
        sys.stdout.write(bottlenecks_table(rows) + "\n")


if __name__ == "__main__":
    main()
