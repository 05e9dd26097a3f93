"""Files and folders that are whole or not there: written beside their place, then renamed.

One place for what every part that writes needs: text, JSON, arrays and folders written
atomically, JSON read with a message that says what to do, a lock for work that only one process
may do, and the sentence that says why a file cannot be written.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import filelock
import xxhash

from saln.errors import DataError, InputError
from saln.messages import first_line, parameter

if TYPE_CHECKING:  # importing saln loads no numpy
    import numpy.typing as npt

# A full disk, a full quota, and a file above the user's limit (ulimit -f).
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# torch.save to a path loses the system's error; its zip writer fails in these words alone.
_TORCH_WRITER = ("inline_container", "PytorchStreamWriter failed writing", "iostream error")
# What a name beside a file has more than the file's own name, cut to what is left of NAME_MAX.
_BESIDE = 24
# The key of a JSON object's own checksum.
CHECKSUM = "checksum"


def slug(name: str, longest: int) -> str:
    """The end of a name as part of a folder's: small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[-longest:]


def is_out_of_space(error: BaseException) -> bool:
    """Whether a failed write ran out of space: disk, quota or the limit of a file's size.

    Looks at the error and at all that it arose from. ``torch.save`` and ``numpy.save`` hide the
    system's error: a write of theirs that was cut short counts.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError):
            if seen.errno in _NO_SPACE:
                return True
            if seen.errno is None and "requested and" in str(seen) and "written" in str(seen):
                return True  # numpy's tofile
        elif isinstance(seen, RuntimeError) and any(part in str(seen) for part in _TORCH_WRITER):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def unwritable(path: Path, error: BaseException) -> DataError:
    """The error for a path that cannot be written: what, why, and the cure."""
    space = "free some space, or " if is_out_of_space(error) else ""
    return DataError(f"{path} cannot be written ({_reason(error)}); {space}choose another folder")


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.splitlines()[0]  # the path is named already
    return first_line(error)


def check_new_path(path: Path, named: str, *, reserve: int = 0) -> None:
    """Refuses a path at which no system lets anything be made, before any work is done.

    It was given as the parameter ``named``; names beside it get ``reserve`` bytes longer.
    Raises InputError for a null byte, a name or path that is too long, or a parent that is a
    file.
    """
    text = str(path)
    if "\0" in text:
        raise InputError(f"{parameter(named)} {text!r} holds a null byte; give a name without one")
    if not path.name:
        raise InputError(f"{parameter(named)} {text!r} is no name of a file; give one")
    if len(os.fsencode(path.name)) + reserve > 255:  # NAME_MAX of the usual file systems
        raise InputError(
            f"{parameter(named)} has a name of {len(os.fsencode(path.name))} bytes "
            f"({path.name[:20]}...), which is too long; give at most {255 - reserve}"
        )
    try:
        path.lstat()
    except FileNotFoundError:
        pass  # as it should be
    except NotADirectoryError as error:
        parent = next(part for part in path.parents if part.exists())
        raise InputError(
            f"{parameter(named, path)} cannot be: {parent} is a file; give a path in a folder"
        ) from error
    except OSError as error:
        cure = "give another" if error.errno != errno.ENAMETOOLONG else "give a shorter one"
        raise InputError(
            f"{parameter(named, path)} is not allowed ({_reason(error)}); {cure}"
        ) from error


def flush(path: Path) -> None:
    """Returns when a file's content, or the names in a folder, outlive a power cut."""
    if path.is_dir() and os.name != "posix":
        return  # elsewhere a folder cannot be opened, and a rename is durable
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path) -> Path:
    # Not the process's number: on a shared disk another machine has the same. Hidden, and cut so
    # that every name that is allowed for the file itself is allowed beside it.
    name = os.fsdecode(os.fsencode(path.name)[: 255 - _BESIDE])
    return path.with_name(f".{name}.{secrets.token_hex(8)}")


def move(path: Path, place: Path) -> None:
    """Renames a file, in the place of one that is there; durable when it returns."""
    try:
        path.replace(place)
        flush(place.parent)
    except OSError as error:
        raise unwritable(place, error) from error


def remove(path: Path) -> None:
    """Removes a file, or a folder with all that is in it; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: Path, *, beside: Path | None = None, durable: bool = False) -> Iterator[Path]:
    """Gives a name beside ``path`` to write to, and renames that to ``path`` after the block.

    A file that is there is replaced; ``durable`` outlives a power cut, not only a killed
    process. Where that fails, OSError; ``path`` is as it was, and nothing is left beside it.
    """
    beside = beside or _beside(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield beside
        if durable:
            # Content first: a rename that reaches the disk before it would show an empty file.
            for part in (*beside.rglob("*"), beside):
                flush(part)
        beside.replace(path)  # a folder with something in it is not replaced
        if durable:
            flush(path.parent)
    finally:
        remove(beside)


def write_with(path: Path, write: Callable[[Path], object], *, durable: bool = False) -> None:
    """Lets ``write`` write to a name beside ``path`` and renames that; see :func:`replacing`.

    Raises DataError where the disk does not take it; what else ``write`` raises passes.
    """
    try:
        with replacing(path, durable=durable) as beside:
            write(beside)
    except OSError as error:
        raise unwritable(path, error) from error
    except RuntimeError as error:
        if not is_out_of_space(error):
            raise
        raise unwritable(path, error) from error


def write_folder(path: Path, write: Callable[[Path], object], *, durable: bool = False) -> None:
    """As :func:`write_with`, but ``write`` fills an empty folder; nothing else may be there."""

    def fill(beside: Path) -> None:
        beside.mkdir()
        write(beside)

    write_with(path, fill, durable=durable)


def write_bytes(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Writes bytes; see :func:`write_with`."""
    write_with(path, lambda beside: beside.write_bytes(content), durable=durable)


def write_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Writes UTF-8 text, ``?`` for parts of file names that are none; see :func:`write_with`."""
    write_bytes(path, text.encode("utf-8", errors="replace"), durable=durable)


def write_json(path: Path, values: Any, *, durable: bool = False) -> None:
    """Writes indented JSON and a line's end; see :func:`write_with`."""
    write_text(path, json.dumps(values, indent=2) + "\n", durable=durable)


def write_npz(path: Path, arrays: Mapping[str, Any], *, compressed: bool = True) -> None:
    """Writes arrays of numbers as an ``.npz``; see :func:`write_with`."""
    import numpy as np

    save = np.savez_compressed if compressed else np.savez

    def write(beside: Path) -> None:
        with beside.open("wb") as stream:  # given a name, numpy would add .npz to it
            save(stream, allow_pickle=False, **arrays)

    write_with(path, write)


def npy_bytes(array: npt.NDArray[Any]) -> bytes:
    """An array of numbers as the content of an ``.npy``."""
    import numpy as np

    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    return content.getvalue()


def read_bytes(path: Path, cure: str) -> bytes:
    """Reads a file; the DataError for one that cannot be read names it and the ``cure``."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({_reason(error)}); {cure}") from error


def read_json(path: Path, cure: str) -> dict[str, Any]:
    """Reads one JSON object; the DataError for a file without one names it and the ``cure``."""
    content = read_bytes(path, cure)
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:  # RecursionError: a million brackets
        raise DataError(f"{path} holds no JSON ({_reason(error)}); {cure}") from error
    if not isinstance(values, dict):
        raise DataError(f"{path} holds no JSON object; {cure}")
    return values


def read_npz(path: Path, cure: str) -> dict[str, npt.NDArray[Any]]:
    """Reads what :func:`write_npz` wrote; errors are those of :func:`read_json`."""
    import numpy as np

    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as found:
            return dict(found)
    except Exception as error:  # a broken file raises anything from EOFError to RuntimeError
        raise DataError(f"{path} cannot be read ({type(error).__name__}); {cure}") from error


def signed(
    values: Mapping[str, Any], *, key: str = CHECKSUM, bits: Literal[64, 128] = 64
) -> dict[str, Any]:
    """Adds the XXH3 of everything else to a JSON object, in the place of one that is there."""
    rest = {name: value for name, value in values.items() if name != key}
    digest = xxhash.xxh3_64_hexdigest if bits == 64 else xxhash.xxh3_128_hexdigest
    return rest | {key: digest(json.dumps(rest, sort_keys=True).encode())}


def write_signed(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON object with its checksum, durably."""
    write_json(path, signed(values), durable=True)


def read_signed(path: Path, cure: str, *, must: bool) -> dict[str, Any]:
    """Reads what :func:`write_signed` wrote, without the checksum that it is compared with.

    Earlier versions wrote no checksum: there need be none unless it ``must``. DataError as
    above.
    """
    values = read_json(path, cure)
    found = values.pop(CHECKSUM, None)
    if (must or found is not None) and signed(values)[CHECKSUM] != found:
        raise DataError(f"{path} is not what was written; {cure}")
    return values


def file_checksum(path: Path) -> str:
    """XXH3 of a file's bytes, 128 bits in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, xxhash.xxh3_128).hexdigest()


@contextlib.contextmanager
def locked(path: Path, refusal: str) -> Iterator[None]:
    """Holds a lock file, so that only one process does what is in the block; its folder is made.

    The system releases it when the process ends, however it ends; the file then does no harm.
    It excludes threads of this process too, and goes after the block. Raises InputError with
    ``refusal`` where another process holds it, DataError where it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A fraction of a second: the holder before may just be removing the file.
        lock = filelock.FileLock(path, timeout=0.2)
        lock.acquire()
    except filelock.Timeout as error:
        raise InputError(refusal) from error
    except (OSError, NotImplementedError) as error:
        raise unwritable(path, error) from error
    try:
        yield
    finally:
        # Removed while it is held: whoever has it open sees that, and makes a new one. Windows
        # lets nobody remove an open file: there it stays.
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        lock.release()
