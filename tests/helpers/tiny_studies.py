"""A prepared folder of a study from scratch, tiny."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from scratch_plans import Setup, write_images

N, CLASSES = 640, 10


def tiny_setup(folder):
    """Classes that the images and the features tell apart."""
    random = np.random.default_rng(0)
    colors = random.integers(40, 216, (CLASSES, 3))
    parts = {}
    for name, n in (("train", N), ("validation", 50), ("test", 60)):
        labels = np.arange(n) % CLASSES
        codes = []
        for label in labels:
            pixels = colors[label] + random.integers(-40, 40, (32, 32, 3))
            stream = io.BytesIO()
            Image.fromarray(pixels.astype(np.uint8)).save(stream, "PNG")
            codes.append(stream.getvalue())
        parts[name] = (codes, labels)
    write_images(folder, parts)
    centers = random.normal(size=(CLASSES, 16))
    features = centers[parts["train"][1]] + 0.3 * random.normal(size=(N, 16))
    np.savez(folder / "features.npz", features=features.astype(np.float16))
    return Setup(folder)
