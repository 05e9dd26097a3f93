"""Imports torchvision, also beside a torch without CUDA.

torchvision's wheel on the package index carries operators compiled for CUDA.
Beside a CPU-only torch they do not load, and ``import torchvision`` then fails
with ``operator torchvision::nms does not exist``, because it registers Python
implementations for operators that nobody declared. Models, transforms and data
sets need none of them. So where the import fails for that reason, this module
declares the missing schemas (no implementation: calling them still fails, with
torch's own error) and imports again.

Use ``from saln._torchvision import torchvision`` in place of the plain import.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
# Kept alive: a library that is collected takes its declarations with it.
_declarations: torch.library.Library | None = None


def _import_torchvision() -> ModuleType:
    global _declarations
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    _declarations = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            _declarations.define(name + _SIGNATURE)
    for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # left half-made by the failed import
    return importlib.import_module("torchvision")


torchvision = _import_torchvision()
