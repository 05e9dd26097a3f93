"""Flags from the fields of a dataclass: how they are read, named in messages and explained."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from saln.cli.flags import Command
from saln.errors import InputError
from saln.messages import NO_VALUE, Placeholder, parameter


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a command takes."""

    source: Path
    """Where it begins."""
    others: tuple[Path, ...] = ()
    """And goes on."""
    batch_size: int = 8
    """How many at once."""
    seeds: tuple[int, ...] = (0,)
    """One run each."""
    pretrained: bool = True
    """Start from weights."""
    color: str = field(default="red")
    """Any."""


def run(settings):
    """Does the work.

    In more than a line.
    """
    sys.stdout.write(f"{parameter('batch_size', settings.batch_size)} {parameter('weights', 3)}\n")
    return settings.batch_size


COMMAND = Command(
    name="try",
    settings=Settings,
    run=run,
    positional=("source", "others"),
    other_names={"size": "batch_size", "unreadable": "saln features --skip-unreadable"},
)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["a"], {}),
        (["a", "b", "c"], {"others": (Path("b"), Path("c"))}),
        (["--batch-size", "4", "a", "--seeds=1, 2"], {"batch_size": 4, "seeds": (1, 2)}),
        (["a", "--batch_size=4.0"], {"batch_size": 4}),
        (["a", "--no-pretrained"], {"pretrained": False}),
        (["a", "--no-pretrained=false"], {"pretrained": True}),
        (["a", "--pretrained=NO"], {"pretrained": False}),
        (["a", "--batch-size", "4", "--batch-size", "5"], {"batch_size": 5}),  # the last counts
        (["a", "--color", "-1"], {"color": "-1"}),
        (["-"], {"source": Path("-")}),
    ],
)
def test_values_reach_their_fields(line, expected):
    assert COMMAND.read(line) == Settings(**{"source": Path("a"), **expected})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ([], "saln try needs SOURCE; give it ('saln try --help' lists what it takes)"),
        (["a", "--batch-siz", "3"], "has no flag --batch-siz; did you mean --batch-size?"),
        (["a", "--no-color"], "has no flag --no-color"),
        (["a", "--batch-size"], "--batch-size needs a value; give a whole number"),
        (["a", "--batch-size", "--color=x"], "--batch-size needs a value"),
        (["a", "--batch-size", "x"], "--batch-size x is not allowed; give a whole number"),
        (["a", "--pretrained=x"], "--pretrained=x is not allowed; give --pretrained alone, or"),
        (["a", "x" * 300], "(File name too long); give another path"),
        (["a\0b"], "SOURCE 'a\\x00b' is not allowed; give a path"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_cure(line, message):
    with pytest.raises(InputError) as caught:
        COMMAND.read(line)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("batch_size", 0, "--batch-size 0"),
        ("batch_size", NO_VALUE, "--batch-size"),
        ("size", 0, "--batch-size 0"),  # another name of the library for it
        ("seeds", (1, 1), "--seeds 1,1"),
        ("seeds", (), "--seeds ''"),
        ("pretrained", True, "--pretrained"),
        ("pretrained", False, "--no-pretrained"),
        ("color", Placeholder("NAME"), "--color NAME"),
        ("color", "a\nb", "--color 'a\\nb'"),
        ("source", "x", "SOURCE x"),
        ("unreadable", "skip", "saln features --skip-unreadable"),
        ("rank", 3, "rank=3"),  # no flag of this command
    ],
)
def test_messages_name_parameters_as_they_are_given_here(name, value, said):
    assert COMMAND.spell(name, value) == said


def test_a_command_names_flags_only_while_it_is_run(capsys):
    assert COMMAND(["a", "--batch-size", "5"]) == 5
    assert capsys.readouterr().out == "--batch-size 5 weights=3\n"
    assert parameter("batch_size", 5) == "batch_size=5"


def test_help_shows_the_fields_words_and_defaults(capsys):
    with pytest.raises(SystemExit) as ended:
        COMMAND.read(["--help"])
    assert ended.value.code == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for words in (
        "usage: saln try",
        "Does the work. In more than a line.",
        "SOURCE Where it begins. (required)",
        "--batch-size INT How many at once. (default: 8)",
        "--seeds 0,1,.. One run each. (default: 0)",
        "--pretrained, --no-pretrained Start from weights. (default: True)",
    ):
        assert words in said
