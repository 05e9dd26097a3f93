"""CIFAR-10 in seconds on one GPU, with the half to train on from a proxy, by chance, by our rule.

    python benchmarks/fast_cifar.py FOLDER --decode DATA         DATA/*.parquet -> cifar10.npz
    python benchmarks/fast_cifar.py FOLDER --judge features.npy  -> beliefs-NOISE.npz
    python benchmarks/fast_cifar.py FOLDER --rows rows.jsonl --device cuda

Network and recipe are in the manner of arXiv 2404.00498 (``fast_network.py``). Every step trains
on ``k`` = 1,024 examples; all arms but ``all`` choose them among ``k / (1 - f)`` candidates:

    random      by chance
    proxy-loss  those with the highest loss of a narrow network, as airbench96 does; it is trained
                before every run, and its seconds count (``seconds_before``)
    rule        ``balanced-curriculum`` with targets of the features
    targets     by chance, with the rule's targets: what the features give without choosing
    balanced    as the rule, with plain labels: what choosing gives without targets
    all         nothing is dropped: all examples, in as many steps
    longer      by chance, in as many steps as ``proxy-loss`` takes seconds, the proxy's included

``rule``, ``targets`` and ``balanced`` know features that were trained on ImageNet (EfficientNet-
Lite0 at 96 pixels, made once and not counted, as SALN presumes them); ``random``, ``proxy-loss``
and ``all`` have no such help. So it is ``targets`` that shows what the rule's choice gives. What
judging the labels by the features took is ``seconds_judging``; the choice runs on the CPU before
the training and is ``seconds_choosing``. ``seconds`` are those of the training on the GPU.

For every arm the learning rate (a multiple of the paper's, weight decay with it) is chosen on
seeds of its own, by the true labels of 5,000 training images that give no gradient there. Wrong
labels are the same ones in all runs. Arms go on side by side, seed by seed; a row is written as
its run ends; a script that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evidence_tables.fast import LONGER, PROXY, fast_table
from evidence_tables.tuned import FINAL, TUNING
from fast_lanes import FastLane, FastRun, ProxyLane
from fast_network import PIXELS, FastNetwork, flip_and_shift_codes, triangle, whitening
from fast_plans import (
    ARMS,
    LONGEST,
    FastJob,
    FastStudy,
    Planner,
    Settings,
    candidates_of,
    decode,
    judge,
    read_beliefs,
)
from gpu_lanes import Pictures
from scratch_plans import ALL, Noise, Plan
from torch import Tensor
from tuned_scratch import targets_of
from tuned_study import Row, as_noises, as_seeds, store, stored

from saln.experiments.environment import environment
from saln.selection import candidates_needed

__all__ = ["Track", "main", "run_job", "train_all"]

SMOOTHING = 0.2  # The paper's, on top of every arm's targets
VALIDATION = 5_000
WHITENED = 5_000  # Images that the filters are of
PROXY_SHARE = 4  # The network is so many times as wide


class Track:
    """Images, a network and a proxy on one device.

    Args:
        folder: Holds images and beliefs.
        settings: Of all runs.
        device: Where they are trained.
    """

    def __init__(self, folder: Path, settings: Settings, device: torch.device) -> None:
        self.folder, self.settings, self.device = folder, settings, device
        with np.load(folder / "cifar10.npz") as held:
            parts = {name: torch.from_numpy(held[name]) for name in held.files}
        images, labels = parts["train_images"], parts["train_labels"]
        self.true, self.classes = labels.numpy(), int(labels.max()) + 1
        train = Pictures.of(images, labels, device, PIXELS)
        self.test = Pictures.of(parts["test_images"], parts["test_labels"], device, 0)
        n = self.n = len(labels)
        held_out = np.random.Generator(np.random.PCG64(0)).permutation(n)
        self.held_out = torch.from_numpy(held_out[: min(VALIDATION, n // 10)])
        unseen, answers = images[self.held_out], labels[self.held_out]
        self.validation = Pictures.of(unseen, answers, device, 0)
        values = train.images.float().flatten(0, 2)
        normalization = (values.mean(dim=0), values.std(dim=0))
        first = (images[:WHITENED].to(device).float() - normalization[0]) / normalization[1]
        self.filters = whitening(first.permute(0, 3, 1, 2))
        self.per_pass = candidates_of(n, settings._replace(passes=1), 0).shape[1]
        self.steps = settings.passes * self.per_pass
        about: dict[str, Any] = {
            "train": train, "n_classes": self.classes, "normalization": normalization
        }  # fmt: skip
        candidates = candidates_needed(settings.batch, settings.filter_ratio)
        self.lane = FastLane(
            self._network(0), batch=settings.batch, most_steps=LONGEST * self.steps, **about
        )
        self.proxy = ProxyLane(
            self._network(0, PROXY_SHARE), batch=settings.batch, candidates=candidates,
            most_steps=self.steps, **about,
        )  # fmt: skip
        for lane in (self.lane, self.proxy):
            lane.capture()

    def _network(self, seed: int, share: int = 1) -> FastNetwork:
        return FastNetwork(self.classes, self.settings.width // share, seed, self.filters)

    def _synchronize(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _training(self, job: FastJob, rows: Tensor, network: FastNetwork, rates: Tensor) -> FastRun:
        """A run on the first rows of each pass and step, (passes, steps, b): one a rate."""
        passes = torch.arange(len(rows))[:, None, None]
        codes = flip_and_shift_codes(self.n, len(rows), job.seed)[passes, rows]
        targets = _targets(self.folder, job.noise, job.arm)
        if job.stage == TUNING:
            targets = targets.index_fill(0, self.held_out, 0.0)  # they give no gradient
        rows, codes = (part.flatten(0, 1)[: len(rates)] for part in (rows, codes))
        return FastRun(rows, codes, targets, rates, network.state_dict())

    def proxy_plan(self, job: FastJob) -> Plan:
        """What the proxy keeps, (passes, steps, k), and the seconds of its training."""
        rows = candidates_of(self.n, self.settings, job.seed)
        network = self._network(job.seed, PROXY_SHARE)
        run = self._training(job, rows, network, triangle(self.steps))
        started = self._synchronize()
        places = self.proxy.choose(run)
        seconds = self._synchronize() - started
        kept = rows.gather(2, places.cpu().reshape(*rows.shape[:2], -1))
        return Plan(kept.numpy(), seconds)

    def train(self, job: FastJob, plan: Plan, steps: int) -> Row:
        """Trains on the first steps of a plan; gives what is written of it."""
        rows = torch.from_numpy(plan.rows).long()
        run = self._training(job, rows, self._network(job.seed), job.rate * triangle(steps))
        started = self._synchronize()
        self.lane.train_on(run)
        seconds = self._synchronize() - started
        final = job.stage == FINAL
        accuracy = self.lane.accuracy(self.test if final else self.validation)
        wrong = read_beliefs(self.folder, job.noise).labels != self.true
        return {
            "steps": steps,
            "train_loss": self.lane.mean_loss,
            ("test_accuracy" if final else "validation_accuracy"): accuracy,
            "wrong_label_share_kept": float(wrong[run.rows.numpy()].mean()),
            "seconds": round(seconds, 3),
        }


@cache
def _targets(folder: Path, noise: Noise, arm: str) -> Tensor:
    targets = targets_of(ARMS[arm], read_beliefs(folder, noise))
    return (1 - SMOOTHING) * targets + SMOOTHING / targets.shape[1]


def run_job(job: FastJob, study: FastStudy, track: Track, planner: Planner) -> Row:
    """Chooses, trains and measures."""
    arm, settings = ARMS[job.arm], study.settings
    steps = track.steps
    if job.arm == LONGER:
        steps = round(steps * study.share_of_longer(job.noise))
    per_pass = track.n // settings.batch if arm.selector == ALL else track.per_pass
    before = choosing = 0.0
    if job.arm == PROXY:
        plan = track.proxy_plan(job)
        before = plan.seconds
    else:
        plan = planner.plan(job.noise, arm.selector, job.seed, -(-steps // per_pass))
        choosing = plan.seconds
    features = arm.about()["features"] or arm.selector == "balanced-curriculum"
    judging = read_beliefs(track.folder, job.noise).seconds if features else 0.0
    return {
        "stage": job.stage,
        "dataset": "cifar10",
        "noise": job.noise.kind,
        "asked_rate": job.noise.rate,
        "seed": job.seed,
        "arm": job.arm,
        "selector": arm.selector,
        "learning_rate": job.rate,
        **settings._asdict(),
        **track.train(job, plan, steps),
        "seconds_before": round(before, 3),
        "seconds_choosing": round(choosing, 3),
        "seconds_judging": round(judging, 2),
    }


def train_all(
    study: FastStudy, path: Path, track: Track, planner: Planner, until: float = float("inf")
) -> None:
    """Trains what has no row yet, one run after the other; no more are begun after ``until``."""
    started = time.perf_counter()
    while time.perf_counter() < until and (job := next(study.jobs(), None)) is not None:
        row = run_job(job, study, track, planner)
        study.rows.append(row)
        store(path, row)
        accuracy = row["test_accuracy" if job.stage == FINAL else "validation_accuracy"]
        print(
            f"{len(study.rows)} {time.perf_counter() - started:.0f} s: {job.stage} {job.arm} "
            f"{job.noise.name} seed {job.seed} rate {job.rate:g}: {100 * accuracy:.2f} in "
            f"{row['seconds_before']:.2f} + {row['seconds']:.2f} s", flush=True,
        )  # fmt: skip


def train(args: argparse.Namespace) -> None:
    """Trains as the command line says."""
    torch.backends.cudnn.benchmark = True
    until = time.perf_counter() + 60 * args.minutes
    device = torch.device(args.device)
    settings = Settings(args.batch, args.filter_ratio, args.passes, args.width)
    noises = [Noise(*noise, 0) for noise in as_noises(args.noises)]
    cells = dict(zip(noises, args.runs, strict=True))
    study = FastStudy(
        settings, cells, args.arms.split(","), args.rates, args.tuning_seeds, stored(args.rows)
    )
    store(args.rows, {"environment": environment(device)})
    # A process that forks after CUDA was used cannot use it.
    with ProcessPoolExecutor(args.processes or 1, mp_context=get_context("spawn")) as pool:
        planner = Planner(args.folder, settings, pool if args.processes else None)
        planner.begin(study)
        track = Track(args.folder, settings, device)
        train_all(study, args.rows, track, planner, until)
        pool.shutdown(cancel_futures=True)


def main() -> None:
    """Prepare, train, or print the table of stored rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--decode", type=Path, help="the folder of the Parquet files")
    parser.add_argument("--judge", type=Path, help="features, .npy; the images' data root beside")
    parser.add_argument("--data-root", type=Path, default=Path("../data"))
    parser.add_argument("--rows", type=Path, default=Path("fast-cifar.jsonl"))
    parser.add_argument("--table", action="store_true", help="train nothing")
    parser.add_argument("--noises", default="clean,symmetric:0.4")
    parser.add_argument("--runs", type=as_seeds, default=[20, 20], help="of each kind of labels")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--rates", type=lambda text: [float(one) for one in text.split(",")],
                        default=[0.7, 1.0, 1.4])  # fmt: skip
    parser.add_argument("--tuning-seeds", type=as_seeds, default=[100])
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--filter-ratio", type=float, default=0.5)
    parser.add_argument("--passes", type=int, default=20)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--processes", type=int, default=0, help="make plans beside the training")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if args.decode:
        decode(args.folder, args.decode)
    elif args.judge:
        for noise in as_noises(args.noises):
            judge(args.folder, args.judge, args.data_root, Noise(*noise, 0))
    else:
        if not args.table:
            train(args)
        print(fast_table(stored(args.rows)))


if __name__ == "__main__":
    main()
