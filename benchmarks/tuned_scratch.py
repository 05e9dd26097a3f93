"""A small residual network from scratch on CIFAR-10: every arm at its own best learning rate.

    python benchmarks/tuned_scratch.py FOLDER --prepare                   once, where the data are
    python benchmarks/tuned_scratch.py FOLDER --rows rows.jsonl --device cuda --processes 15
    python benchmarks/tuned_scratch.py FOLDER --rows rows.jsonl --table   the table alone

10,240 images, filter ratio 0.8, 64 kept of 320 candidates, one-cycle, Nesterov, weight decay, flips
and shifts by up to 4 pixels. An arm is a selector, what the loss compares the output with, and a
loss. For every arm and kind of noise the learning rate with the best accuracy on 2,500 validation
images is chosen on seeds of its own; then it is trained with the other seeds and tested once, on
5,000 other images. ``standard`` trains on all examples, five times the steps; with a fifth of the
epochs it would be ``uniform``. A row is written as its run ends; a study that was stopped goes
on where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from evidence_tables.tuned import FINAL, TUNING, study_table
from gpu_lanes import (
    SHIFT,
    Lane,
    Pictures,
    Training,
    augmentation_codes,
    run_lanes,
    steps_per_second,
)
from scratch_plans import KEPT, ORACLE, Beliefs, Noise, Setup, make_plans, prepare
from small_network import small_network
from torch import Tensor
from torch.nn.functional import one_hot
from tuned_study import Cell, Job, Point, Row, Study, StudyArm, as_noises, as_seeds, store, stored

from saln.experiments.environment import environment
from saln.randomness import derive_generator
from saln.selection import candidates_needed

__all__ = ["ARMS", "ScratchStudy", "targets_of", "train_all"]

WEIGHT_DECAY = 5e-4
RATES = (0.02, 0.05, 0.1, 0.2, 0.4)
TESTED = ("test_accuracy", "test_loss")
NOISES = (("clean", 0.0), ("symmetric", 0.4), ("pair-flips", 0.4))
CURRICULUM = "balanced-curriculum"

# The smaller shares of soft targets; without a word of shares they are 0.7 and 0.3.
SOFTER = "+targets(beliefs=0.3,features=0.3)"
ARMS = (
    "standard",
    "standard+targets",
    "uniform",
    "uniform+gce",
    "uniform+smoothing",
    "uniform+targets",
    f"uniform{SOFTER}",
    CURRICULUM,
    f"{CURRICULUM}{SOFTER}",
    f"{CURRICULUM}(power=1)",
    f"{CURRICULUM}(power=1)+targets",
    "coherence",
    "coherence(judge=neighbors)",
    "coherence+targets",
    ORACLE,
)
# Tried on seeds of their own, to see what a hyperparameter does; never in a table of results.
SEARCH = tuple(
    f"{CURRICULUM}{values}+targets{shares}"
    for values in (
        *("(power=1)", "(power=1,strength=2)", "(power=1,strength=0.5)", "(power=2)", ""),
        "(power=1,pace=2)",
    )
    for shares in (
        *("", "(beliefs=0.5,features=0.3)", "(beliefs=0.3,features=0.3)"),
        *("(beliefs=0.5,features=0.5)", "(beliefs=1,features=0)"),
    )
)


def targets_of(arm: StudyArm, known: Beliefs) -> Tensor:
    """What the loss of an arm compares the outputs with: float32, (n, C); rows sum to 1."""
    classes = known.posterior.shape[1]
    given = one_hot(torch.from_numpy(known.labels), classes).float()
    said = arm.about()
    rest = 1 - said["beliefs"] - said["features"] - said["smoothing"]
    targets: Tensor = rest * given + said["smoothing"] / classes
    targets += said["beliefs"] * torch.from_numpy(known.posterior)
    targets += said["features"] * torch.from_numpy(known.leave_one_out)
    targets /= targets.sum(dim=1, keepdim=True)  # half precision left them a little off
    return targets


def one_cycle(steps: int, highest: float) -> Tensor:
    """Learning rates, (steps,): as the library's ``onecycle``."""
    done = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    factors = torch.where(done < 0.25, done / 0.25, (1 - done) / 0.75 + 1e-3)
    return (highest * factors).float()


class ScratchStudy(Study):
    """A study of networks from scratch.

    Args:
        setup: The prepared folder.
        width: Of the network.
        epochs: Passes over the candidates, at most those that were planned.
        until: When no more runs are begun, by ``time.perf_counter``.
        **about: Of every study.

    Attributes:
        planned: Labels whose plans are there; others are not trained on yet.
    """

    def __init__(
        self, setup: Setup, width: int, epochs: int, until: float = float("inf"), **about: Any
    ) -> None:
        super().__init__(**about)
        self.setup, self.width, self.epochs, self.until = setup, width, epochs, until
        self.true_labels = setup.images()["train"].labels
        self.planned: set[Noise] = set()
        self._begun: set[Job] = set()
        self._fruitless = (-1, -1)

    def next(self) -> Job | None:
        """The next run, which counts as begun."""
        state = (len(self.rows), len(self.planned))
        # Nothing new can be begun before a run ends or another plan is there.
        if time.perf_counter() > self.until or state == self._fruitless:
            return None
        jobs = [job for job in self.jobs() if job not in self._begun and job.noise in self.planned]
        if not jobs:
            self._fruitless = state
            return None
        # What is long would else be trained alone at the end; what decides goes before the rest.
        first = min(jobs, key=lambda job: (bool(job.cell.filter_ratio), job.stage == FINAL))
        self._begun.add(first)
        return first

    def training(self, job: Job) -> Training:
        """A run, as a lane wants it."""
        arm = self.arms[job.arm]
        rows = torch.from_numpy(self.setup.plan(job.noise, arm.selector, self.epochs).rows)
        # By epoch and example: all arms of a seed see an example changed in the same way.
        per_epoch = len(rows) // self.epochs
        beliefs = _beliefs(self.setup, job.noise)
        codes = [
            augmentation_codes(
                len(beliefs.labels), derive_generator(job.seed, "augmentation", epoch)
            )[rows[epoch * per_epoch : (epoch + 1) * per_epoch]]
            for epoch in range(self.epochs)
        ]
        return Training(
            rows, torch.cat(codes), targets_of(arm, beliefs),
            one_cycle(len(rows), job.point.learning_rate), arm.about()["robust"],
            _start(beliefs.posterior.shape[1], self.width, job.seed),
        )  # fmt: skip

    def row(self, job: Job, found: list[float], seconds: float) -> Row:
        """What is written of a run that has ended."""
        plan = self.setup.plan(job.noise, self.arms[job.arm].selector, self.epochs)
        wrong = _beliefs(self.setup, job.noise).labels != self.true_labels
        tested = {} if job.stage == TUNING else dict(zip(TESTED, found[3:], strict=True))
        return {
            **self.about(job),
            "train_images": len(wrong),
            "noise_rate": float(wrong.mean()),
            "epochs": self.epochs,
            "steps": len(plan.rows),
            "width": self.width,
            "train_loss": found[0],
            "validation_accuracy": found[1],
            **tested,
            "wrong_label_share_kept": float(wrong[plan.rows].mean()),
            "choosing_ms_per_step": round(1000 * plan.seconds / len(plan.rows), 3),
            "seconds": round(seconds, 2),
        }


@lru_cache(maxsize=64)
def _beliefs(setup: Setup, noise: Noise) -> Beliefs:
    return setup.beliefs(noise)


@lru_cache(maxsize=64)
def _start(classes: int, width: int, seed: int) -> dict[str, Tensor]:
    return small_network(classes, width, seed).state_dict()


def _make_lanes(study: ScratchStudy, train: Pictures, count: int) -> list[Lane]:
    """Lanes for the longest run that is to come, captured."""
    values = train.images.float().flatten(0, 2)
    normalization = (values.mean(dim=0), values.std(dim=0))
    ratio = min(cell.filter_ratio for _, cell in study.wanted)
    most = study.epochs * (len(train.images) // candidates_needed(KEPT, ratio))
    classes = int(train.labels.max()) + 1
    lanes = []
    for _ in range(count):
        lane = Lane(
            small_network(classes, study.width, 0), train, kept=KEPT, most_steps=most,
            n_classes=classes, weight_decay=WEIGHT_DECAY, normalization=normalization,
        )  # fmt: skip
        lane.half = True
        lane.capture()
        lanes.append(lane)
    return lanes


def _fastest(lanes: list[Lane]) -> list[Lane]:
    """As many of the lanes as take the most steps a second: too many get in each other's way."""
    counts = [2**power for power in range(len(lanes).bit_length())]
    speeds = {count: steps_per_second(lanes[:count]) for count in counts}
    for count, speed in speeds.items():
        print(f"{count} lanes: {speed:.0f} steps per second", flush=True)
    return lanes[: max(speeds, key=lambda count: speeds[count])]


@contextlib.contextmanager
def planning(study: ScratchStudy, processes: int) -> Iterator[Callable[[], bool]]:
    """Makes plans in processes of their own while others are trained on.

    Gives a function that notes which are there, and says whether some are still to come.
    """
    selectors = list(dict.fromkeys(arm.selector for arm in study.arms.values()))
    noises = dict.fromkeys((cell.noise, cell.rate) for _, cell in study.wanted)
    wanted = [
        Noise(*noise, seed) for seed in (*study.tuning_seeds, *study.seeds) for noise in noises
    ]
    asked = partial(make_plans, study.setup.folder, selectors=selectors, epochs=study.epochs)
    if not processes:
        study.planned.update(map(asked, wanted))
        yield lambda: False
        return
    # A process that forks after CUDA was used cannot use it.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        futures = [pool.submit(asked, noise) for noise in wanted]

        def is_planning() -> bool:
            study.planned.update(future.result() for future in futures if future.done())
            return len(study.planned) < len(wanted)

        yield is_planning


def train_all(
    study: ScratchStudy, path: Path, device: torch.device, lanes: int, processes: int
) -> None:
    """Trains what has no row yet; rows are written as they are made."""
    started = time.perf_counter()
    torch.backends.cudnn.benchmark = True

    def begin() -> tuple[Job, Training, list[Pictures]] | None:
        is_planning()
        job = study.next()
        if job is None:
            return None
        # What decides about learning rates has not seen the test images, nor have they been seen.
        measured = ["validation"] if job.stage == TUNING else ["validation", "test"]
        return job, study.training(job), [parts[name] for name in measured]

    def end(job: Job, found: list[float], seconds: float) -> None:
        row = study.row(job, found, seconds)
        study.add(row)
        store(path, row)
        rate = job.point.learning_rate
        what = f"{job.stage} {job.arm} {job.noise.name} {rate:g}: {100 * found[1]:.1f}"
        print(f"{len(study.rows)} {time.perf_counter() - started:.0f} s: {what}", flush=True)

    with planning(study, processes) as is_planning:
        parts = {
            name: Pictures.of(
                torch.from_numpy(part.images), torch.from_numpy(part.labels), device,
                SHIFT if name == "train" else 0,
            )
            for name, part in study.setup.images().items()
        }  # fmt: skip
        pool = _make_lanes(study, parts["train"], lanes)
        pool = _fastest(pool) if device.type == "cuda" else pool
        print(f"{len(pool)} lanes after {time.perf_counter() - started:.1f} s", flush=True)
        while is_planning():
            run_lanes(pool, begin, end)
            time.sleep(0.05)
        run_lanes(pool, begin, end)


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def main() -> None:
    """Prepares or trains, and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=Path, default=Path("tuned-scratch.jsonl"))
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--table", action="store_true", help="train nothing")
    parser.add_argument("--search", action="store_true", help="the arms of the search")
    parser.add_argument("--arms", help="with semicolons between; all by default")
    parser.add_argument("--noises", default=",".join(f"{kind}:{rate:g}" for kind, rate in NOISES))
    parser.add_argument("--rates", type=_numbers, default=list(RATES))
    parser.add_argument("--tuning-seeds", type=as_seeds, default=[100])
    parser.add_argument("--seeds", type=as_seeds, default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--lanes", type=int, default=16, help="at most")
    parser.add_argument("--processes", type=int, default=0, help="make plans beside the training")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data-root", type=Path, default=Path("../data"))
    parser.add_argument("--cache", type=Path, default=Path("features"))
    args = parser.parse_args()
    arms = args.arms.split(";") if args.arms else SEARCH if args.search else ARMS
    if args.prepare:
        prepare(args.folder, args.data_root, args.cache)
        return
    if not args.table:
        device = torch.device(args.device)
        until = time.perf_counter() + 60 * args.minutes
        study = ScratchStudy(
            Setup(args.folder), args.width, args.epochs, until,
            cells={Cell("cifar10", *noise): arms for noise in as_noises(args.noises)},
            grid=[Point(rate, WEIGHT_DECAY) for rate in args.rates],
            tuning_seeds=args.tuning_seeds, seeds=args.seeds, rows=stored(args.rows),
        )  # fmt: skip
        store(args.rows, {"environment": environment(device)})
        train_all(study, args.rows, device, args.lanes, args.processes)
    print(study_table(stored(args.rows)))


if __name__ == "__main__":
    main()
