"""Imports torchvision, also beside a torch without CUDA.

torchvision's wheel on the package index carries operators compiled for CUDA.
Beside a CPU-only torch they do not load, and ``import torchvision`` then fails
with ``operator torchvision::nms does not exist``, because it registers Python
implementations for operators that nobody declared. Models, transforms and data
sets need none of them. So where the import fails for that reason, this module
declares the missing schemas (no implementation: calling them still fails, with
torch's own error) and imports again.

One of its operators asks torch's compiler a question when it is called, for which it
imports the compiler when *it* is imported: 800 modules, most of a second of every start.
So it is given a stand-in that asks then.

Use ``from saln._torchvision import torchvision`` in place of the plain import.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType

import torch

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
# Kept alive: a library that is collected takes its declarations with it.
_declarations: torch.library.Library | None = None


def _import_torchvision() -> ModuleType:
    global _declarations
    try:
        return _attempt()
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    _declarations = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            _declarations.define(name + _SIGNATURE)
    _forget()
    return _attempt()


def _attempt() -> ModuleType:
    try:
        with _compiler_later():
            return importlib.import_module("torchvision")
    except (ImportError, AttributeError):  # it wants more of the compiler, or is not there
        _forget()
        return importlib.import_module("torchvision")


def _forget() -> None:
    """What a failed import left half-made."""
    for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
        del sys.modules[name]


def _is_compile_supported(device_type: str) -> bool:
    return bool(importlib.import_module("torch._dynamo.utils").is_compile_supported(device_type))


@contextlib.contextmanager
def _compiler_later() -> Iterator[None]:
    """Keeps torch's compiler from being imported, unless it is there already."""
    package, utils = ModuleType("torch._dynamo"), ModuleType("torch._dynamo.utils")
    if package.__name__ in sys.modules:
        yield
        return
    vars(utils)["is_compile_supported"] = _is_compile_supported
    sys.modules.update({module.__name__: module for module in (package, utils)})
    try:
        yield
    finally:
        for module in (package, utils):
            sys.modules.pop(module.__name__, None)


torchvision = _import_torchvision()
