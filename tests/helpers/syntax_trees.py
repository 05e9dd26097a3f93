"""Syntax trees of files, whatever tests in a browser have left in the process."""

from __future__ import annotations

import ast
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def elsewhere(function: Callable[..., T], *arguments: object) -> T:
    """Calls it in a thread of its own.

    The parser of Python 3.11 fails where a browser's greenlets are collected while it works;
    those of another thread are left alone.
    """
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(function, *arguments).result()


def parsed(path: Path) -> ast.Module:
    return elsewhere(ast.parse, path.read_text(encoding="utf-8"))
