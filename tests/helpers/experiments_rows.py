"""Rows of a made-up run of two arms and two seeds, small enough to check by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saln.experiments.rows import METRICS, ArmCost, EpochRow, RunFacts, Summary
from saln.experiments.summary import summarize


def _row(arm: str, seed: int, epoch: int, accuracy: float, seconds: tuple[int, ...]) -> Any:
    phases = dict(zip(("load", "score", "select", "train", "evaluate"), seconds, strict=True))
    return {
        "arm": arm, "seed": seed, "epoch": epoch, "steps": 10 * epoch,
        "examples_forward": 70 * epoch, "examples_backward": 40 * epoch,
        **dict.fromkeys(METRICS, accuracy), "wrong_label_share_kept": accuracy / 2,
        "seconds": phases,
    }  # fmt: skip


ROWS = [
    _row("uniform", 0, 1, 0.2, (1, 0, 0, 2, 5)),
    _row("uniform", 0, 2, 0.4, (1, 0, 0, 2, 5)),
    _row("saln", 0, 1, 0.3, (1, 2, 4, 8, 5)),
    _row("saln", 0, 2, 0.5, (1, 2, 4, 8, 5)),
    _row("uniform", 1, 1, 0.1, (3, 0, 0, 4, 5)),
    _row("uniform", 1, 2, 0.6, (3, 0, 0, 4, 5)),
    _row("saln", 1, 1, 0.3, (1, 2, 4, 8, 5)),
    _row("saln", 1, 2, 0.7, (1, 2, 4, 8, 5)),
]


def _cost(total: int, features: int = 0) -> Any:
    return {
        "features": features, "reference": 0, "save": 1, "total": total,
        "rss_bytes": 1000 * total, "cuda_bytes": None, "features_examples_forward": 9 * features,
        "reference_examples_forward": 0, "reference_examples_backward": 0,
    }  # fmt: skip


COSTS: dict[tuple[str, int], Any] = {
    ("uniform", 0): _cost(17),
    ("uniform", 1): _cost(25),
    ("saln", 0): _cost(50, features=9),
    ("saln", 1): _cost(52, features=9),
}


def typed(rows: Sequence[Any] = ROWS) -> list[EpochRow]:
    return [EpochRow.from_json(row) for row in rows]


def typed_costs(costs: Mapping[tuple[str, int], Any] = COSTS) -> dict[tuple[str, int], ArmCost]:
    return {key: ArmCost.from_json(cost) for key, cost in costs.items()}


def run_of(
    summary: Summary | None = None, rows: Sequence[Any] = ROWS, chosen: Any = None, **facts: Any
) -> Any:
    """A finished run that lies nowhere, for what is drawn of summary, rows and choices."""
    from saln.report.reported_run import ReportedRun

    run = ReportedRun(Path("nowhere"), summary or summary_of(), typed(rows), **facts)
    vars(run)["chosen"] = chosen  # as if it had been read
    return run


def made(parts: Sequence[Any], run: Any) -> dict[str, Any]:
    """Name -> what functions of the report make of a run."""
    shown = (part(run) for part in parts)
    return {each.name: each for each in shown if each is not None}


def summary_of(
    facts: dict[str, Any] | None = None,
    rows: Sequence[Any] = ROWS,
    costs: Mapping[tuple[str, int], Any] = COSTS,
    failures: Mapping[tuple[str, int], str] | None = None,
) -> Summary:
    """The summary of a run from plain values."""
    given = RunFacts.from_json(facts or about())
    return summarize(given, typed(rows), typed_costs(costs), failures or {})


def about(**changes: Any) -> dict[str, Any]:
    return {
        "dataset": "made", "filter_ratio": 0.5, "seeds": [0, 1], "methods": ["uniform", "saln"],
        "learner": "small-cnn", "backbone": "pixels", "epochs": 2, "batch_size": 4,
        "candidates": 8, "label_noise": 0.0, "examples": {"train": 80, "test": 20},
    } | changes  # fmt: skip
