"""Kills reviews at random moments, in a process that has imported everything already.

python tests/helpers/killed_reviews.py FOLDER KILLS SEED

Prints one JSON object: how often a file was half-written, how many kills came before the end, and
whether the last review, left alone, wrote what one in an empty cache writes.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import pyarrow.parquet
import torch

from saln.cli import main
from saln.review import feature_cache


def review(photos: Path, out: Path, cache: Path) -> int:
    """One run of the command; gives its exit status."""
    words = [str(photos), "--backbone", "pixels", "--feature-size", "8", "--batch-size", "2"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return main(["labels", *words, "--out", str(out), "--cache-dir", str(cache)])


def child(photos: Path, out: Path, cache: Path) -> int:
    """Starts a review in a process of its own; gives its number."""
    number = os.fork()
    if number == 0:
        torch.set_num_threads(1)
        os._exit(review(photos, out, cache))
    return number


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


def trials(folder: Path, kills: int, seed: int) -> dict[str, object]:
    """Kills and looks, and at last lets it end."""
    feature_cache.SHARD_ROWS = 8
    photos, out, cache = folder / "photos", folder / "out", folder / "cache"
    started = time.perf_counter()
    os.waitpid(child(photos, folder / "alone", folder / "cache-alone"), 0)
    usual, draw = time.perf_counter() - started, random.Random(seed)
    broken = early = 0
    for _ in range(kills):
        number = child(photos, out, cache)
        time.sleep(draw.uniform(0.0, usual))
        os.kill(number, signal.SIGKILL)
        early += os.WIFSIGNALED(os.waitpid(number, 0)[1])
        broken += not is_whole(out)
    # Once more, as soon as the first features are kept, so that some are whatever was drawn.
    number = child(photos, out, cache)
    while rows_kept(cache) < 24 and os.waitpid(number, os.WNOHANG)[0] == 0:
        time.sleep(0.001)
    with contextlib.suppress(ProcessLookupError):
        os.kill(number, signal.SIGKILL)
        os.waitpid(number, 0)
    _, status = os.waitpid(child(photos, out, cache), 0)
    same = (out / "labels.csv").read_bytes() == (folder / "alone" / "labels.csv").read_bytes()
    facts = json.loads((out / "review.json").read_text())
    return {
        "broken": broken,
        "early": early,
        "status": status,
        "same": same,
        "computed_last": facts["features_computed"],
        "beside": sorted(path.name for path in out.iterdir() if path.name.startswith(".")),
    }


if __name__ == "__main__":
    print(json.dumps(trials(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))  # noqa: T201
