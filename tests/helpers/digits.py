"""The settings of a comparison on the digits that tests stand on, whatever the preset says."""

from __future__ import annotations

import dataclasses
from typing import Any

from saln.experiments.config import Config, load_preset

SETTINGS: dict[str, Any] = {
    "methods": ("standard", "uniform", "saln", "jest", "rho-loss", "top-loss", "coherence"),
    "epochs": 12, "learning_rate": 0.02, "schedule": "constant", "label_noise": 0.0,
    "seeds": (0, 1, 2), "evaluate_every": 1, "image_size": 16,
}  # fmt: skip
FLAGS = (
    *("--methods", ",".join(SETTINGS["methods"]), "--epochs", "12", "--learning-rate", "0.02"),
    *("--schedule", "constant", "--label-noise", "0", "--evaluate-every", "1"),
    *("--image-size", "16"),
)


def digits_config(**changes: Any) -> Config:
    """The digits with those settings, and changes."""
    return dataclasses.replace(load_preset("digits"), **(SETTINGS | changes))
