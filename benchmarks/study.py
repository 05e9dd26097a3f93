"""Finished runs of `saln compare` as rows.

    python benchmarks/study.py runs/pets-* --rows results/paper-setting-pets.jsonl

Run folders become rows: a line with this command and the machine, then for every run a row ``run``
(settings, environment, data), a row ``seed`` for each arm and seed, with its evaluated epochs as
[epoch, steps, seconds, test accuracy], and a row ``arm`` with what the run's summary says of it.
The seconds of an epoch are those of features, reference, loading, scoring, selecting and training
up to its end.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from saln.errors import InputError
from saln.experiments.environment import environment
from saln.files import write_text

__all__ = ["main", "run_rows"]

Row = dict[str, Any]

EPOCH_PHASES = ("load", "score", "select", "train")
# What an arm's summary says that its seeds do not.
COMPARED = (
    *("versus_uniform", "versus_standard", "at_equal_steps", "at_equal_seconds"),
    *("seconds_to_standard", "break_even"),
)


def _anonymous(value: Any) -> Any:
    """Text without the folders of one machine: of an absolute path the last part."""
    if isinstance(value, dict):
        return {key: _anonymous(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_anonymous(entry) for entry in value]
    if isinstance(value, str):
        kind, colon, rest = value.partition(":")
        if colon and rest.startswith(("/", "~", "..")):
            return f"{kind}:{Path(rest).name}"
        if value.startswith(("/", "~", "..")):
            return Path(value).name
        flag, equals, rest = value.partition("=")
        if equals and flag.startswith("--"):
            return f"{flag}={_anonymous(rest)}"
    return value


def _read(folder: Path, name: str) -> Any:
    values = json.loads((folder / name).read_text(encoding="utf-8"))
    values.pop("checksum", None)  # of the file itself
    return values


def run_rows(folder: Path) -> list[Row]:
    """A finished run as rows.

    Args:
        folder: What `saln compare` wrote.

    Raises:
        InputError: No run, or one that is not finished.
    """
    for name in ("config.json", "summary.json"):
        if not (folder / name).exists():
            raise InputError(
                f"{folder} holds no finished run ({name} is missing); give a folder that "
                f"'saln compare' wrote, finished with 'saln compare --resume --out {folder}'"
            )
    summary, settings = _read(folder, "summary.json"), _read(folder, "config.json")
    costs = {
        (cost["arm"], cost["seed"]): {
            key: value for key, value in cost.items() if key not in ("arm", "seed")
        }
        for cost in _read(folder, "progress.json")["costs"]
    }
    lines = (folder / "epochs.jsonl").read_text(encoding="utf-8").splitlines()
    epochs: dict[tuple[str, int], list[Row]] = {}
    for row in map(json.loads, lines):
        epochs.setdefault((row["arm"], row["seed"]), []).append(row)
    about = {key: value for key, value in summary.items() if key not in ("arms", "class_names")}
    run = {"run": folder.name}
    rows: list[Row] = [
        {
            **run,
            "kind": "run",
            **_anonymous(about),
            "settings": _anonymous(settings),
            "made": _anonymous(_read(folder, "environment.json")),
        }
    ]
    for arm, entry in summary["arms"].items():
        if "error" in entry:
            rows.append({**run, "kind": "arm", "arm": arm, "error": entry["error"]})
            continue
        for seed in summary["seeds"]:
            rows.append({**run, **_seed_row(arm, seed, epochs[arm, seed], costs[arm, seed])})
        rows.append({**run, "kind": "arm", "arm": arm, **{key: entry[key] for key in COMPARED}})
    return rows


def _seed_row(arm: str, seed: int, epochs: list[Row], cost: Row) -> Row:
    """One arm with one seed."""
    last = epochs[-1]
    spent = cost["features"] + cost["reference"]
    curve = []
    for row in epochs:
        spent += sum(row["seconds"][phase] for phase in EPOCH_PHASES)
        if row["test_accuracy"] is not None:
            curve.append([row["epoch"], row["steps"], round(spent, 3), row["test_accuracy"]])
    kept = [row["wrong_label_share_kept"] for row in epochs]
    phases = {
        phase: round(sum(row["seconds"][phase] for row in epochs), 3) for phase in last["seconds"]
    }
    return {
        "kind": "seed",
        "arm": arm,
        "seed": seed,
        **{key: last[key] for key in last if key.endswith(("_accuracy", "_loss"))},
        "wrong_label_share_kept": None if None in kept else sum(kept) / len(kept),
        **{key: last[key] for key in ("steps", "examples_forward", "examples_backward")},
        "seconds": phases | {"spent": round(spent, 3)},
        "cost": cost,
        "curve": curve,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Turn finished runs into rows."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("folders", nargs="+", type=Path, help="finished runs to turn into rows")
    parser.add_argument("--rows", type=Path, required=True, help="the file of the rows")
    args = parser.parse_args(given)
    names = [folder.resolve().name for folder in args.folders]
    if len(set(names)) < len(names):
        parser.error(f"the folders' names must differ, not {', '.join(names)}")
    command = ["python", "benchmarks/study.py", *_anonymous(given)]
    first = {"environment": environment(torch.device("cpu")) | {"command": command}}
    try:
        rows = [row for folder in args.folders for row in run_rows(folder.resolve())]
    except InputError as error:
        parser.error(str(error))
    write_text(args.rows, "".join(json.dumps(row) + "\n" for row in [first, *rows]))
    print(f"{len(rows)} rows in {args.rows}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
