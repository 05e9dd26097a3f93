"""Features on disk: a folder with ``features.npy``, ``labels.npy`` and ``manifest.json``.

The arrays are memory-mapped and hold no pickle. A store is written beside its final
place and renamed when it is whole, so a folder that exists is a store that is complete.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from saln.errors import DataError

__all__ = ["FORMAT_VERSION", "FeatureStore"]

FORMAT_VERSION = 1


@dataclass(frozen=True)
class FeatureStore:
    """Features of a data set, one row an example.

    Attributes:
        path: The folder.
        features: float16, (n, d), memory-mapped, read-only.
        labels: int64, (n,).
        manifest: What the rows were made of: backbone, weights' hash, preprocessing,
            data set fingerprint, rows, seconds.
    """

    path: Path
    features: npt.NDArray[np.float16]
    labels: npt.NDArray[np.int64]
    manifest: dict[str, Any]

    def __len__(self) -> int:
        return len(self.features)

    @classmethod
    def open(cls, path: Path) -> FeatureStore:
        """Opens a store.

        Raises:
            DataError: The folder is no store, is damaged or of another format version.
        """
        cure = f"delete the folder {path} and run again"
        try:
            manifest = json.loads((path / "manifest.json").read_text())
            features = np.load(path / "features.npy", mmap_mode="r", allow_pickle=False)
            labels = np.load(path / "labels.npy", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"the feature store {path} is damaged ({error}); {cure}") from error
        version = manifest.get("format_version")
        if version != FORMAT_VERSION:
            raise DataError(
                f"the feature store {path} has format version {version}, "
                f"this SALN reads {FORMAT_VERSION}; {cure}"
            )
        if features.ndim != 2 or features.dtype != np.float16 or len(features) != len(labels):
            raise DataError(
                f"the feature store {path} is damaged: features {features.dtype} "
                f"{features.shape} beside {len(labels)} labels; {cure}"
            )
        return cls(path, features, labels, manifest)

    @classmethod
    def write(
        cls,
        path: Path,
        features: npt.NDArray[np.float16],
        labels: npt.NDArray[np.int64],
        manifest: dict[str, Any],
    ) -> FeatureStore:
        """Writes a store beside its place, renames it, and opens it.

        Raises:
            DataError: The disk is full or cannot be written to; nothing is left behind.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
            try:
                np.save(beside / "features.npy", features, allow_pickle=False)
                np.save(beside / "labels.npy", labels, allow_pickle=False)
                text = json.dumps({"format_version": FORMAT_VERSION, **manifest}, indent=2)
                (beside / "manifest.json").write_text(text + "\n")
                beside.chmod(0o755)
                if path.exists():  # another run was faster; what it wrote is the same
                    shutil.rmtree(beside)
                else:
                    beside.replace(path)
            except BaseException:
                shutil.rmtree(beside, ignore_errors=True)
                raise
        except OSError as error:
            raise DataError(
                f"the feature store {path} cannot be written ({error}); free some space or "
                "give another folder with --cache-dir"
            ) from error
        return cls.open(path)
