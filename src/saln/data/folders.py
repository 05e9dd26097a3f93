"""Pictures in folders: which folders are classes, which are splits, which are neither."""

from __future__ import annotations

import logging
import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from saln.data.arguments import is_folder
from saln.data.dataset_registry import ImageSplit
from saln.data.decoding import EXTENSIONS
from saln.data.image_sources import FileImages
from saln.errors import DataError, InputError

logger = logging.getLogger(__name__)

# What the folders of splits are called, in any case of letters.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
# What archives, file systems and programs leave beside pictures. Names that begin with a point
# are hidden by custom: notebooks' checkpoints, version control, what macOS knows of a file.
_NOT_OURS = frozenset(
    ("__macosx", "__pycache__", "@eadir", "$recycle.bin", "lost+found", "system volume information")
)
# Formats of pictures that are not taken; somebody with a few among others shall hear of it.
_OTHER_PICTURES = frozenset((".avif", ".heic", ".heif", ".jfif", ".jp2", ".jxl", ".svg", ".tga"))


def _class_name(folder: str) -> str:
    """A folder's name as text that can be printed, and the same however its accents are coded."""
    text = os.fsencode(folder).decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", text)


@dataclass
class _Listing:
    """A folder's own pictures and sub-folders, in the order of their names."""

    folders: list[os.DirEntry[str]]
    pictures: list[str]
    others: list[str]


def _listing(folder: str) -> _Listing:
    found = _Listing([], [], [])
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.startswith(".") or entry.name.lower() in _NOT_OURS:
                    continue
                ending = Path(entry.name).suffix.lower()
                if _is_folder(entry):
                    found.folders.append(entry)
                elif ending in EXTENSIONS:
                    found.pictures.append(entry.path)
                elif ending in _OTHER_PICTURES:
                    found.others.append(entry.path)
    except OSError as error:
        raise DataError(
            f"the folder {folder} cannot be read ({error.strerror}); make it readable, or move "
            "it out of the data set"
        ) from error
    return found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a symbolic link to itself: as one that leads nowhere, it is a file
        return False


class _Walk:
    """Finds pictures below folders, each folder once, however many symbolic links lead to it.

    Folders are distinguished by what they are on the disk, so a circle of links ends where it
    began. A folder that two classes hold is refused: its pictures would be of both.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.owners = {_identity(root): root}
        self.outside: list[str] = []
        self.others: list[str] = []

    def enter(self, folder: str, owner: str) -> bool:
        """Notes a folder as the owner's; says whether it is to be looked into."""
        # By device and inode: names say nothing where links lead to the same folder.
        before = self.owners.setdefault(_identity(folder), owner)
        if before == owner:
            return True
        # A link to a folder above closes a circle: it is not followed, and no mistake.
        above = before == self.root or owner.startswith(before + os.sep)
        if not above:
            raise InputError(
                f"folder:{self.root} has the same pictures in {before} and in {owner}, by a "
                f"symbolic link ({folder}); remove one of the two"
            )
        return False

    def pictures(self, folder: str, owner: str) -> Iterator[str]:
        """All pictures below a folder that has been entered."""
        listing = _listing(folder)
        self.others += listing.others
        yield from listing.pictures
        for entry in listing.folders:
            known = _identity(entry.path) in self.owners
            if self.enter(entry.path, owner) and not known:
                yield from self.pictures(entry.path, owner)

    def classes(self, folder: str) -> dict[str, list[str]]:
        """The pictures of each class that a folder has a sub-folder of."""
        listing = _listing(folder)
        self.outside += listing.pictures
        self.others += listing.others
        found: dict[str, list[str]] = {}
        for entry in listing.folders:
            if self.enter(entry.path, entry.path):
                paths = sorted(self.pictures(entry.path, entry.path), key=os.path.split)
                found.setdefault(_class_name(entry.name), []).extend(paths)
        return found


def _identity(folder: str) -> tuple[int, int]:
    try:
        found = Path(folder).stat()
    except OSError as error:
        raise DataError(f"the folder {folder} cannot be read ({error.strerror})") from error
    return found.st_dev, found.st_ino


def _split_of(name: str) -> str | None:
    return next((split for split, names in SPLIT_NAMES.items() if name.lower() in names), None)


def _split_folders(root: str, to_train: bool) -> dict[str, str]:
    """The folders of the splits; nothing where the root's sub-folders are classes.

    A folder is a split's when it is called so and its pictures lie in sub-folders, one a class.
    Raises InputError where it can be meant in two ways, or there is no split to train on.
    """
    folders = _listing(root).folders
    if not any(_split_of(entry.name) for entry in folders):
        return {}
    splits: dict[str, list[str]] = {}
    flat: list[str] = []
    classes: list[str] = []
    for entry in folders:
        kind = _split_of(entry.name)
        inside = _listing(entry.path)
        walk = _Walk(root)
        # Pictures of its own, or a link back: then it is a class, or a split without classes.
        if kind is None or inside.pictures or not walk.enter(entry.path, entry.path):
            if next(iter(_Walk(root).pictures(entry.path, entry.path)), None) is not None:
                (classes if kind is None else flat).append(entry.name)
        elif next(iter(walk.pictures(entry.path, entry.path)), None) is not None:
            splits.setdefault(kind, []).append(entry.name)
    # A class may well be called "test": one such name alone is no split.
    kinds = {_split_of(name) for name in flat} | set(splits)
    if not splits and not (len(kinds) > 1 and "train" in kinds):
        return {}
    if flat:
        raise InputError(
            f"folder:{root} holds {_named(flat)}, which is called as a split and holds pictures "
            "without a class; put them into one sub-folder a class, or move the folder away "
            "(or rename it, if it is a class)"
        )
    names = [name for found in splits.values() for name in found]
    if classes:
        raise InputError(
            f"folder:{root} holds {_named(names)}, which is laid out as a split, beside "
            f"{_named(classes)}; move one or the other away, or rename what is a class"
        )
    double = next((found for found in splits.values() if len(found) > 1), None)
    if double is not None:
        raise InputError(f"folder:{root} holds {_named(double)}: one split twice; remove one")
    if to_train and "train" not in splits:
        raise InputError(
            f"folder:{root} holds {_named(names)} and no train/ to train on; name it so, or give "
            "the path of one of them to have it split"
        )
    return {kind: found[0] for kind, found in splits.items()}


def _named(names: list[str]) -> str:
    shown = [f"{_class_name(name)}/" for name in names[:3]]
    return ", ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _numbered(root: Path, classes: dict[str, list[str]], names: list[str]) -> ImageSplit:
    number = {name: label for label, name in enumerate(names)}
    ordered = sorted((name for name, paths in classes.items() if paths), key=number.__getitem__)
    paths = [Path(path) for name in ordered for path in classes[name]]
    labels = [number[name] for name in ordered for _ in classes[name]]
    return ImageSplit(FileImages(root, paths), np.array(labels, dtype=np.int64))


def find_splits(
    root: Path, *, to_train: bool = True
) -> tuple[dict[str, ImageSplit], tuple[str, ...]]:
    """Finds the pictures ``root/CLASS/**/picture.png``, or those of splits (``SPLIT_NAMES``).

    Hidden files and folders and those that other programs leave behind are passed over. Symbolic
    links are followed, each folder once. Empty class folders, pictures outside of a class and
    pictures of other formats are left out with a warning. ``to_train`` says whether there must be
    ``train``, with two classes or more and all of them; else it may be empty.

    Gives the splits by name, ``train`` alone where the folder has none, and the classes' names.
    Raises InputError for what is no folder, has no pictures or one class, or can be meant in two
    ways, DataError for a folder that cannot be read.
    """
    top = str(root)
    if not is_folder(root):
        raise InputError(f"folder:{root} is not a folder; give one that has a sub-folder a class")
    named = _split_folders(top, to_train)
    walk = _Walk(top)
    found: dict[str, dict[str, list[str]]] = {}
    for split, name in (named or {"train": ""}).items():
        folder = str(root / name)
        if name and not walk.enter(folder, folder):
            raise InputError(f"folder:{root} has {name}/ leading back to itself; remove that link")
        found[split] = walk.classes(folder)
    classes = found.setdefault("train", {}) if to_train else _joined(found)
    # Numbered by name, so that the same folders always give the same classes.
    names = sorted(name for name, paths in classes.items() if paths)
    _tell(walk, classes, names)
    _check(root, walk, found, names, fewest=2 if to_train else 1)
    splits = {split: _numbered(root, classes, names) for split, classes in found.items()}
    return splits, tuple(names)


def holds_classes(root: Path) -> bool:
    """Whether a folder has pictures in its sub-folders, or in theirs; a quick look."""
    for below in _listing(str(root)).folders:
        inside = _listing(below.path)
        if inside.pictures or any(_listing(each.path).pictures for each in inside.folders):
            return True
    return False


def _joined(found: dict[str, dict[str, list[str]]]) -> dict[str, list[str]]:
    """The pictures of each class in all splits; all splits but ``train`` may be missing."""
    found.setdefault("train", {})
    joined: dict[str, list[str]] = {}
    for classes in found.values():
        for name, paths in classes.items():
            joined.setdefault(name, []).extend(paths)
    return joined


def _tell(walk: _Walk, classes: dict[str, list[str]], names: list[str]) -> None:
    """Says what is left out."""
    empty = [name for name, paths in classes.items() if not paths]
    for what, left_out in (
        ("sub-folders without pictures are no classes", empty),
        ("pictures outside of a class folder", walk.outside),
        ("pictures of other formats", walk.others),
    ):
        if left_out and names:
            about = walk.root, len(left_out), what, left_out[0]
            logger.warning("folder:%s: left out: %d %s, the first %s", *about)


def _check(
    root: Path, walk: _Walk, found: dict[str, dict[str, list[str]]], names: list[str], fewest: int
) -> None:
    if not names:
        why = "pictures, but none" if walk.outside else "no images"
        formats = ", ".join(sorted(EXTENSIONS))
        raise InputError(
            f"folder:{root} holds {why} in sub-folders (files that end in {formats}); "
            "put each class's images into a sub-folder of its own"
        )
    if len(names) < fewest:
        raise InputError(
            f"folder:{root} has one class ({names[0]!r}); "
            "there is nothing to tell apart: add a second sub-folder, or give the path of this one "
            "if it is no class"
        )
    for split, classes in found.items():
        unknown = [name for name, paths in classes.items() if paths and name not in names]
        if unknown:
            raise InputError(
                f"folder:{root} has the class {unknown[0]!r} for {split}, but no picture of it to "
                f"train on, only of {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}; "
                "add some, or remove it"
            )
