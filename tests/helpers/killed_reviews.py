"""Reviews that are killed at random moments, and what is there then."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow.parquet

from saln.cli import main
from saln.review import feature_cache

if TYPE_CHECKING:
    from helpers.warm_processes import WarmProcess, WarmServer


def review(photos: Path, out: Path, cache: Path) -> int:
    """One run of the command, which keeps features eight by eight; gives its exit status."""
    feature_cache.SHARD_ROWS = 8
    words = [str(photos), "--backbone", "pixels", "--feature-size", "8", "--batch-size", "2"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return main(["labels", *words, "--out", str(out), "--cache-dir", str(cache)])


def is_whole(out: Path) -> bool:
    """Whether every file that is there can be read to its end."""
    try:
        if (out / "review.json").exists():
            json.loads((out / "review.json").read_text())
        if (out / "labels.parquet").exists():
            pyarrow.parquet.read_table(out / "labels.parquet")
        if (out / "labels.csv").exists():
            assert (out / "labels.csv").read_text().endswith("\n")
        if (out / "labels.html").exists():
            assert (out / "labels.html").read_text().rstrip().endswith("</html>")
    except Exception:  # whatever half a file raises
        return False
    return True


def rows_kept(cache: Path) -> int:
    """Rows of features that a killed review has kept, which its store's manifest counts."""
    return sum(json.loads(path.read_text())["rows_done"] for path in cache.rglob("manifest.json"))


class Trials(NamedTuple):
    """What kills did: how often a file was half-written, and a kill came before the end."""

    broken: int
    early: int
    status: int  # of the last review, which was left alone
    same: bool  # whether it wrote what one in an empty cache writes
    computed_last: int


def trials(folder: Path, warm: WarmServer, kills: int, seed: int) -> Trials:
    """Kills and looks, and at last lets it end."""
    photos, out, cache, job = (folder / name for name in ("photos", "out", "cache", "job"))

    def start(out: Path = out, cache: Path = cache) -> WarmProcess:
        job.write_bytes(pickle.dumps((review, (photos, out, cache))))
        return warm.start([], folder, call=job.name)

    process = start(folder / "alone", folder / "cache-alone")
    started = time.perf_counter()  # not before: it may have waited for all imports
    process.wait()
    usual, draw = time.perf_counter() - started, random.Random(seed)
    broken = early = 0
    for _ in range(kills):
        process = start()
        time.sleep(draw.uniform(0.0, usual))
        process.kill()
        early += process.wait() < 0
        broken += not is_whole(out)
    # Once more, as soon as the first features are kept, so that some are whatever was drawn.
    process = start()
    while rows_kept(cache) < 24 and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    process.wait()
    start().wait()
    same = (out / "labels.csv").read_bytes() == (folder / "alone" / "labels.csv").read_bytes()
    facts = json.loads((out / "review.json").read_text())
    return Trials(broken, early, pickle.loads(job.read_bytes()), same, facts["features_computed"])
