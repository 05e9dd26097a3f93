"""What the README shows must work as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from saln.cli import _COMMANDS, read_compare

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


def test_commands_exist_and_their_flags_are_allowed():
    saln = [command[1:] for command in COMMANDS if command[0] == "saln"]
    assert len(saln) >= 5
    for name, *arguments in saln:
        assert name in _COMMANDS
        if name == "compare":
            read_compare(arguments)
    targets = [command[1] for command in COMMANDS if command[0] == "make"]
    assert targets == ["compare", "test"]
    for target in targets:
        assert re.search(rf"^{target}:", MAKEFILE, flags=re.MULTILINE)


def test_flags_in_the_text_exist():
    for flag in set(re.findall(r"`(--[a-z][^`]*)`", README)):
        words = [word for word in flag.split() if word.startswith("--")]
        for word in words:
            value = {"--config": None, "--weights": "x", "--backbone-weights": "x"}
            example = re.search(rf"{word} ([\w.,/-]+)", flag)
            if word == "--config":
                continue  # reads its file at once
            arguments = [word]
            if word in value:
                arguments.append(value[word])
            elif example:
                arguments.append(example[1])
            read_compare(arguments)
