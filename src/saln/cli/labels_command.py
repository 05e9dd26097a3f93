"""``saln labels``: which labels of a data set are wrong.

The word ``apply`` behind it makes it another command: :mod:`saln.cli.apply_command`.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from saln.cli.flags import Command
from saln.review.exports import check_export, export
from saln.review.feature_cache import default_review_cache
from saln.review.review_run import Review, ReviewSettings

# Bytes of kept features from which on they are worth a line.
_MUCH = 2**30


@dataclass(frozen=True, kw_only=True)
class LabelsSettings(ReviewSettings):
    """The settings of `saln labels`."""

    export: tuple[str, ...] = ()
    """Write the result for other tools too, separated by commas: cleanlab, label-studio."""
    json: bool = False
    """Print one JSON object instead of lines of text."""

    def __post_init__(self) -> None:
        """Checks what needs no data, before any is opened."""
        super().__post_init__()
        for kind in self.export:
            check_export(kind)


def _labels(settings: LabelsSettings) -> int:
    """Judges every label of a data set by all the others; no network is trained.

    Writes labels.csv and labels.html into a folder, the most doubtful labels first. After a stop
    the same command goes on; features that are stored already are not computed again.

    Decide on the page, then repair the labels with 'saln labels apply decisions.csv'; its flags:
    'saln labels apply --help'.
    """
    from saln.cli.display import open_reporter
    from saln.experiments.reporter import FeatureProgress
    from saln.review.review_files import write_review
    from saln.review.review_run import run_review

    started = time.perf_counter()
    with open_reporter() as reporter:
        review = run_review(settings, watch=lambda title: FeatureProgress(reporter, title))
    facts = write_review(review, settings.folder)
    for kind in settings.export:
        export(review.table, review.items, kind, settings.folder / f"{kind}.json")
    if settings.json:
        sys.stdout.write(json.dumps(facts) + "\n")
    else:
        of_images = settings.features is None and review.items.images is not None
        chosen = of_images and settings.backbone is None
        why = settings.default_backbone().reason if chosen else ""
        _print_review(review, settings, why, time.perf_counter() - started)
    return 0


def _print_review(review: Review, settings: LabelsSettings, why: str, seconds: float) -> None:
    from saln.cli.display import print_facts
    from saln.review.summary_text import summary_lines

    table, out = review.table, settings.folder
    count = len(table.class_names)
    of_classes = f" of {count:,} {'class' if count == 1 else 'classes'}" if count else ""
    lines = {"judged": f"{len(table):,} labels{of_classes}"}
    if why:
        lines["features"] = why
    for remark in () if review.read is None else review.read.remarks:
        what, _, text = remark.partition(": ")
        lines[what] = text
    lines |= summary_lines(table)
    lines["took"] = f"{seconds:,.1f} s"
    files = [name for name in ("labels.csv", "labels.parquet") if (out / name).exists()]
    lines["list"] = f"{out / files[0]}" + ", labels.parquet" * (len(files) > 1)
    if settings.export:
        lines["export"] = ", ".join(str(out / f"{kind}.json") for kind in settings.export)
    lines["page"] = str(out / "labels.html")
    if review.items.images is not None and settings.features is None:
        lines |= _cache(settings.cache_dir or default_review_cache())
    lines["next"] = (
        "open the page, decide there and save decisions.csv; then: saln labels apply decisions.csv"
        if len(table.suspects)
        else "nothing: no label is doubted"
    )
    # A file's name may hold anything, the end of a line as well.
    print_facts(
        {what: text if text.isprintable() else repr(text)[1:-1] for what, text in lines.items()}
    )


def _cache(folder: Path) -> dict[str, str]:
    """What kept features take, where that is much: nothing is ever deleted unasked."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size < _MUCH:
        return {}
    return {"cache": f"{size / 2**30:,.1f} GiB of features in {folder}; it may be deleted any time"}


COMMAND = Command(
    name="labels",
    settings=LabelsSettings,
    run=_labels,
    positional=("dataset",),
    other_names={"unreadable": "--no-strict", "image_size": "feature_size"},
)
