"""What is kept of the machine and the code: the code's own commit, or none."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from saln.experiments import environment as module
from saln.experiments.environment import _commit, environment

PROJECT = '[project]\nname = "saln"\n'


def git(folder: Path, *arguments: str) -> str:
    settings = ("-c", "user.name=A", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", *settings, *arguments], cwd=folder, capture_output=True, text=True, check=True,
        env=clean,
    )  # fmt: skip
    return done.stdout.strip()


def checkout(root: Path, project: str = PROJECT) -> Path:
    """A package as it lies in a checkout, with no repository yet."""
    package = root / "src" / "saln"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (root / "pyproject.toml").write_text(project)
    return package


def committed(root: Path) -> str:
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "all")
    return git(root, "rev-parse", "HEAD")


pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def test_a_checkouts_commit_is_recorded(tmp_path, monkeypatch):
    package = checkout(tmp_path / "saln")
    assert _commit(package) is None  # no repository
    commit = committed(tmp_path / "saln")
    assert _commit(package) == commit
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))  # as inside a hook of git's
    assert _commit(package) == commit


def test_another_repositorys_commit_is_not_ours(tmp_path):
    """An environment inside somebody's project; a copy of the package; an unpacked release."""
    project = tmp_path / "project"
    installed = project / ".venv" / "lib" / "python3.11" / "site-packages" / "saln"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    theirs = checkout(project, '[project]\nname = "theirs"\n')
    unpacked = checkout(project / "vendor" / "saln-1.0")
    committed(project)
    for package in (installed, theirs, unpacked):
        assert _commit(package) is None, package
    # Ours by its name, but not under the repository's control.
    ignored = tmp_path / "empty"
    package = checkout(ignored)
    git(ignored, "init", "-q")
    git(ignored, "commit", "-q", "--allow-empty", "-m", "nothing")
    assert _commit(package) is None


@pytest.mark.parametrize("fault", ["missing", "forbidden", "fails"])
def test_a_machine_without_a_git_that_works_loses_nothing(tmp_path, monkeypatch, fault):
    package = checkout(tmp_path / "saln")
    committed(tmp_path / "saln")
    tools = tmp_path / "tools"
    tools.mkdir()
    if fault != "missing":
        (tools / "git").write_text("#!/bin/sh\necho not now >&2\nexit 128\n")
        (tools / "git").chmod(0o755 if fault == "fails" else 0o644)
    monkeypatch.setenv("PATH", str(tools))
    assert _commit(package) is None
    monkeypatch.setattr(module.saln, "__file__", str(package / "__init__.py"))
    found = environment(torch.device("cpu"))
    assert found["commit"] is None
    assert found["torch"] == torch.__version__
