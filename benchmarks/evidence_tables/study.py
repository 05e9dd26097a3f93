"""Tables of real training, from whatever rows of `study.py` there are.

Runs of `saln compare` are in `results/study-*.jsonl`, those of `paper_setting.py` in
`results/paper-setting-*.jsonl`.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from evidence_tables.rows import (
    NOTHING,
    Row,
    grouped,
    interval_text,
    markdown,
    percent,
    points,
    read_rows,
    wrong_kept,
)
from saln.experiments import mean_interval

__all__ = ["NONE_YET", "PAPER_SETTING", "TABLES", "Run", "condition", "study_runs"]

NONE_YET = "No rows of this study are stored yet."
STANDARD_REACHED = "to standard's accuracy (% of its seconds)"
PAPER_SETTING = "paper-setting-*.jsonl"
DATASETS = {"oxford-pet": "Oxford-IIIT Pet", "cifar10": "CIFAR-10", "hf:cifar10": "CIFAR-10"}


# A run's row, the seeds' rows by arm, the comparisons by arm.
Run = tuple[Row, dict[str, list[Row]], dict[str, Row]]


def study_runs(results: Path, files: str = "study-*.jsonl") -> list[Run]:
    """Every stored run."""
    runs = []
    for path in sorted(results.glob(files)):
        for group in grouped(read_rows(results, path.stem), "run").values():
            (about,) = (row for row in group if row["kind"] == "run")
            seeds = grouped((row for row in group if row["kind"] == "seed"), "arm")
            compared = {row["arm"]: row for row in group if row["kind"] == "arm"}
            runs.append((about, {arm: rows for (arm,), rows in seeds.items()}, compared))
    return runs


def condition(about: Row) -> str:
    """A run's data, labels and filter ratio."""
    noise = about["label_noise"]
    labels = f"{100 * noise:.0f}% wrong labels" if noise else "clean labels"
    dataset = DATASETS.get(about["dataset"], about["dataset"])
    settings = about["settings"]
    ratio = f"f = {about['filter_ratio']:g}"
    if settings.get("filter_ratio_end") is not None:
        ratio += f" to {settings['filter_ratio_end']:g}"
    full = (settings.get("full_first_epochs") or 0) + (settings.get("full_last_epochs") or 0)
    return f"{dataset}, {labels}, {ratio}" + (f", {full} epochs with everything" if full else "")


def _settings(about: Row, kept: bool = True) -> str:
    """What else a run was made with; ``kept``: the sizes that the filter ratio decides too."""
    made = about["made"]
    cores = f"{made['torch_threads']} of {made['processors']} CPU cores"
    device = made.get("device_name") or cores
    counts = about["examples"]
    of = f" of {about['candidates']}" if kept else " a step"
    trained = ", last layer trained" if about["settings"].get("head_only") else ""
    return (
        f"{about['learner']} at {about['image_size']} px{trained}, {about['epochs']} epochs, "
        f"{about['batch_size']} kept{of}, learning rate "
        f"{about['settings']['learning_rate']:g}, {counts['train']:,} training and "
        f"{counts['test']:,} test images, seeds {', '.join(map(str, about['seeds']))}, on {device}"
    )


def _difference(found: dict[str, Any] | None) -> str:
    if found is None:
        return NOTHING
    return points(found["difference"], found["ci95"], found["verdict"])


def _best(rows: list[Row]) -> str:
    """The highest test accuracy of any epoch, which nobody could have chosen."""
    return percent([max(accuracy for *_, accuracy in row["curve"]) for row in rows])


def _to_standard(compared: Row) -> str:
    """Seconds to standard's accuracy, or the share of it that was reached."""
    found = compared["seconds_to_standard"]
    if found is None:
        return NOTHING
    if found["mean"] is None:
        return f"not reached ({100 * found['share_reached']:.0f}% of it)"
    return interval_text(found["mean"], found["ci95"], 0)


def _run_table(about: Row, seeds: dict[str, list[Row]], compared: dict[str, Row]) -> str:
    lines = []
    for arm, entry in compared.items():
        if "error" in entry:
            lines.append([f"`{arm}`", "stopped", *[NOTHING] * 8])
            continue
        rows = seeds[arm]
        spent = mean_interval([row["seconds"]["spent"] for row in rows])
        steps = entry["at_equal_steps"]["uniform"]
        seconds = entry["at_equal_seconds"]["uniform"]
        lines.append(
            [
                f"`{arm}`",
                percent([row["test_accuracy"] for row in rows]),
                _best(rows),
                _difference(entry["versus_uniform"]),
                _difference(steps),
                _difference(seconds),
                _difference(entry["versus_standard"]),
                interval_text(spent.mean, spent.ci95, 0),
                _to_standard(entry),
                wrong_kept(rows, about["label_noise"]),
            ]
        )
    columns = (
        *("arm", "test accuracy (%)", "in its best epoch (%)", "against uniform (points)"),
        "at equal steps",
        *("at equal seconds", "against standard (points)", "seconds"),
        *("seconds to standard's accuracy", "wrong labels kept (%)"),
    )
    return markdown(columns, lines)


def _shares(times: list[float], standard: list[Row]) -> list[float]:
    """Times as shares of what `standard` took in all, seed by seed."""
    return [time / row["seconds"]["spent"] for time, row in zip(times, standard, strict=True)]


def _headline_sentence(arm: str, seeds: dict[str, list[Row]], compared: dict[str, Row]) -> str:
    """Whether an arm reaches standard's accuracy, and in what share of its seconds."""
    found = compared[arm]["seconds_to_standard"]
    whole = statistics.fmean(row["seconds"]["spent"] for row in seeds["standard"])
    target = 100 * found["target"]
    if found["mean"] is None:
        reached = sum(time is not None for time in found["per_seed"])
        return (
            f"- `{arm}` reaches `standard`'s {target:.1f}% in {reached} of "
            f"{len(found['per_seed'])} seeds."
        )
    shares = _shares(found["per_seed"], seeds["standard"])
    return (
        f"- `{arm}` reaches `standard`'s {target:.1f}% after {found['mean']:,.0f} of "
        f"`standard`'s {whole:,.0f} seconds: {percent(shares, 0)}% of its time."
    )


def _sentences(about: Row, seeds: dict[str, list[Row]], compared: dict[str, Row]) -> list[str]:
    arms = [arm for arm, entry in compared.items() if "error" not in entry and arm != "standard"]
    if "standard" not in seeds:
        return []
    return [_headline_sentence(arm, seeds, compared) for arm in arms]


def _part(run: Run) -> str:
    about, seeds, compared = run
    parts = [f"**{condition(about)}**: {_settings(about)}", _run_table(about, seeds, compared)]
    sentences = _sentences(*run)
    return "\n\n".join([*parts, "\n".join(sentences)] if sentences else parts)


def conditions(results: Path) -> str:
    """Every stored run."""
    return "\n\n".join(map(_part, study_runs(results))) or NONE_YET


def paper_setting(results: Path) -> str:
    """Every condition in the paper's setting: a table a data set, one line an arm and condition."""
    parts = []
    runs = study_runs(results, PAPER_SETTING)
    datasets = dict.fromkeys(DATASETS.get(about["dataset"], "") for about, _, _ in runs)
    for dataset in datasets:
        own = [run for run in runs if DATASETS.get(run[0]["dataset"], "") == dataset]
        own.sort(key=lambda run: (run[0]["label_noise"], run[0]["filter_ratio"]))
        lines = [
            _paper_line(about, arm, seeds, compared)
            for about, seeds, compared in own
            for arm in compared
            if arm in seeds
        ]
        columns = (
            *("labels", "f", "arm", "test accuracy (%)", "in its best epoch (%)"),
            *("against uniform (points)", "at equal seconds", "against standard (points)"),
            *("seconds", STANDARD_REACHED, "wrong labels kept (%)"),
        )
        text = markdown(columns, lines, 3)
        parts += [f"**{dataset}**: {_settings(own[0][0], kept=False)}", text]
    return "\n\n".join(parts) or NONE_YET


def _paper_line(
    about: Row, arm: str, seeds: dict[str, list[Row]], compared: dict[str, Row]
) -> list[str]:
    rows, entry = seeds[arm], compared[arm]
    spent = mean_interval([row["seconds"]["spent"] for row in rows])
    noise = about["label_noise"]
    return [
        f"{100 * noise:.0f}% wrong" if noise else "clean",
        f"{about['filter_ratio']:g}",
        f"`{arm}`",
        percent([row["test_accuracy"] for row in rows]),
        _best(rows),
        _difference(entry["versus_uniform"]),
        _difference(entry["at_equal_seconds"]["uniform"]),
        _difference(entry["versus_standard"]),
        interval_text(spent.mean, spent.ci95, 0),
        _share_of_standard(entry, seeds["standard"]),
        wrong_kept(rows, noise),
    ]


def _share_of_standard(compared: Row, standard: list[Row]) -> str:
    found = compared["seconds_to_standard"]
    if found["mean"] is None:
        return f"not reached ({100 * found['share_reached']:.0f}% of it)"
    return percent(_shares(found["per_seed"], standard), 0)


TABLES = {
    "study": conditions,
    "paper-setting": paper_setting,
}
