"""``saln features``: run a frozen backbone over a data set."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from saln.cli.flags import Command, check_ray_flags
from saln.features.dataset_features import DatasetExtraction


@dataclass(frozen=True, kw_only=True)
class FeatureSettings(DatasetExtraction):
    """The settings of `saln features`; those of `saln compare` have the same names."""

    engine: Literal["local", "ray"] = "local"
    """Compute in this process, or with one actor for each GPU or core of a Ray cluster."""
    ray_address: str | None = None
    """The cluster's address, HOST:PORT or auto; by default a cluster of this machine is started."""
    ray_workers: int | None = None
    """The number of actors; by default one for each GPU, or for each core without GPUs."""
    json: bool = False
    """Print one JSON object instead of lines of text."""


def _features(settings: FeatureSettings) -> int:
    """Runs a frozen backbone over a data set's training images and keeps the rows.

    'saln compare' with the same data set, backbone and size then takes them from there. A run
    that was stopped goes on where it stopped.
    """
    from saln.cli.display import open_reporter
    from saln.experiments.reporter import FeatureProgress

    check_ray_flags(settings)
    extraction = settings.open()
    # Ray prints on standard output when an actor dies, which is the result's alone.
    with open_reporter() as reporter, contextlib.redirect_stdout(sys.stderr):
        progress = FeatureProgress(reporter, extraction.title)
        store = extraction.run(progress=progress, extract=_engine(settings))
    if os.environ.get("RANK", "0") == "0":  # under torchrun the first process says it
        _print_store(store, progress.rows, as_json=settings.json)
    return 0


def _engine(settings: FeatureSettings) -> Callable[..., Any]:
    """What computes the features."""
    if settings.engine == "local":
        from saln.features.extraction import extract_features

        return extract_features
    from saln.integrations.ray import TrainingPart, extract_features_on_ray

    return functools.partial(
        extract_features_on_ray,
        load=TrainingPart.of(
            settings.dataset, settings.data_root, settings.limit, settings.split_seed
        ),
        address=settings.ray_address,
        actors=settings.ray_workers,
    )


def _print_store(store: Any, rows_computed: int, *, as_json: bool) -> None:
    from saln.cli.display import print_facts

    rows, width = store.features.shape
    speed = rows / max(store.seconds, 1e-9)  # of all runs that made it, so are the seconds
    if as_json:
        facts = {
            "path": str(store.path),
            "rows": rows,
            "width": width,
            "rows_computed": rows_computed,
            "skipped": [entry._asdict() for entry in store.skipped],
            "seconds": store.seconds,
            "images_per_second": round(speed, 1),
        }
        sys.stdout.write(json.dumps(facts) + "\n")
        return
    reused = "" if rows_computed else "; nothing to do, they were there already"
    lines = {"store": store.path, "rows": f"{rows:,} of {width:,} features{reused}"}
    if store.skipped:
        lines["skipped"] = (
            f"{len(store.skipped):,} that cannot be read, the first {store.skipped[0].file}; "
            "manifest.json lists them"
        )
    print_facts(lines | {"took": f"{store.seconds:,.1f} s, {speed:,.0f} images/s"})


COMMAND = Command(
    name="features",
    settings=FeatureSettings,
    run=_features,
    other_names={
        "unreadable": "skip_unreadable",
        "actors": "ray_workers",
        "image_size": "feature_size",
    },
)
