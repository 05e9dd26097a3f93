"""How right is the list that ``saln labels`` gives, at its beginning and as long as it says it is?

    python benchmarks/label_review.py --data-root ../data            a table
    python benchmarks/label_review.py --data-root ../data --json     one JSON object a line
    python benchmarks/label_review.py --data-root ../data --command  what the command itself costs

All pets (224 pixels) and CIFAR-10's training images (96), 10% and 40% of the labels replaced at
random: the share of really wrong labels among the first 100 of the list (precision), and the share
of all wrong labels that it holds when it is cut at the estimated number (recall). Beside it
cleanlab on the same features, its model as regularized as the given labels are likeliest.
``--command`` runs ``saln labels`` on all images of both, every split, with no features kept and
again with them, and measures seconds and peak memory of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from label_finders import FINDERS, Features, Findings, load_features
from probe_data import noisy_labels

from saln.experiments.environment import environment

FIRST = 100


def review_row(data: Features, findings: Findings, labels: Any) -> dict[str, Any]:
    """What a finder's list is worth, by the true labels."""
    wrong = labels != data.labels
    order = np.argsort(findings.quality, kind="stable")
    rate = findings.rate if findings.rate is not None else float(findings.wrong.mean())
    count = round(rate * len(labels))
    return {
        "precision_at_100": float(wrong[order[:FIRST]].mean()),
        "precision_at_estimate": float(wrong[order[:count]].mean()),
        "recall_at_estimate": float(wrong[order[:count]].sum() / wrong.sum()),
        "estimated": count,
        "wrong": int(wrong.sum()),
        "seconds": round(findings.seconds, 1),
    }


def command_rows(data_root: Path, dataset: str, backbone: str) -> Iterator[dict[str, Any]]:
    """Seconds and memory of ``saln labels`` on every image of a data set, twice."""
    spec = {"pets": "oxford-pet", "cifar10": f"hf:{data_root.resolve() / 'cifar10'}"}[dataset]
    # Its own size for photos; small images gain nothing from more than three times their size.
    pixels = 96 if dataset == "cifar10" else {"efficientnet-lite2": 288}.get(backbone, 224)
    with tempfile.TemporaryDirectory() as folder:
        arguments = [
            *("labels", spec, "--data-root", str(data_root), "--feature-size", str(pixels)),
            *("--backbone", backbone),
            *("--cache-dir", f"{folder}/cache", "--out", f"{folder}/out", "--json"),
        ]
        for kept in (False, True):
            started = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, "-m", "saln", *arguments],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            assert process.stdout is not None
            facts = json.loads(process.stdout.read())
            _, _, used = os.wait4(process.pid, 0)
            yield {
                "dataset": dataset,
                "images": facts["examples"],
                "backbone": backbone,
                "pixels": pixels,
                "features_kept": kept,
                "seconds": round(time.perf_counter() - started, 1),
                "processor_seconds": round(used.ru_utime + used.ru_stime, 1),
                "peak_bytes": used.ru_maxrss * 1024,
                "suspects": facts["suspects"],
            }


def list_rows(args: argparse.Namespace, dataset: str) -> Iterator[dict[str, Any]]:
    """What the lists of both finders are worth, with 10% and 40% wrong labels."""
    data = load_features(args.data_root, dataset, args.cache, limit=args.limit)
    for rate in map(float, args.rates.split(",")):
        labels = noisy_labels(data, "symmetric", rate, args.seed)
        for finder in args.finders.split(","):
            about = {"dataset": dataset, "rate": rate, "seed": args.seed, "finder": finder}
            yield about | review_row(data, FINDERS[finder](data, labels), labels)


def main() -> None:
    """Prints rows as they are made, or a table of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data-root", type=Path, default=Path("../data"))
    parser.add_argument("--cache", type=Path, default=Path("features"))
    parser.add_argument("--datasets", default="pets,cifar10")
    parser.add_argument("--backbone", default="efficientnet-lite2", help="for --command")
    parser.add_argument("--rates", default="0.1,0.4")
    parser.add_argument("--finders", default="ours,cleanlab")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="only the first rows of each, to try a run")
    parser.add_argument("--command", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.json:
        command = {"command": ["python", "benchmarks/label_review.py", *sys.argv[1:]]}
        made = {"environment": environment(torch.device("cpu")) | command}
        sys.stdout.write(json.dumps(made) + "\n")
    for dataset in args.datasets.split(","):
        rows = (
            command_rows(args.data_root, dataset, args.backbone)
            if args.command
            else list_rows(args, dataset)
        )
        for row in rows:
            line = json.dumps(row) if args.json else "  ".join(f"{k} {v}" for k, v in row.items())
            sys.stdout.write(line + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
