"""The folders of classes, as the data set's loader tells them apart; looked at without torch."""

from __future__ import annotations

import difflib
import functools
import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from saln.errors import DataError
from saln.messages import parameter, shown


def normal(name: str) -> str:
    """A folder's name as its class is called: the same however its accents are coded."""
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "backslashreplace"))


class ClassFolders:
    """Finds a class's folder; each folder is listed once."""

    def __init__(self, root: Path, class_names: Iterable[str]) -> None:
        self.root = root
        self.names = functools.cache(_names)
        self.coded = functools.cache(self._coded)
        self.folders = functools.cache(self._folders)
        # What cannot be the name of a folder that holds a class, whoever has written it there.
        usable = (name for name in class_names if not set(name) & {"/", "\0"})
        self.class_names = {normal(name) for name in usable if not name.startswith(".")}

    def folder(self, base: Path, written: str) -> str:
        """The name of a class's folder in a split's folder, perhaps one that has to be made.

        ValueError where there is no such class, which says what there is; DataError for a folder
        that cannot be read.
        """
        label = normal(written)
        here = self.folders(base)
        splits = {base.parent / name for name in self.folders(base.parent)}
        elsewhere = splits if base != self.root else set()
        known = {name: None for split in sorted(elsewhere) for name in self.folders(split)}
        names = [*here, *known]
        for wanted in (label, label.strip()):
            exact = [name for name in names if normal(name) == wanted]
            if exact:
                return exact[0]
            if wanted in self.class_names:
                return wanted
        # As somebody may write a class by hand; refused where two differ by that alone.
        alike = {name for name in names if normal(name).casefold() == label.strip().casefold()}
        if len(alike) == 1:
            return alike.pop()
        every = sorted({normal(name) for name in names} | self.class_names)
        near = difflib.get_close_matches(label, every, 1) or every[:5]
        raise ValueError(
            f"the label {shown(written)} is no class of {self.root}; give one, such as "
            f"{', '.join(map(shown, near))}, or {parameter('new_classes', True)} to make it one"
        )

    def _coded(self, folder: Path) -> dict[str, list[str]]:
        """The names in a folder by what they are called, however their accents are coded."""
        coded: dict[str, list[str]] = {}
        for name in self.names(folder):
            coded.setdefault(normal(name), []).append(name)
        return coded

    def _folders(self, folder: Path) -> list[str]:
        names = (name for name in self.names(folder) if not name.startswith("."))
        return [name for name in names if (folder / name).is_dir()]


def _names(folder: Path) -> list[str]:
    """All names in a folder, sorted; none where there is no folder."""
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DataError(
            f"the folder {folder} cannot be read ({error.strerror}); make it readable"
        ) from error
