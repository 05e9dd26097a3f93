"""What the README shows must work as it stands there."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from pathlib import Path

import pytest

from saln.cli import _COMMANDS, read_compare, read_features
from saln.experiments.config import Config, load_preset

README = (Path(__file__).parents[1] / "README.md").read_text()
MAKEFILE = (Path(__file__).parents[1] / "Makefile").read_text()
COMMANDS = [
    shlex.split(line, comments=True)
    for block in re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    for line in block.splitlines()
]


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL))
def test_snippets_run(block):
    exec(compile(block, "README.md", "exec"), {})


def test_commands_exist_and_their_flags_are_allowed(tmp_path, monkeypatch):
    # What `saln compare` has written before `--resume` and `report` are called.
    (tmp_path / "runs" / "digits").mkdir(parents=True)
    settings = json.dumps(load_preset("digits").to_json())
    (tmp_path / "runs" / "digits" / "config.json").write_text(settings)
    monkeypatch.chdir(tmp_path)
    saln = [command[1:] for command in COMMANDS if command[0] == "saln"]
    assert len(saln) >= 5
    for name, *arguments in saln:
        assert name in _COMMANDS
        if name == "compare":
            read_compare(arguments)
        elif name == "features":
            read_features(arguments)
    targets = [command[1] for command in COMMANDS if command[0] == "make"]
    assert targets == ["compare", "test"]
    for target in targets:
        assert re.search(rf"^{target}:", MAKEFILE, flags=re.MULTILINE)


def test_flags_in_the_text_exist():
    fields = {field.name.replace("_", "-") for field in dataclasses.fields(Config)}
    prose = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    shown = re.findall(r"--([a-z][a-z-]*)(?: (?!-)([\w.,-]*[\w]))?", prose)
    assert len(shown) > 8
    for name, value in shown:
        assert name.removeprefix("no-") in fields, name
        if value and not value.isupper() and not value.startswith("FILE"):
            read_compare([f"--{name}", value])
