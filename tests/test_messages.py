"""What messages call a parameter: its name in Python, its flag on the command line."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import saln
from saln.cli import main
from saln.errors import InputError
from saln.experiments.config import Config
from saln.messages import Placeholder, parameter, spelled_by

SOURCE = Path(saln.__file__).parent


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("batch_size", 0), "batch_size=0"),
        (("batch_size",), "batch_size"),
        (("dataset", "mnist"), "dataset='mnist'"),
        (("out", Path("a b")), "out=a b"),
        (("out", Placeholder("DIR")), "out=DIR"),
        (("seeds", (1, 1)), "seeds=(1, 1)"),
        (("resume", True), "resume=True"),
        (("dataset", "a\nb" * 100), "dataset='a\\nb"),
    ],
)
def test_python_names(arguments, said):
    assert parameter(*arguments).startswith(said)
    assert "\n" not in parameter(*arguments)
    assert len(parameter(*arguments)) < 140


def test_another_spelling_ends_with_its_block():
    with spelled_by(lambda name, value: f"<{name}>"):
        assert parameter("out", 3) == "<out>"
        with spelled_by(lambda name, value: "inner"):
            assert parameter("out", 3) == "inner"
        assert parameter("out", 3) == "<out>"
    assert parameter("out", 3) == "out=3"


@pytest.mark.parametrize(
    ("settings", "python", "flags", "line"),
    [
        ({"batch_size": 0}, "batch_size=0 is not", ["--batch-size", "0"], "--batch-size 0 is not"),
        (
            {"dataset": "mnist"}, "dataset='mnist' is not", ["--dataset", "mnist"],
            "--dataset mnist is not",
        ),
        ({"seeds": (1, 1)}, "seeds=(1, 1) is not", ["--seeds", "1,1"], "--seeds 1,1 is not"),
        ({"methods": ()}, "methods=() is not", ["--methods", ""], "--methods '' is not"),
        ({"resume": True}, "resume needs", ["--resume"], "--resume needs"),
        ({"resume": True}, "give out=DIR", ["--resume"], "give --out DIR"),
        (
            {"epochs": 2, "full_first_epochs": 2}, "full_first_epochs=2 and full_last_epochs=0",
            ["--epochs", "2", "--full-first-epochs", "2"],
            "--full-first-epochs 2 and --full-last-epochs 0",
        ),
    ],
)  # fmt: skip
def test_the_same_mistake_in_python_and_on_the_command_line(capsys, settings, python, flags, line):
    with pytest.raises(InputError) as caught:
        Config(**settings).check()
    assert python in str(caught.value)
    assert "--" not in str(caught.value)
    assert main(["compare", *flags]) == 2
    assert line in capsys.readouterr().err


def test_no_module_but_the_command_line_writes_flags_into_messages():
    """What stands in quotes of a message may be a whole command, to be typed as it is."""
    for path in SOURCE.rglob("*.py"):
        if path.name.startswith("cli") or path.parent.name == "cli":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise):
                text = re.sub(r"saln compare --resume --out|--nproc-per-node|ray start --head", "",
                              ast.unparse(node))  # fmt: skip
                assert not re.search(r"--[a-z]", text), f"{path}:{node.lineno}"
