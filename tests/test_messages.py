"""What messages call a parameter: its name in Python, its flag on the command line."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from helpers.syntax_trees import parsed

import saln
from saln.cli import main
from saln.errors import InputError
from saln.experiments.config import Config
from saln.messages import Placeholder, parameter, spelled_by

SOURCE = Path(saln.__file__).parent
# Of other programs, and whole commands that are to be typed as they stand.
COMMANDS = (
    r"saln compare --resume --out|saln labels --task regression|--nproc-per-node|ray start --head|"
    r"--show-toplevel|--verify|saln features --dataset"
)
# What `saln list` shows beside a name, in the words of the command line.
TEXTS_OF_OTHERS = {"--download to fetch", "--ink", "--grid", "--paper-of-figures", "--color-"}


def help_of(tree):
    """The lines of docstrings: those of settings are the command line's help."""
    return {
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


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
        if path.parent.name == "cli":
            continue
        tree = parsed(path)
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = re.sub(COMMANDS, "", node.value)
                found = re.search(r"(^|[ (])--[a-z]", text)
                assert not found or text in TEXTS_OF_OTHERS or node.lineno in help_of(tree), (
                    f"{path}:{node.lineno} writes {text!r}; name it with parameter()"
                )
