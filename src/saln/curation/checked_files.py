"""Files whose names carry the checksum of their content, so that a damaged one is known."""

from __future__ import annotations

import re
from pathlib import Path

import xxhash

from saln.errors import DataError
from saln.files import file_checksum, read_bytes, remove, unwritable, write_bytes

# What to do about a file of a run that is not what was written.
CURE = "run the same command again: it is made anew"
_CHECKED = re.compile(r"(?P<name>part-\d+|beliefs|labels)-(?P<checksum>[0-9a-f]{32})\.\w+")


class CheckedFiles:
    """What a selection that may be killed at any time keeps of its work, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, suffix: str, content: bytes) -> Path:
        """Writes a file, durably; gives its path. DataError for a disk that does not take it."""
        # Another content is another name: a file that is there is never written over.
        path = self.folder / f"{name}-{xxhash.xxh3_128_hexdigest(content)}.{suffix}"
        write_bytes(path, content, durable=True)
        return path

    def read(self, path: Path) -> bytes:
        """The content of a file that :meth:`write` wrote; DataError where it is damaged since."""
        content = read_bytes(path, CURE)
        # Of what was read, not of the file: it may change between two looks.
        if xxhash.xxh3_128_hexdigest(content) != path.stem.rpartition("-")[2]:
            raise DataError(f"{path} was damaged; {CURE}")
        return content

    def whole(self) -> dict[str, Path]:
        """The files that are there and whole, by name; damaged ones are removed."""
        whole = {}
        for path in sorted(self.folder.iterdir()):
            named = _CHECKED.fullmatch(path.name)
            if named is None:
                continue  # the manifest, and files half written
            if has_checksum(path, named["checksum"]):
                whole[named["name"]] = path
            else:
                self.drop(path)
        return whole

    def drop(self, *paths: Path) -> None:
        """Removes files or folders that cannot be gone on with; DataError where that fails."""
        for path in paths:
            try:
                remove(path)
            except OSError as error:
                raise unwritable(path, error) from error


def has_checksum(path: Path, checksum: str | None) -> bool:
    """Whether a file is there, can be read and has a checksum."""
    try:
        return checksum is not None and file_checksum(path) == checksum
    except OSError:
        return False
