"""Unfinished work of a selection: beside the output, whole or made anew, gone at the end.

::

    OUT.parts/
        manifest.json                   what is chosen, and by what; later, that all is there
        part-000000-CHECKSUM.parquet    the kept rows of a partition
        beliefs-CHECKSUM.npy, labels-CHECKSUM.json    with selectors that ask for beliefs
        features/                       a store of Parquet's features, while beliefs are formed
        output.parquet, labels.json     what is made, before it is moved to its place

A file's name carries the checksum of its content, and the manifest its own: what a crash or a
disk has damaged is known and made anew. The output is moved to its place last, when all else
is there; before that nothing of it can be seen, and after it only this folder is left to remove.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from saln.curation.checked_files import CURE, CheckedFiles, has_checksum
from saln.curation.select_settings import UNKNOWN
from saln.errors import DataError, InputError
from saln.files import file_checksum, locked, move, read_json, remove, signed, write_json
from saln.messages import parameter

# What this version and those before it have made there; hidden names are of files half written.
_OURS = re.compile(
    r"manifest\.json|output\.parquet|labels\.json|features|beliefs\.npy"
    r"|(part-\d+|beliefs|labels)(-[0-9a-f]{32})?\.(parquet|npy|json)"
    r"|\.(manifest|output|labels|part-|beliefs|features).*"
)


class Workspace:
    """The folder for what is done before the output is whole, and other files ``beside`` it."""

    def __init__(self, out: Path, beside: tuple[Path, ...] = ()) -> None:
        self.out = out
        self.beside = beside
        self.path = out.with_name(f"{out.name}.parts")
        self.files = CheckedFiles(self.path)
        self._settings: dict[str, Any] = {}
        self._begun = False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Only one process at a time works for an output; what is left without work goes.

        Raises InputError where another does, or an output is there that no unfinished run
        can be of, DataError where the folder cannot be written to.
        """
        refusal = (
            f"another saln select is writing {parameter('out', self.out)}; wait for it, or give "
            f"another {parameter('out')}"
        )
        # Beside the output and not in the folder, which a finished run removes.
        with locked(self.out.with_name(f".{self.out.name}.lock"), refusal):
            if os.path.lexists(self.out) and not (self.path / "manifest.json").exists():
                with contextlib.suppress(OSError):
                    self.path.rmdir()  # an empty one is what a kill in the last moment leaves
                raise _exists(self.out)
            try:
                yield
            except BaseException:
                if self._begun:
                    self._remove_if_empty()
                raise

    def begin(self, settings: dict[str, Any]) -> dict[str, Any] | None:
        """Makes the folder, goes on with the one that is there, or makes it anew.

        By ``settings``, all that decides which rows are kept, as plain JSON. Gives the
        result that :meth:`publish` was given, where the output is whole already. Raises
        InputError where folder or output are of other settings or the folder holds other
        files, DataError where it cannot be written.
        """
        # As JSON gives them back: a tuple would differ from the list that was written.
        self._settings = settings = json.loads(json.dumps(settings))
        saved = self._manifest()
        if UNKNOWN in json.dumps(settings["selector"]):
            saved = None  # that selector may have been another one
        finished: dict[str, Any] = {}
        if saved is not None:
            for name, now in settings.items():
                if saved["settings"].get(name) != now:
                    raise self._other(name, saved["settings"].get(name))
            finished = saved["finished"] or {}
        checksums = finished.get("files", {})  # of what a kill left half moved
        if os.path.lexists(self.out):
            places = [self.out, *self.beside]
            if finished and all(has_checksum(place, checksums.get(place.name)) for place in places):
                result: dict[str, Any] = finished["result"]
                return result
            raise _exists(self.out)
        for place in self.beside:
            if os.path.lexists(place) and not has_checksum(place, checksums.get(place.name)):
                raise InputError(
                    f"{place} exists, and is written beside {parameter('out', self.out)}; remove "
                    f"it, or give another {parameter('out')}"
                )
        if saved is None:
            self._start_anew()
        self._begun = True  # from here on the folder is ours to remove
        return None

    def _manifest(self) -> dict[str, Any] | None:
        """The manifest; None where there is none, or a damaged one."""
        try:
            saved = read_json(self.path / "manifest.json", CURE)
        except DataError:
            return None
        whole = signed(saved, bits=128) == saved and isinstance(saved.get("settings"), dict)
        return saved if whole and "finished" in saved else None

    def _other(self, name: str, before: Any) -> InputError:
        said = json.dumps(before)[:300]
        if name == "identity":
            said = "of another input, or the input has changed since"  # checksums tell nobody
        return InputError(
            f"{self.path} holds the unfinished work of a run whose {name} was {said}; go on "
            f"with its settings, remove that folder, or give another {parameter('out')}"
        )

    def _start_anew(self) -> None:
        """Removes what is damaged or of a version before, unless it may be somebody else's."""
        folder = self.path.is_dir() and not self.path.is_symlink()
        found = sorted(self.path.iterdir()) if folder else []
        strangers = [path.name for path in found if not _OURS.fullmatch(path.name)]
        if strangers or (os.path.lexists(self.path) and not folder):
            raise InputError(
                f"{self.path} holds other files{''.join(f' ({name!r})' for name in strangers[:1])},"
                f" and unfinished work of {parameter('out', self.out)} goes there; remove it, or "
                f"give another {parameter('out')}"
            )
        self.files.drop(*found)
        self._write_manifest(None)

    def _write_manifest(self, finished: dict[str, Any] | None) -> None:
        values = json.loads(json.dumps({"settings": self._settings, "finished": finished}))
        write_json(self.path / "manifest.json", signed(values, bits=128), durable=True)

    def publish(self, files: dict[Path, Path], result: dict[str, Any]) -> None:
        """Moves finished files to their places, the output last; DataError where that fails.

        Killed before the last move, the same command makes and moves them again; after it,
        it finds by the manifest that all is there.
        """
        checksums = {}
        for path, place in files.items():
            try:
                checksums[place.name] = file_checksum(path)
            except OSError as error:
                raise DataError(f"{path} cannot be read ({error.strerror}); {CURE}") from error
        # Before any move: a run that comes after a kill knows by it which files are its own.
        self._write_manifest({"files": checksums, "result": result})
        for path, place in files.items():
            move(path, place)

    def clear(self) -> None:
        """Removes the folder; the manifest, which says that the output is whole, goes last."""
        manifest = self.path / "manifest.json"
        try:
            for path in sorted(self.path.iterdir()):
                if path != manifest:
                    remove(path)
            remove(manifest)
            self.path.rmdir()
        except OSError as error:
            raise DataError(
                f"{self.out} is whole, but {self.path} cannot be removed ({error.strerror}); "
                "remove it by hand"
            ) from error

    def _remove_if_empty(self) -> None:
        """Leaves nothing where nothing was done; an error is on its way already."""
        with contextlib.suppress(OSError):
            if [path.name for path in self.path.iterdir()] == ["manifest.json"]:
                remove(self.path)


def _exists(out: Path) -> InputError:
    return InputError(f"{parameter('out', out)} exists; give a new name, or remove it first")
