"""Whole networks, every arm at its own best learning rate: from scratch, or fine-tuned.

    python benchmarks/tuned_scratch.py FOLDER --prepare --setting NAME    once, where the data are
    python benchmarks/tuned_scratch.py FOLDER --rows rows.jsonl --device cuda --processes 15
    python benchmarks/tuned_scratch.py FOLDER --rows rows.jsonl --table   the table alone

The settings: ``cifar10``, 10,240 images, and ``cifar10-all``, 50,000, a small residual network from
scratch; ``pets-64``, the same network on pets at 64 px; ``pets-fine-tune``, all layers of
EfficientNet-Lite0 from its ImageNet weights, at 96 px. 64 are kept a step, of 320 candidates at the
usual filter ratio of 0.8; one-cycle, Nesterov, weight decay, flips and shifts by up to an eighth of
an image. An arm is a selector, what the loss compares the output with, and a loss. For every arm
and kind of noise the learning rate with the best accuracy on validation images is chosen on seeds
of its own; then it is trained with the other seeds and tested once, on other images. ``standard``
trains on all examples, five times the steps; with a fifth of the epochs it would be ``uniform``. A
row is written as its run ends; a study that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from evidence_tables.tuned import FINAL, RULE, TUNING, study_table
from gpu_lanes import (
    SHIFT,
    Lane,
    Pictures,
    Training,
    augmentation_codes,
    run_lanes,
    shift_unit,
    steps_per_second,
)
from scratch_plans import (
    FILTER_RATIO,
    KEPT,
    Beliefs,
    Noise,
    Plan,
    Selectors,
    Setup,
    make_plans,
)
from study_networks import LITE0, pretrained_lite0, small_network
from study_settings import SETTINGS, Setting, prepare
from torch import Tensor, nn
from torch.nn.functional import one_hot
from tuned_arms import ARM_LISTS, SOFTER
from tuned_study import Cell, Job, Point, Row, Study, StudyArm, as_noises, as_seeds, store, stored

from saln.experiments.environment import environment
from saln.randomness import derive_generator
from saln.selection import candidates_needed

__all__ = ["SOFTER", "ScratchStudy", "targets_of", "train_all"]

WEIGHT_DECAY = 5e-4
PACED_STEPS = 96
TESTED = ("test_accuracy", "test_loss")
NOISES = (("clean", 0.0), ("symmetric", 0.4), ("pair-flips", 0.4))


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
    """A study of whole networks.

    Args:
        setup: The prepared folder.
        width: Of the small network.
        epochs: Passes over the candidates.
        until: When the last run must have ended, by ``time.perf_counter``.
        **about: Of every study.

    Attributes:
        planned: Labels whose plans are there; others are not trained on yet.
        pace: Steps a second of one lane, as far as it is known.
        finished: Runs that ended here.
    """

    def __init__(
        self, setup: Setup, width: int, epochs: int, until: float = float("inf"), **about: Any
    ) -> None:
        super().__init__(**about)
        self.setup, self.width, self.epochs, self.until = setup, width, epochs, until
        self.setting: Setting = SETTINGS[setup.setting()]
        self.true_labels = setup.true_labels()
        self.classes = int(self.true_labels.max()) + 1
        self.planned: set[Noise] = set()
        self.pace = float("inf")
        self.finished: list[Job] = []
        self._begun: set[Job] = set()
        self._fruitless = (-1, -1)

    def next(self) -> Job | None:
        """The next run that can end in time, which counts as begun."""
        state = (len(self.rows), len(self.planned))
        # Nothing new can be begun before a run ends or another plan is there.
        left = self.until - time.perf_counter()
        if left < 0 or state == self._fruitless:
            return None
        jobs = [
            job
            for job in self.jobs()
            if job not in self._begun
            and job.noise in self.planned
            and self.steps(job.cell) <= left * self.pace
        ]
        if not jobs:
            self._fruitless = state
            return None
        # What is long would else be trained alone at the end; what decides goes before the rest.
        first = min(
            jobs,
            key=lambda job: (
                self.wanted[job.arm, job.cell],
                bool(job.cell.filter_ratio),
                job.stage == FINAL,
            ),
        )
        self._begun.add(first)
        return first

    def steps(self, cell: Cell) -> int:
        """Of a run."""
        return self.epochs * (len(self.true_labels) // candidates_needed(KEPT, cell.filter_ratio))

    def training(self, job: Job) -> Training:
        """A run, as a lane wants it."""
        arm = self.arms[job.arm]
        rows = torch.from_numpy(self._plan(job).rows)
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
            self._start(job.seed),
        )  # fmt: skip

    def row(self, job: Job, found: list[float], seconds: float) -> Row:
        """What is written of a run that has ended."""
        plan = self._plan(job)
        wrong = _beliefs(self.setup, job.noise).labels != self.true_labels
        tested = {} if job.stage == TUNING else dict(zip(TESTED, found[3:], strict=True))
        return {
            **self.about(job),
            "train_images": len(wrong),
            "network": self.setting.network,
            "pixels": self.setting.pixels,
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

    def network(self, seed: int) -> nn.Module:
        """With its first weights."""
        if self.setting.network == LITE0:
            start = self.setup.folder / "start.npz"
            return pretrained_lite0(self.classes, self.setting.pixels, start, seed)
        return small_network(self.classes, self.width, seed)

    def _plan(self, job: Job) -> Plan:
        selector = self.arms[job.arm].selector
        return self.setup.plan(job.noise, selector, self.epochs, job.cell.filter_ratio)

    @functools.cache  # noqa: B019, a process has one study
    def _start(self, seed: int) -> dict[str, Tensor]:
        return self.network(seed).state_dict()


@lru_cache(maxsize=64)
def _beliefs(setup: Setup, noise: Noise) -> Beliefs:
    return setup.beliefs(noise)


def _make_lanes(study: ScratchStudy, train: Pictures, count: int) -> list[Lane]:
    """Lanes, captured for every loss of the study."""
    if study.setting.normalization is None:
        values = train.images.flatten(0, 2).float()
        normalization = (values.mean(dim=0), values.std(dim=0))
    else:
        mean, deviation = study.setting.normalization
        normalization = (torch.full((3,), mean), torch.full((3,), deviation))
    robust = sorted({arm.about()["robust"] for arm in study.arms.values()})
    lanes = []
    for _ in range(count):
        lane = Lane(
            study.network(0), train, size=study.setting.pixels, kept=KEPT,
            n_classes=study.classes, weight_decay=WEIGHT_DECAY, normalization=normalization,
            half=True,
        )  # fmt: skip
        lane.capture(robust)
        lanes.append(lane)
    return lanes


def _fastest(lanes: list[Lane], run: Training) -> tuple[list[Lane], dict[int, float]]:
    """The fewest lanes that take nearly the most steps a second: a run of few ends sooner."""
    steps_per_second(lanes[:1], run)
    counts = [2**power for power in range(len(lanes).bit_length())]
    speeds = {count: round(steps_per_second(lanes[:count], run), 1) for count in counts}
    for count, speed in speeds.items():
        print(f"{count} lanes: {speed:.0f} steps per second", flush=True)
    enough = min(count for count in counts if speeds[count] >= 0.95 * max(speeds.values()))
    return lanes[:enough], speeds


@contextlib.contextmanager
def planning(study: ScratchStudy, processes: int) -> Iterator[Callable[[], bool]]:
    """Makes plans in processes of their own while others are trained on.

    Gives a function that notes which are there, and says whether some are still to come.
    """
    wanted: dict[Noise, dict[float, list[str]]] = {}
    noises = dict.fromkeys((cell.noise, cell.rate) for _, cell in study.wanted)
    for noise in noises:
        selectors: dict[float, list[str]] = {}
        for arm, cell in study.wanted:
            if (cell.noise, cell.rate) == noise:
                selectors.setdefault(cell.filter_ratio, []).append(study.arms[arm].selector)
        own = {ratio: list(dict.fromkeys(names)) for ratio, names in selectors.items()}
        wanted |= {Noise(*noise, seed): own for seed in (*study.tuning_seeds, *study.seeds)}

    def asked(noise: Noise) -> tuple[Path, Noise, int, Selectors]:
        return study.setup.folder, noise, study.epochs, wanted[noise]

    if not processes:
        study.planned.update(make_plans(*asked(noise)) for noise in wanted)
        yield lambda: False
        return
    # A process that forks after CUDA was used cannot use it.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        futures = [pool.submit(make_plans, *asked(noise)) for noise in wanted]

        def is_planning() -> bool:
            study.planned.update(future.result() for future in futures if future.done())
            return len(study.planned) < len(wanted)

        try:
            yield is_planning
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


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
        study.finished.append(job)
        store(path, row)
        rate = job.point.learning_rate
        what = f"{job.stage} {job.arm} {job.noise.name} {rate:g}: {100 * found[1]:.1f}"
        print(f"{len(study.rows)} {time.perf_counter() - started:.0f} s: {what}", flush=True)

    with planning(study, processes) as is_planning:
        parts = {
            name: Pictures.of(
                torch.from_numpy(part.images), torch.from_numpy(part.labels), device,
                SHIFT * shift_unit(study.setting.pixels) if name == "train" else 0,
            )
            for name, part in study.setup.images(study.setting.pixels).items()
        }  # fmt: skip
        pool = _make_lanes(study, parts["train"], lanes)
        speeds: dict[int, float] = {}
        if device.type == "cuda":
            pool, speeds = _fastest(pool, _any_run(study))
            study.pace = speeds[len(pool)] / len(pool)
        print(f"{len(pool)} lanes after {time.perf_counter() - started:.1f} s", flush=True)
        while is_planning() and time.perf_counter() < study.until:
            run_lanes(pool, begin, end)
            time.sleep(0.05)
        run_lanes(pool, begin, end)
    if speeds:
        own = {"dataset": study.setup.setting(), "steps_per_second": speeds}
        store(path, {**own, "step_ms": _alone(study, pool[0])})


def _any_run(study: ScratchStudy) -> Training:
    """To measure the pace with, before there are plans."""
    count, steps = len(study.true_labels), PACED_STEPS
    rows = torch.randint(count, (steps, KEPT))
    aims = torch.full((count, study.classes), 1 / study.classes)
    rates = torch.full((steps,), 1e-3)
    return Training(rows, torch.zeros_like(rows), aims, rates, 0.0, study.network(0).state_dict())


def _alone(study: ScratchStudy, lane: Lane) -> dict[str, list[float]]:
    """Milliseconds of a step of one lane alone, of a random choice and of the rule, in turns."""
    known = [
        next((job for job in study.finished if job.arm == arm), None) for arm in ("uniform", RULE)
    ]
    runs = {job.arm: study.training(job) for job in known if job is not None}
    found: dict[str, list[float]] = {arm: [] for arm in runs}
    for _ in range(3):
        for arm, run in runs.items():
            found[arm].append(round(1000 / steps_per_second([lane], run), 4))
    return found


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _cells(args: argparse.Namespace, name: str) -> dict[Cell, Sequence[str]]:
    def arms(text: str) -> Sequence[str]:
        return ARM_LISTS.get(text) or text.split(";")

    if not args.cells:
        wanted = arms(args.arms)
        return {Cell(name, *noise, args.filter_ratio): wanted for noise in as_noises(args.noises)}
    found = {}
    for one in args.cells:
        kind, rate, ratio, wanted = one.split(":")
        cell = Cell(name, kind, float(rate), float(ratio))
        if cell in found:
            raise SystemExit(f"{one}: a cell twice; arms that keep everything may have 0")
        found[cell] = arms(wanted)
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=Path, default=Path("tuned-scratch.jsonl"))
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--setting", choices=SETTINGS, default="cifar10", help="to prepare")
    parser.add_argument("--table", action="store_true", help="train nothing")
    parser.add_argument("--plan", action="store_true", help="make plans, train nothing")
    parser.add_argument(
        "--arms", default="all", help=f"{', '.join(ARM_LISTS)}, or texts, ';' between"
    )
    parser.add_argument("--noises", default=",".join(f"{kind}:{rate:g}" for kind, rate in NOISES))
    parser.add_argument("--filter-ratio", type=float, default=FILTER_RATIO)
    parser.add_argument("--cells", nargs="+", help="KIND:RATE:FILTER-RATIO:ARMS, in their order")
    parser.add_argument("--rates", type=_numbers, help="those of the setting by default")
    parser.add_argument("--tuning-seeds", type=as_seeds, default=[100])
    parser.add_argument("--seeds", type=as_seeds, default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=int, help="those of the setting by default")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--lanes", type=int, default=16, help="at most")
    parser.add_argument("--processes", type=int, default=0, help="make plans beside the training")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="all must have ended")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data-root", type=Path, default=Path("../data"))
    parser.add_argument("--cache", type=Path, default=Path("features"))
    return parser.parse_args()


def main() -> None:
    """Prepares or trains, and prints the table."""
    args = _arguments()
    until = time.perf_counter() + 60 * args.minutes
    if args.prepare:
        prepare(args.folder, args.setting, args.data_root, args.cache)
        return
    if not args.table:
        device, setup = torch.device(args.device), Setup(args.folder)
        setting = SETTINGS[setup.setting()]
        rates, beyond = args.rates or setting.rates, () if args.rates else setting.beyond
        study = ScratchStudy(
            setup, args.width, args.epochs or setting.epochs, until,
            cells=_cells(args, setup.setting()),
            grid=[Point(rate, WEIGHT_DECAY) for rate in rates],
            beyond=[Point(rate, WEIGHT_DECAY) for rate in beyond],
            tuning_seeds=args.tuning_seeds, seeds=args.seeds, rows=stored(args.rows),
        )  # fmt: skip
        if args.plan:
            with planning(study, args.processes) as is_planning:
                while is_planning():
                    time.sleep(0.1)
            return
        store(args.rows, {"environment": environment(device)})
        train_all(study, args.rows, device, args.lanes, args.processes)
    print(study_table(stored(args.rows)))


if __name__ == "__main__":
    main()
