"""From the rows of a run to ``summary.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saln.experiments.statistics import mean_interval, paired_difference
from saln.training.ledger import PHASES

__all__ = ["METRICS", "summarise"]

Row = dict[str, Any]
METRICS = tuple(
    f"{split}_{what}" for what in ("accuracy", "loss") for split in ("train", "validation", "test")
)


def _metric(values: Sequence[float]) -> dict[str, Any]:
    mean, ci95 = mean_interval(values)
    return {"mean": mean, "ci95": ci95, "per_seed": list(values)}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _arm(rows: Mapping[int, list[Row]], costs: Mapping[int, Row]) -> dict[str, Any]:
    """One arm. ``rows``: seed -> its epochs; ``costs``: seed -> one-off seconds and the total."""
    last = [epochs[-1] for epochs in rows.values()]
    n_epochs = len(next(iter(rows.values())))
    seconds = {
        phase: _mean([sum(row["seconds"][phase] for row in epochs) for epochs in rows.values()])
        for phase in PHASES
    }
    once = {name: _mean([costs[seed][name] for seed in rows]) for name in ("features", "reference")}
    # Evaluation is the experimenter's wish and one-off work has fields of its own.
    per_epoch = sum(seconds[p] for p in ("load", "score", "select", "train")) / n_epochs
    total = _mean([costs[seed]["total"] for seed in rows])
    return {
        **{name: _metric([row[name] for row in last]) for name in METRICS},
        "wrong_label_share_kept": _mean(
            [row["wrong_label_share_kept"] for epochs in rows.values() for row in epochs]
        ),
        "seconds": {"total": total, "per_epoch": per_epoch, **once, **seconds},
        "steps": last[0]["steps"],
        "examples_forward": last[0]["examples_forward"],
        "examples_backward": last[0]["examples_backward"],
    }


def summarise(
    about: Mapping[str, Any],
    rows: Sequence[Row],
    costs: Mapping[tuple[str, int], Row],
    failures: Mapping[tuple[str, int], str],
) -> dict[str, Any]:
    """Makes the content of ``summary.json``.

    Args:
        about: What was run: ``dataset``, ``filter_ratio``, ``seeds``, ``methods``, ...
        rows: The rows of ``epochs.jsonl``.
        costs: (arm, seed) -> seconds ``features``, ``reference`` and ``total``.
        failures: (arm, seed) -> why it was stopped.

    Returns:
        As in the design: accuracies are fractions, seconds are wall-clock means over
        seeds. An arm that failed with any seed has only an ``error``.
    """
    arms: dict[str, Any] = {}
    for arm in about["methods"]:
        errors = [text for (failed, _), text in failures.items() if failed == arm]
        if errors:
            arms[arm] = {"error": errors[0]}
            continue
        by_seed: dict[int, list[Row]] = {}
        for row in rows:
            if row["arm"] == arm:
                by_seed.setdefault(row["seed"], []).append(row)
        arms[arm] = _arm(by_seed, {seed: costs[arm, seed] for seed in by_seed})
    baseline = arms.get("uniform", {}).get("test_accuracy")
    for arm, entry in arms.items():
        if "error" in entry:
            continue
        entry["versus_uniform"] = None
        if baseline is not None and arm != "uniform":
            difference = paired_difference(entry["test_accuracy"]["per_seed"], baseline["per_seed"])
            entry["versus_uniform"] = difference._asdict()
    return {**about, "arms": arms}
