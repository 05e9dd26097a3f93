"""Small folders of labeled files, decisions about them, and what is in a folder at a time."""

from __future__ import annotations

import csv
import itertools
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import xxhash

from saln.cli.apply_command import COMMAND

PHOTOS = {
    "cat/1.jpg": b"one",
    "cat/2.jpg": b"two",
    "cat/sub/deep/3.jpg": b"three",
    "cat/4.jpg": b"four",
    "dog/1.jpg": b"one",  # the same content under the same name
    "dog/5.jpg": b"five",
    "dog/6.jpg": b"six",
}
DECIDED = (
    ("cat/1.jpg", "", "cat", "believe", "dog"),
    ("cat/2.jpg", "", "cat", "keep", ""),
    ("cat/sub/deep/3.jpg", "", "cat", "relabel", "dog"),
    ("dog/5.jpg", "", "dog", "drop", ""),
    ("dog/6.jpg", "", "dog", "believe", "cat"),
)
COLUMNS = ("id", "split", "given", "decision", "label", "key", "review")


def write_tree(root: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def tree(root: Path) -> dict[str, bytes | str]:
    """Every file, folder and link below a folder and in what an apply has made beside it.

    Hidden ones, too; links to folders are entered.
    """
    found: dict[str, bytes | str] = {}
    beside = root.parent / f".{root.name}.saln"
    if beside.is_dir():
        found[f"../{beside.name}"] = "folder"
    walks = (os.walk(start, followlinks=True) for start in (root, beside))
    for folder, folders, files in itertools.chain.from_iterable(walks):
        for name in (*folders, *files):
            path = Path(folder, name)
            below = os.path.relpath(path, root)
            if path.is_symlink():
                found[below] = f"link to {path.readlink()}"
            else:
                found[below] = "folder" if path.is_dir() else path.read_bytes()
    return found


def contents(root: Path) -> list[bytes]:
    """The content of every file."""
    return sorted(value for value in tree(root).values() if isinstance(value, bytes))


def write_review(
    out: Path, root: Path, rows: Iterable[tuple[str, str, str, str, str]], name: str = "decisions"
) -> Path:
    """Rows of id, split, given, decision and label as a file that the page would have saved."""
    out.mkdir(exist_ok=True)
    (out / "review.json").write_text(json.dumps({"dataset": f"folder:{root}"}))
    path = out.parent / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for row in rows:
            file = root / row[0]
            key = xxhash.xxh3_128_hexdigest(file.read_bytes()) if file.is_file() else "0"
            writer.writerow((*row, key, out))
    return path


def files(root: Path) -> dict[str, bytes]:
    """Files with their content, without what only an undo needs."""
    return {
        name: value
        for name, value in tree(root).items()
        if isinstance(value, bytes) and not name.endswith(".jsonl")
    }


class Case:
    """A folder, a review of it, and decisions."""

    def __init__(self, path: Path, photos=PHOTOS, decided=DECIDED) -> None:
        self.root, self.out = path / "photos", path / "out"
        write_tree(self.root, photos)
        self.decisions = write_review(self.out, self.root, decided)
        self.before = tree(self.root)

    def __call__(self, *flags: str) -> int:
        return COMMAND([str(self.decisions), *flags])

    def facts(self, capsys, *flags: str) -> dict:
        capsys.readouterr()
        self(*flags, "--json")
        return json.loads(capsys.readouterr().out)
